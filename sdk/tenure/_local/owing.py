"""Accepted turns of the local runtime: run on until they end, woken by what they wait for (protocol 9)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, cast

from tenure import errors
from tenure._clock import Handle
from tenure._deadline import boot_ns
from tenure._journal import NOTHING, outcome
from tenure._local import asking, owed, work
from tenure._local.held import Held, error_of
from tenure._local.journal import Full, LocalJournal, Ticket
from tenure._local.owed import Request
from tenure._local.timers import AGAIN_S
from tenure._turn import Done
from tenure.directives import Directive
from tenure.signals import Signal, to_msgpack
from tenure_link import Entry, Fault

if TYPE_CHECKING:
    from tenure._local.engine import Engine


class Owing:
    """What the agents of one runtime owe, and who waits for it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._asking = asking.Asking(engine, self)
        self._tickets: dict[str, Ticket] = {}
        """By the key of the turn."""
        self._handles: dict[str, Handle] = {}
        self._rooms: dict[str, list[Callable[[], None]]] = {}
        """Works that are held back, by agent."""

    def now(self) -> float:
        """Seconds, of the runtime's clock."""
        return self._engine.clock.now()

    # --- what comes, in the agent's turn ---

    async def take(
        self, held: Held, request: Request, until_ns: int, extra: tuple[Directive, ...], ticket: Ticket | None
    ) -> bytes | None:
        """Run it, or keep it for later. The reply; None: the turn is owed. Raises CallError: how it ended."""
        slices = held.activation.slices
        if request.reply_to:
            known = slices.get(owed.CALLS, {}).get(request.key)
            if known is not None:
                self._asking.reply(held.id, request, known)
                return None
            if owed.holds(slices, request.key):
                return None  # asked again by one that was away meanwhile
        if not owed.queues(slices):
            return await self._run(held, request, until_ns, extra, ticket, None)
        if owed.ends_wait(slices, request.wanted):
            await self.wake(held, to_msgpack(cast(Signal, request.wanted)), extra)
            return NOTHING
        self._asking.refuse_cycle(held, request)
        if len(owed.inbox_of(slices)) >= owed.INBOX_LIMIT and not extra:
            raise Full(f"{owed.INBOX_LIMIT} works wait for the end of a turn of {held.id} already", agent=held.id)
        await self._engine.lives.amend_now(held, (*extra, owed.Inboxed(request)))
        self.expect(ticket, held, request)
        self.sync(held)
        return None

    async def wake(self, held: Held, result: bytes, extra: tuple[Directive, ...] = ()) -> None:
        """End the wait of the agent's turn, with its result in the same commit [wake_in_commit]."""
        turn = owed.turn_of(held.activation.slices)
        assert turn is not None  # noqa: S101 - for the type checkers
        woken = owed.Woken(turn["key"], turn["wait"]["position"], result)
        await self._engine.lives.amend_now(held, (*extra, woken))
        self.sync(held)

    async def _run(
        self,
        held: Held,
        request: Request,
        until_ns: int,
        extra: tuple[Directive, ...],
        ticket: Ticket | None,
        entries: list[Entry] | None,
    ) -> bytes | None:
        """One attempt. As `take`; what an accepted turn could not commit is tried again in a while."""
        journal = LocalJournal(self, held, request, extra, ticket, entries)
        try:
            done = await self._engine.act(held, request, until_ns, journal)
            if done.waits is not None:
                await self._engine.lives.amend_now(held, (owed.Waiting(journal.key, done.waits),))
        except errors.CallError as error:
            if not journal.accepted:
                raise
            self._uncommitted(held, request, error)
            return None
        if done.waits is not None:
            self.sync(held)
            return None
        return self._ended(held, request, done, journal)

    def _uncommitted(self, held: Held, request: Request, error: errors.CallError) -> None:
        """An accepted turn did not come to its next commit: it is tried again. Raises what became of it else."""
        now = self._engine.agents.get(held.id, held)
        slices = now.activation.slices
        if owed.holds(slices, request.key):
            self._engine.report(held, work.label_of(request.wanted), error)
            self._again(held)
        elif request.reply_to:  # it has ended, and its process before it could say so
            self._asking.reply(held.id, request, slices[owed.CALLS][request.key])
        else:
            if (ticket := self._tickets.pop(request.key, None)) is not None:
                ticket.tell(error)
            raise error

    def _ended(self, held: Held, request: Request, done: Done, journal: LocalJournal) -> bytes | None:
        end = _end_of(held, done, journal)
        self.sync(held)
        if (ticket := self._tickets.pop(request.key, None)) is not None:
            ticket.tell(end)
        if request.reply_to:
            self._asking.reply(held.id, request, outcome(cast(bytes, done.reply), done.fault))
            return None
        if isinstance(end, errors.CallError):
            raise end
        return end

    async def persist(self, held: Held, directives: Sequence[Directive]) -> None:
        """Commit something beside the turn that runs. Raises Unavailable, Fenced."""
        if held.ended is not None:
            raise errors.Unavailable(f"{held.id} has stopped: {held.ended}", agent=held.id)
        record = held.activation.beside(directives)
        await self._engine.persist(held, record)
        held.activation.adopt(record)

    # --- who waits ---

    def expect(self, ticket: Ticket | None, held: Held, request: Request) -> None:
        """The turn is accepted: whoever waits for it waits until its end, or gives up."""
        self._engine.accepted(held)
        if ticket is None or ticket.future is not None:
            return
        ticket.agent, ticket.label = held.id, work.label_of(request.wanted)
        ticket.future = asyncio.get_running_loop().create_future()
        self._tickets[request.named()] = ticket
        if ticket.until is not None:
            ticket.handle = self._engine.clock.call_at(ticket.until, lambda: self._give_up(request.key))

    def _give_up(self, key: str) -> None:
        if (ticket := self._tickets.pop(key, None)) is not None:
            ticket.give_up()

    async def answer(self, ticket: Ticket | None) -> bytes:
        """The reply of an accepted turn; that nobody waits for, nothing. Raises CallError."""
        if ticket is None or ticket.future is None:
            return NOTHING
        end = await self._engine.parked_on(ticket.future)
        if isinstance(end, errors.CallError):
            raise end
        return end

    async def room(self, held: Held) -> None:
        """Wait until there may be room in an agent's inbox, or its turn waits for something else. Raises Busy."""
        held_back = self._rooms.setdefault(held.id, [])
        if len(held_back) >= held.limit:
            raise errors.Busy(f"{len(held_back)} works are held back from {held.id} already", agent=held.id)
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        held_back.append(lambda: None if over.done() else over.set_result(None))
        await self._engine.parked_on(over)

    # --- what goes on by itself ---

    def sync(self, held: Held, *, again: bool = False) -> None:
        """Go on with what can go on, and wait for what is waited for. `again`: the agent was away meanwhile."""
        if held.ended is not None:
            return
        self._disarm(held.id)
        slices = held.activation.slices
        for wake in self._rooms.pop(held.id, ()):
            wake()
        if owed.runs(slices):
            self._pump(held)
        elif (at := owed.due(slices)) is not None:
            self._arm(held, at)
            if owed.waits_for_agent(slices):
                self._asking.ask(held, again=again)

    def forget(self, held: Held, *, lost: bool) -> None:
        """The agent is not here any more. `lost`: nor will it come back by itself."""
        self._disarm(held.id)
        for wake in self._rooms.pop(held.id, ()):
            wake()
        for key, ticket in list(self._tickets.items()) if lost else ():
            if ticket.agent == held.id:
                del self._tickets[key]
                reason = f"{held.id} has stopped before it ended {ticket.label}: {held.ended}"
                ticket.tell(errors.Unavailable(reason, outcome="unknown", agent=held.id))

    def close(self) -> None:
        """Nothing goes on any more."""
        for agent_id in list(self._handles):
            self._disarm(agent_id)
        for ticket in self._tickets.values():
            if ticket.handle is not None:
                ticket.handle.cancel()

    def _again(self, held: Held) -> None:
        """Go on in a while: something could not be committed."""
        if held.ended is None:
            self._arm(held, self.now() + AGAIN_S)

    def _arm(self, held: Held, at: float) -> None:
        self._disarm(held.id)
        self._handles[held.id] = self._engine.clock.call_at(at, lambda: self._due(held, at))

    def _disarm(self, agent_id: str) -> None:
        if (handle := self._handles.pop(agent_id, None)) is not None:
            handle.cancel()

    def _due(self, held: Held, at: float) -> None:
        self._handles.pop(held.id, None)
        self._engine.apart(self._time(held, at), f"{held.id} goes on")

    async def _time(self, held: Held, at: float) -> None:
        """A wait, or a turn, has come to the end of its time."""
        try:
            async with held.turn(self._engine.parked, always=True):
                slices = held.activation.slices
                turn, now = owed.turn_of(slices), max(at, self.now())
                if turn is not None and turn["wait"] is not None and now >= turn["ends"]:
                    await self._told(held, owed.request_of(turn), self._over(held, turn))
                elif turn is not None and turn["wait"] is not None and 0 < turn["wait"]["until"] <= now:
                    await self.wake(held, NOTHING)
                else:
                    self.sync(held)
        except errors.NotFound:
            return
        except errors.CallError as error:
            self._engine.report(held, "the end of its wait", error)
            self._again(held)

    def _pump(self, held: Held) -> None:
        if not held.pumping:
            held.pumping = True
            self._engine.apart(self._go_on(held), f"{held.id} goes on")

    async def _go_on(self, held: Held) -> None:
        """Run what is owed, one after the other, each as a turn of its own."""
        try:
            while True:
                async with held.turn(self._engine.parked, always=True):
                    if not owed.runs(held.activation.slices):
                        return
                    if not await self._next(held):
                        return
        except errors.NotFound:
            return  # it has ended, or sleeps: who wakes it goes on
        finally:
            held.pumping = False

    async def _next(self, held: Held) -> bool:
        """One attempt of what is owed. False: it could not be committed, and is tried again in a while."""
        slices = held.activation.slices
        turn = owed.turn_of(slices)
        request = owed.request_of(turn if turn is not None else owed.inbox_of(slices)[0])
        self._engine.about(held, request.wanted)
        if turn is None:
            until_ns = deadline_ns(self._engine.timeout)
            attempt = self._run(held, request, until_ns, (owed.Taken(request.key),), None, None)
        elif self.now() >= turn["ends"]:
            attempt = self._over(held, turn)
        else:
            attempt = self._run(held, request, deadline_ns(turn["ends"] - self.now()), (), None, owed.entries_of(turn))
        await self._told(held, request, attempt)
        return held.id not in self._handles

    async def _told(self, held: Held, request: Request, attempt: Coroutine[Any, Any, bytes | None]) -> None:
        """An attempt; its error is told to who waits for it, or else logged. What is still owed is tried again."""
        waited_for = request.key in self._tickets or request.reply_to
        try:
            await attempt
        except errors.CallError as error:
            again = owed.holds(held.activation.slices, request.key)
            if again:
                self._again(held)
            if again or not waited_for:
                self._engine.report(held, work.label_of(request.wanted), error)

    async def _over(self, held: Held, turn: owed.Row) -> bytes | None:
        """The turn did not end in its time. Raises CallError: that it did not."""
        request = owed.request_of(turn)
        journal = LocalJournal(self, held, request, (), None, owed.entries_of(turn))
        names = ", ".join(entry.name for entry in journal.entries) or "none"
        text = f"{work.label_of(request.wanted)} did not end in the time of its turn; finished steps: {names}"
        done = Done(0, fault=Fault("DeadlineExceeded", text))
        await self._engine.lives.amend_now(held, journal.closing(Fault("DeadlineExceeded", text)))
        self._engine.after(held, done)
        return self._ended(held, request, done, journal)


def _end_of(held: Held, done: Done, journal: LocalJournal) -> bytes | errors.CallError:
    """The reply of a turn, or its error: after a step it has had effects, whatever became of the state."""
    if done.fault is None:
        return cast(bytes, done.reply)
    error = error_of(done.fault, held.id)
    if journal.entries:
        error.outcome = "unknown"
    return error


def deadline_ns(seconds: float) -> int:
    """That many seconds from now, on CLOCK_BOOTTIME."""
    return boot_ns() + int(seconds * 1e9)
