"""One call, from the lease check to the reply: the order of duties of docs/architecture.md, "The path of one call".

    lease held? -> judge the call id -> Turn -> TurnDone -> write to a majority -> Commit -> lease held? -> release

What is known of a call that fails: before its first store write was sent, *not applied*; after it *unknown*, unless the
write's fate is known (protocol additions 11).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from enum import Enum
from typing import Literal

import msgspec

import tenure_link
from tenure_proto.v1.calls_pb2 import Call, Reply
from tenure_proto.v1.common_pb2 import Error
from tenured.clocks import boot_ns
from tenured.core import turns
from tenured.core.frames import MAX_RECORD
from tenured.host.failures import not_applied, unknown
from tenured.host.site import Site
from tenured.host.store import Record, RecordLost
from tenured.host.worker import Worker, WorkerLost

log = logging.getLogger("tenured.host.turns")

Kind = Literal["action", "query", "by_name"]

STUCK_LIMIT_S = 10.0
"""A turn that runs on so long after its deadline blocks its agent for good: its worker is killed."""


class Stage(Enum):
    """How far a call has come."""

    QUEUED = "queued"
    RUNNING = "running"
    """The worker has it."""
    WRITTEN = "written"
    """A store write that carries its effect was sent."""


class Job:
    """One call on its way. Answered once, by whoever is first: its turn, its deadline, or the end of the activation."""

    def __init__(self, call: Call, kind: Kind, caller: str, deadline_ns: int) -> None:
        self.call = call
        self.kind: Kind = kind
        self.caller = caller
        self.deadline_ns = deadline_ns
        self.stage = Stage.QUEUED
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    @property
    def answered(self) -> bool:
        """Nobody waits for it any more; it must have no effect from here on, unless it was written."""
        return self.reply.done()

    def remaining_s(self) -> float:
        """Seconds to its deadline."""
        return (self.deadline_ns - boot_ns()) / 1e9

    def answer(self, value: bytes, *, recorded: bool = False) -> None:
        """Success."""
        if not self.reply.done():
            self.reply.set_result(Reply(value=value, recorded=recorded))

    def fail(self, error: Error) -> None:
        """A typed error."""
        if not self.reply.done():
            self.reply.set_result(Reply(error=error))

    def out_of_time(self) -> None:
        """The deadline passed: what is known depends on the stage."""
        if self.stage is Stage.WRITTEN:
            self.fail(
                unknown(
                    "DeadlineExceeded",
                    "the deadline passed while the turn was being committed: it may have been applied",
                )
            )
        else:
            where = "waited for its turn" if self.stage is Stage.QUEUED else "ran"
            self.fail(
                not_applied("DeadlineExceeded", f"the deadline passed while the call {where}; nothing of it was kept")
            )

    def cut_off(self, code: str, message: str) -> None:
        """The activation ends under it."""
        self.fail(unknown(code, message) if self.stage is Stage.WRITTEN else not_applied(code, message))


class Ledger:
    """The record of one agent with its marks, as of the last committed version [ack_committed]."""

    def __init__(self, record: Record, entries: Mapping[str, bytes]) -> None:
        """Raises turns.Damaged."""
        self._record = record
        self._book = turns.load(entries)
        self._size = sum(map(len, entries.values()))
        self.state: bytes | None = entries.get(turns.STATE)
        """Last committed; None: there was never one."""

    def judge(self, job: Job, now: float) -> turns.Judgement:
        """Whether this call is new."""
        return turns.judge(self._book, job.call.client_id, job.call.key, job.call.born, now)

    async def begin(self, state: bytes, now: float) -> None:
        """Commits the state that an activation begins with: the first one, or what its hook made of the stored one.

        Raises RecordLost.
        """
        turn = turns.begin(state, now) if self.state is None else turns.amend(self._book, state, now)
        self._size = self._size_after(turn)
        await self._record.write(boot_ns(), turn.puts, turn.deletes)
        self._book, self.state = turn.book, state

    async def settle(self, job: Job, done: tenure_link.TurnDone, now: float) -> None:
        """Commits a turn: state, mark and reply, clock: one write. Raises RecordLost, TooLarge (nothing was sent)."""
        call_id = (job.call.client_id, job.call.key)
        turn = turns.settle(self._book, call_id, job.call.born, now, state=done.state, reply=done.reply or b"")
        size = self._size_after(turn)
        if size > MAX_RECORD:
            raise TooLarge(f"the state would take {size} bytes; the limit is {MAX_RECORD}")
        written = self._record.write(boot_ns(), turn.puts, turn.deletes)
        job.stage = Stage.WRITTEN
        await written
        self._book, self._size = turn.book, size
        if done.state is not None:
            self.state = done.state

    def _size_after(self, turn: turns.Turn) -> int:
        entries = self._record.owner.entries
        removed = sum(len(entries.get(name, b"")) for name in (*turn.puts, *turn.deletes))
        return self._size - removed + sum(map(len, turn.puts.values()))


class TooLarge(ValueError):
    """The record would exceed its limit."""


class Turns:
    """Runs the turns of one agent, one at a time."""

    def __init__(self, site: Site, uid: str, agent: str, epoch: int, ledger: Ledger) -> None:
        self._site = site
        self._uid = uid
        self._agent = agent
        self._epoch = epoch
        self._ledger = ledger

    async def run(self, worker: Worker, job: Job) -> None:
        """Runs one call and answers it. Raises WorkerLost (the job is not answered yet) and RecordLost (it is)."""
        if job.answered:
            return
        if not self._site.lease.held:
            job.fail(not_applied("Fenced", "the lease of this host has lapsed"))
            return
        if job.kind != "query" and not self._is_new(job):
            return
        if worker.lost:
            raise WorkerLost(f"worker {worker.pid} is gone")
        number = next(self._site.turns)
        job.stage = Stage.RUNNING
        settled = False
        started = boot_ns()
        try:
            done = await self._ask(worker, job, number)
            self._site.metrics.turn_seconds.observe((boot_ns() - started) / 1e9)
            settled = await self._settle(job, done)
        finally:
            # Cancelled, refused or failed: the worker goes back to the last committed state before the next turn.
            (worker.commit if settled else worker.drop)(number, self._uid)
        if settled:
            self._release(job, done)

    def _is_new(self, job: Job) -> bool:
        """Answers a call that was applied before, or whose fate is not known now (protocol 3, external clients)."""
        match self._ledger.judge(job, self._site.lease.cluster_time):
            case turns.Recorded(reply):
                job.answer(reply, recorded=True)
            case turns.AppliedReplyGone():
                job.fail(
                    unknown(
                        "ReplyNotKept",
                        "the call was applied earlier; its reply is no longer kept",
                        next_step="Read the state.",
                    )
                )
            case turns.TooOld():
                job.fail(
                    unknown(
                        "Expired", "the call id is older than marks are kept", next_step="Read the state with a query."
                    )
                )
            case turns.FromTheFuture():
                job.fail(
                    not_applied(
                        "InvalidArguments",
                        f"the call id was born at {job.call.born:g} s of cluster time, which is far ahead",
                        next_step="Send the cluster time of this cluster's answers.",
                    )
                )
            case turns.Busy():
                job.fail(not_applied("Busy", "the agent has too many recent calls to tell apart; try later"))
            case turns.New():
                return True
        return False

    async def _ask(self, worker: Worker, job: Job, number: int) -> tenure_link.TurnDone:
        """The worker's answer. Raises WorkerLost."""
        frame = tenure_link.Turn(
            turn=number,
            uid=self._uid,
            kind=job.kind,
            method=job.call.method,
            arguments=job.call.arguments,
            deadline_ns=job.deadline_ns,
            caller=job.caller,
            call_id=f"{job.call.client_id}/{job.call.key}" if job.call.client_id else "",
        )
        # The worker keeps the deadline too, and cancels what can be cancelled. What cannot is waited for: one turn at a
        # time.
        asking = asyncio.ensure_future(worker.turn(frame))
        try:
            done, _ = await asyncio.wait({asking}, timeout=max(0.0, job.remaining_s()))
            if not done:
                job.out_of_time()
                done, _ = await asyncio.wait({asking}, timeout=STUCK_LIMIT_S)
            if not done:
                self._site.pool.kill(
                    worker, f"{self._agent} {job.call.method} ran on for {STUCK_LIMIT_S:g} s after its deadline"
                )
            return await asking
        finally:
            asking.cancel()

    async def _settle(self, job: Job, done: tenure_link.TurnDone) -> bool:
        """Commits; true when the turn is durable and may be released."""
        if done.fault is not None:
            self._blame(job, done.fault)
            return False
        if job.answered:  # its deadline passed a moment ago and it was called "not applied": it must stay so
            return False
        if job.kind == "query":
            return True
        started = boot_ns()
        try:
            await self._ledger.settle(job, done, self._site.lease.cluster_time)
        except TooLarge as error:
            job.fail(not_applied("StateInvalid", f"{self._agent} {job.call.method}: {error}"))
            return False
        except RecordLost as error:
            job.cut_off("Fenced", f"another holder has taken over: {error}")
            raise
        self._site.metrics.commit_seconds.observe((boot_ns() - started) / 1e9)
        return True

    def _release(self, job: Job, done: tenure_link.TurnDone) -> None:
        """Reply and signals leave, if the lease is held now: after the commit or the read, before the release (protocol
        1, host 2).
        """
        if not self._site.lease.held:
            job.cut_off("Fenced", "the lease of this host lapsed before the reply could be released")
            return
        job.answer(done.reply or b"")
        for signal in done.signals:
            self._site.logs.add(
                self._uid, self._agent, self._epoch, "signal", f"signal {signal.type} {_readable(signal.data)}"
            )

    def _blame(self, job: Job, fault: tenure_link.Fault) -> None:
        """A failure in user code: typed, not applied, its traceback in the agent's log."""
        self._site.logs.add(self._uid, self._agent, self._epoch, "error", fault.message)
        if fault.details:
            self._site.logs.add(self._uid, self._agent, self._epoch, "error", fault.details)
        job.fail(not_applied(fault.code, fault.message))


def _readable(data: bytes) -> str:
    """The signal's data as JSON, for people."""
    try:
        return msgspec.json.encode(msgspec.msgpack.decode(data)).decode()
    except (msgspec.DecodeError, TypeError, ValueError):
        return f"({len(data)} bytes)"
