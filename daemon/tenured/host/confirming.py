"""Quorum reads (protocol 2): a read is true without a clock when a majority, asked after the read arrived, answers that
this epoch is what is sealed [check_after, check_majority, check_sealed].

Asked by a seal of the same epoch without its record: it changes nothing where it is sealed already, and is refused
where a higher one is. Those of one turn of the loop share a frame to each server.
"""

from __future__ import annotations

import asyncio

from tenured.host.jobs import CallJob
from tenured.host.stores import RecordLost, StateStore


def confirm(store: StateStore, uid: str, epoch: int, job: CallJob) -> asyncio.Task[None]:
    """Ask now. The task ends well when the read may be released; it is cancelled when nobody waits any more.

    Raises RecordLost, in the task: somebody else holds the agent.
    """
    task = asyncio.get_running_loop().create_task(_confirmed(store, uid, epoch))
    job.reply.add_done_callback(lambda _: task.cancel())
    return task


async def _confirmed(store: StateStore, uid: str, epoch: int) -> None:
    record = store.open(uid, epoch, expect_state=False, bare=True)
    try:
        await record.asleep()
    finally:
        store.close(record)


def when_confirmed(task: asyncio.Task[None], job: CallJob, reply: bytes, held: bool) -> None:
    """The read's result leaves, or the reason why it does not."""
    if task.cancelled() or job.answered:
        return
    error = task.exception()
    if isinstance(error, RecordLost):
        job.cut_off("Fenced", f"another holder has taken over: {error}")
    elif error is not None:
        job.cut_off("Internal", f"the read could not be confirmed: {error}")
    elif held:
        job.answer(reply)
    else:
        job.cut_off("Fenced", "the lease of this host lapsed before the reply could be released")
