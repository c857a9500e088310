"""One turn that may be accepted: its journal in the agent's record, and who waits for its end (protocol 9)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tenure import errors
from tenure._clock import Handle
from tenure._journal import outcome
from tenure._local import owed
from tenure._local.held import Held
from tenure._local.owed import Request
from tenure.directives import Directive
from tenure_link import Entry, Fault

if TYPE_CHECKING:
    from tenure._local.owing import Owing


class Full(errors.Busy):
    """The inbox is full: what nobody waits for is held back."""


class Ticket:
    """Somebody in this process waits for the end of a turn."""

    __slots__ = ("agent", "future", "handle", "label", "outer", "seconds", "until")

    def __init__(self, until: float | None = None, seconds: float = 0.0) -> None:
        """`until`: when it gives up, on the runtime's clock; None: never."""
        self.until, self.seconds = until, seconds
        self.agent, self.label = "", ""
        self.outer: asyncio.Future[bytes] | None = None
        """What a caller outside of the engine awaits."""
        self.future: asyncio.Future[bytes | errors.CallError] | None = None
        """Made when the turn is accepted; the reply, or why there is none."""
        self.handle: Handle | None = None

    def follow(self, task: asyncio.Task[bytes]) -> asyncio.Future[bytes]:
        """How a task ends, for a caller outside, unless it gives up before."""
        outer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.outer = outer

        def hand_on(done: asyncio.Task[bytes]) -> None:
            error = None if done.cancelled() else done.exception()
            if outer.done():
                return
            if done.cancelled():
                outer.cancel()
            elif error is not None:
                outer.set_exception(error)
            else:
                outer.set_result(done.result())

        task.add_done_callback(hand_on)
        return outer

    def tell(self, end: bytes | errors.CallError) -> None:
        """How it ended. Only the first word counts."""
        if self.handle is not None:
            self.handle.cancel()
        if self.future is not None and not self.future.done():
            self.future.set_result(end)

    def give_up(self) -> None:
        """The turn goes on, and nobody waits for it any more."""
        error = errors.DeadlineExceeded(
            f"{self.agent} accepted {self.label} and goes on with it; no reply came in {self.seconds:g} s",
            outcome="unknown",
            agent=self.agent,
        )
        self.tell(error)
        if self.outer is not None and not self.outer.done():
            self.outer.set_exception(error)


class LocalJournal:
    """The journal of one turn, in the record of its agent (`tenure._journal.Journal`)."""

    __slots__ = ("_held", "_owing", "_ticket", "accepted", "chain", "entries", "extra", "request")

    keeps_extra = False

    def __init__(
        self,
        owing: Owing,
        held: Held,
        request: Request,
        extra: tuple[Directive, ...],
        ticket: Ticket | None,
        entries: list[Entry] | None,
    ) -> None:
        """`entries` None: it is not accepted. `extra` is committed with the acceptance, or with the end."""
        self._owing, self._held, self._ticket = owing, held, ticket
        self.request, self.extra, self.chain = request, extra, request.chain
        self.accepted = entries is not None
        self.entries: list[Entry] = entries or []

    @property
    def key(self) -> str:
        """See `Journal`."""
        return self.request.named()

    def now(self) -> float:
        """See `Journal`."""
        return self._owing.now()

    async def accept(self, lasts: float) -> None:
        """See `Journal`. Raises Unavailable, Fenced."""
        accepted = owed.Accepted(self.request, self.now() + lasts)
        await self._owing.persist(self._held, (*self.extra, accepted))
        self.accepted, self.extra = True, ()
        self._owing.expect(self._ticket, self._held, self.request)

    async def record(self, position: int, entry: Entry) -> None:
        """See `Journal`. Raises Unavailable, Fenced."""
        await self._owing.persist(self._held, (owed.Journalled(self.key, position, entry),))
        self.entries.append(entry)

    def ending(self, reply: bytes) -> tuple[Directive, ...]:
        """See `Journal`."""
        return self._end(outcome(reply, None)) if self.accepted or self.request.reply_to else ()

    def closing(self, fault: Fault) -> tuple[Directive, ...]:
        """What is to be committed of a turn that failed."""
        return self._end(outcome(None, fault)) if self.accepted else self.extra

    def _end(self, result: bytes) -> tuple[Directive, ...]:
        ended = (owed.Ended(self.key),) if self.accepted else ()
        return (*ended, owed.Answered(self.key, result)) if self.request.reply_to else ended
