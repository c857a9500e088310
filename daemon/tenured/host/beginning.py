"""What an activation begins with: the state that its worker made, or made of the stored one.

A first state need not be written by itself: while nothing of the agent is durable and nobody has seen anything of it,
the next holder may as well make another one of the same row. So it waits a moment for the first turn, whose write it
joins. What must not be shown before it is durable waits too, and hurries it: queries, operations, Ready
[ready_written].
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import tenure_link
from tenure_api.reasons import Reason
from tenured.clocks import wall_s
from tenured.host.alarms import wake_of
from tenured.host.ledger import Ledger
from tenured.host.outgoing import Outgoing
from tenured.host.site import Site
from tenured.host.stores import RecordTooLarge
from tenured.host.worker import ActivationRefused

FIRST_BYTES = 64 * 1024
"""A first state above it is written at once: whether it fits is known before anything is run on it."""


class Beginning:
    """Of one activation."""

    def __init__(self, site: Site, ledger: Ledger, outgoing: Outgoing, write_first: Callable[[], None]) -> None:
        """`write_first()` writes the first state with what else there is to be written."""
        self._site = site
        self._ledger = ledger
        self._outgoing = outgoing
        self._write_first = write_first
        self._timer: asyncio.TimerHandle | None = None
        """Not None: the first state waits, or its write is under way."""
        self._since = 0.0
        self.asked = True
        """Somebody has asked for a turn, or reads, before the first state was written by itself."""

    async def commit(self, activated: tenure_link.Activated) -> None:
        """Keep what it begins with: now, or, of a first state, with the first turn.

        Raises RecordLost, ActivationRefused (it is too large).
        """
        ledger, wake = self._ledger, wake_of(activated.due)
        changed = wake != ledger.book.planned or bool(activated.sends) or activated.stop is not None
        ledger.first = None
        if activated.state is None and not changed:
            return
        if not changed and ledger.state is None and ledger.durable and len(activated.state or b"") <= FIRST_BYTES:
            ledger.first = activated.state
            return
        draft = ledger.draft(self._site.lease.cluster_time)
        draft.state(activated.state)
        draft.due(wake)
        for entry in self._outgoing.entries_of(activated.sends, draft):
            draft.boxes.send(entry)
        if activated.stop is not None:
            draft.end(activated.stop, wall_s())
        turn = draft.turn()
        try:
            await ledger.commit(turn)
        except RecordTooLarge as error:  # nothing was sent
            raise ActivationRefused(tenure_link.Fault(code=Reason.STATE_INVALID, message=str(error))) from error
        self._outgoing.release(turn.book.boxes, draft.boxes.touched)

    def serves(self) -> bool:
        """It is in a worker's memory: whether what it begins with is durable. If not, it is soon: ask `is_over`."""
        if self._ledger.first is None:
            return True
        self._site.newborns.count += 1
        self._since = asyncio.get_running_loop().time()
        self._wait()
        return False

    def _wait(self) -> None:
        """Until it has waited as long as it should by what waits now."""
        loop = asyncio.get_running_loop()
        left = self._since + self._site.newborns.patience_s - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._wait)
        else:
            self.asked = False
            self._write_first()

    def is_over(self) -> bool:
        """Whether what has just been committed was the first state that `serves` had seen waiting."""
        if self._timer is None or self._ledger.first is not None:
            return False
        self.stop()
        return True

    def stop(self) -> None:
        """It leaves the worker's memory."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._site.newborns.count -= 1
