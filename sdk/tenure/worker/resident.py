"""One agent in a worker: its activation, and what a daemon is told of its turns (the worker link)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import msgspec

from tenure import _codec
from tenure._agent import Agent
from tenure._context import targeted
from tenure._deadline import boot_ns as _boot_ns
from tenure._effects import Directive, Emit, Error
from tenure._faults import fault_of
from tenure._journal import WAITING, LinkJournal, chain_of
from tenure._local import timers, work
from tenure._local.carrying import NOTHING, onto
from tenure._local.work import Asked
from tenure._scope import Emission, emission_of
from tenure._turn import Activation, Done, Slices
from tenure.directives import Cancel, Cron, RunInstruction, Schedule, Send, Spawn, Stop
from tenure.errors import CallError
from tenure.policies import decide
from tenure.signals import Signal as Envelope
from tenure.signals import from_msgpack, to_msgpack
from tenure.worker.dozing import DOZE_BYTES, Dozing
from tenure_link import Activate, Due, Outgoing, Progress, Signal, Turn, TurnDone, Work

SUPPORTS: frozenset[type[Directive]] = frozenset(
    {Emit, Send, Schedule, Cron, Cancel, Error, RunInstruction, Spawn, Stop}
)
"""What agents may ask for on a cluster."""
BEGIN = 0
"""Number of turns before the first of the daemon's."""
_encode = msgspec.msgpack.Encoder().encode
_work = msgspec.msgpack.Decoder(Work).decode
_logger = logging.getLogger("tenure.worker")


class Resident:
    """See the module. One turn at a time; queries beside them."""

    __slots__ = (
        "_beside",
        "_durable",
        "_errors",
        "_now",
        "_read_ns",
        "_send",
        "_tasks",
        "_told",
        "_wall",
        "activation",
    )

    def __init__(self, cls: type[Agent[Any]], order: Activate, send: Callable[[Progress], None]) -> None:
        """Raises what `Activation` raises."""
        self._now, self._wall = order.now, order.wall
        self._read_ns = _boot_ns()
        self._send = send
        self._durable: dict[int, asyncio.Future[None]] | None = None
        """Turns that wait for their steps to be durable; None, as of the next two: never one yet."""
        self._errors = 0
        self._beside: dict[int, list[Spawn]] | None = None
        self._tasks: set[asyncio.Task[None]] | None = None
        self.activation = Activation(
            cls,
            uid=order.uid,
            agent_id=order.id,
            epoch=order.epoch,
            stored=order.state,
            initial=order.initial,
            config=order.config,
            supports=SUPPORTS,
            fold=self._fold,
        )
        self._told: tuple[Due, ...] | None = self.due

    @classmethod
    def woken(cls, of: Dozing, send: Callable[[Progress], None]) -> Resident:
        """One that dozed, as it was. Raises what `Activation` raises."""
        name = of.cls.__name__
        order = Activate(of.uid, of.epoch, of.id, name, of.record, config=of.config, now=of.now, wall=of.wall)
        made = cls(of.cls, order, send)
        made.activation.recovered, made._errors = of.recovered, of.errors
        if not of.told:
            made._told = None
        return made

    @property
    def settled(self) -> bool:
        """Whether nothing is under way, beside it neither, and the daemon knows of all plans."""
        under_way = self._durable or self._beside or self._tasks
        return not under_way and self.activation.settled and self._told is not None

    def doze(self) -> Dozing | None:
        """What is kept of it while it dozes, of one that is settled; None: it is not all in its bytes, or they are too
        many. Else it is not used any more.
        """
        one = self.activation
        if not one.is_in_its_bytes or len(one.committed) > DOZE_BYTES:
            return None
        kept = Dozing(
            one.cls,
            one.uid,
            one.id,
            one.epoch,
            one.recovered,
            self._errors,
            self._now,
            self._wall,
            one.committed,
            _codec.pack(dict(one.config)) if one.config else b"",
        )
        one.dissolve()
        return kept

    @property
    def due(self) -> tuple[Due, ...]:
        """What the draft plans."""
        plans: Mapping[str, Any] = self.activation.slices.get(timers.SLICE, {})
        return tuple(_due(name, plan) for name, plan in plans.items())

    async def begin(self) -> TurnDone:
        """What comes before the first turn: missed runs that are to be skipped, then the hook of the class."""
        activation = self.activation
        skipped = await activation.amend(BEGIN, (timers.Resumed(),)) if activation.slices.get(timers.SLICE) else None
        if not activation.has_hook("on_start"):
            state = skipped.state if skipped is not None and skipped.fault is None else None
            return TurnDone(BEGIN, reply=b"", state=state, due=self.due)
        done = await activation.hook(BEGIN, "on_start")
        if done.fault is not None:
            return TurnDone(BEGIN, fault=done.fault)
        done = await self._last_hook(done)
        state = done.state or (skipped.state if skipped is not None else None)
        sends, stop = self._sends(done, NOTHING), _stop_of(done)
        return TurnDone(BEGIN, reply=b"", state=state, sends=sends, due=self.due, stop=stop)

    async def run(self, turn: Turn) -> TurnDone:
        """Run one turn. Whatever user code raises becomes a `Fault`; only CancelledError passes."""
        self._now, self._wall = max(turn.now, self._now), turn.wall or self._wall
        self._read_ns = _boot_ns()
        match turn.kind:
            case "work":
                return await self._work(turn)
            case "timer":
                return await self._timer(turn)
            case "replace":
                return self._told_of(turn, await self._replaced(turn))
            case _:
                done = await self.activation.perform(turn, journal=self._journal(turn))
                if self.activation.is_query(turn.method):
                    return _plain(done)
                return await self._finish(turn, done, NOTHING)

    def commit(self, turn: int) -> None:
        """As of the activation; what runs beside the agent begins now."""
        self.activation.commit(turn)
        if self._beside is None:
            return
        tasks = self._tasks = self._tasks or set()
        for number in [number for number in self._beside if number <= turn]:
            for one in self._beside.pop(number):
                task = asyncio.get_running_loop().create_task(_beside(self.activation.id, one.name, one.function))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    def drop(self, turn: int) -> None:
        """As of the activation."""
        self.activation.drop(turn)
        self._told = None  # the next turn tells of all plans, or that there are none
        if self._beside is not None:
            self._beside = {number: beside for number, beside in self._beside.items() if number < turn}

    # --- kinds of turns ---------------------------------------------------------------------------------------------

    async def _work(self, turn: Turn) -> TurnDone:
        try:
            wanted = _work(turn.arguments)
            signal = from_msgpack(wanted.signal) if wanted.signal else None
            carried = _codec.unpack_map(wanted.carried) if wanted.carried else NOTHING
        except (msgspec.DecodeError, ValueError) as error:
            return TurnDone(turn.turn, fault=fault_of(error, "a signal"))
        if signal is not None:
            done = await self.activation.handle(
                turn.turn, signal, deadline_ns=turn.deadline_ns, caller=turn.caller, journal=self._journal(turn)
            )
            return await self._finish(turn, done, work.carried_of(signal))
        named = msgspec.structs.replace(turn, kind="by_name", method=wanted.name, arguments=wanted.arguments)
        chain: tuple[str, ...] = ()
        if wanted.carried:
            chain = chain_of(wanted.carried)
            carried = {name: value for name, value in carried.items() if name != WAITING}
        done = await self.activation.perform(named, journal=self._journal(turn, chain))
        if not wanted.then or done.waits is not None:
            return await self._finish(turn, done, carried)
        problem = "" if done.fault is None else f"{done.fault.code}: {done.fault.message}"
        reply = _codec.unpack(cast(bytes, done.reply)) if done.reply is not None else None
        told = Asked(wanted.then, _codec.pack({"reply": reply, "error": problem}))
        finished = await self._finish(turn, done, carried)
        then = Outgoing(to=self.activation.id, work=_encode(Work(name=told.name, arguments=told.arguments)))
        # Who asked for it is told how it ended: that is the end of it, whether it went well or not.
        return msgspec.structs.replace(
            finished, fault=None, reply=finished.reply or _codec.pack(None), sends=(*finished.sends, then)
        )

    async def _timer(self, turn: Turn) -> TurnDone:
        """A planned run: the plan is taken off, or moved on, by the commit of the turn [timer_in_commit,
        cron_in_commit]. One that fails says what is to be committed if it is not tried again.
        """
        plans: Mapping[str, Any] = self.activation.slices.get(timers.SLICE, {})
        plan = plans.get(turn.method)
        if plan is None or plan["at"] != turn.at:  # cancelled, or moved, meanwhile
            return TurnDone(turn.turn, reply=_codec.pack(None), due=self.due)
        fired = (timers.Fired(turn.method, turn.at),)
        if turn.arguments:  # it is not to be run any more
            done = await self.activation.amend(turn.turn, fired)
            return self._told_of(turn, done)
        wanted, journal = work.read(plan), self._journal(turn)
        if isinstance(wanted, Envelope):
            done = await self.activation.handle(
                turn.turn, wanted, deadline_ns=turn.deadline_ns, caller=turn.caller, extra=fired, journal=journal
            )
        else:
            named = msgspec.structs.replace(turn, kind="by_name", method=wanted.name, arguments=wanted.arguments)
            done = await self.activation.perform(named, fired, journal)
        return await self._finish(turn, done, work.carried_of(wanted), fired)

    def _journal(self, turn: Turn, chain: tuple[str, ...] = ()) -> LinkJournal:
        return LinkJournal(turn, self._progress, self._cluster_now, chain)

    async def _progress(self, frame: Progress) -> None:
        """Say it, and wait until it is durable."""
        waiting = self._durable = self._durable or {}
        durable = waiting[frame.turn] = asyncio.get_running_loop().create_future()
        try:
            self._send(frame)
            await durable
        finally:
            waiting.pop(frame.turn, None)

    def progressed(self, turn: int) -> None:
        """What the turn has said last is durable."""
        durable = None if self._durable is None else self._durable.get(turn)
        if durable is not None and not durable.done():
            durable.set_result(None)

    def _cluster_now(self) -> float:
        return self._now + (_boot_ns() - self._read_ns) / 1e9

    async def _replaced(self, turn: Turn) -> Done:
        try:
            return await self.activation.replace(turn.turn, turn.arguments)
        except CallError as error:
            return Done(turn.turn, fault=fault_of(error, "state"))

    # --- what the daemon is told ------------------------------------------------------------------------------------

    async def _finish(
        self, turn: Turn, done: Done, carried: Mapping[str, object], extra: tuple[Directive, ...] = ()
    ) -> TurnDone:
        """With what the error policy of the class makes of a failure; `extra`: to be folded in, if it failed, too."""
        if done.fault is None and done.waits is None and not done.directives and self._told == self.due:
            return TurnDone(turn.turn, reply=cast(bytes, done.reply), state=done.state)  # as nearly all are
        if done.waits is not None:
            return TurnDone(turn.turn, waits=done.waits)
        followed = [*self._followed(done)]
        if done.fault is not None and extra:
            followed = [*extra, *followed]
        if followed:
            amended = await self.activation.amend(turn.turn, tuple(followed))
            done = _with(done, amended.state, followed)
        return self._told_of(turn, await self._last_hook(done), carried)

    async def _last_hook(self, done: Done) -> Done:
        """With what `on_stop` does, in the same turn, if that ends the agent. One that fails changes nothing."""
        reason = _stop_of(done)
        if reason is None or not self.activation.has_hook("on_stop"):
            return done
        hooked = await self.activation.hook(done.turn, "on_stop", reason)
        if hooked.fault is not None:
            _logger.error("%s: on_stop: %s: %s", self.activation.id, hooked.fault.code, hooked.fault.message)
            return done
        return _with(done, hooked.state, hooked.directives)

    def _followed(self, done: Done) -> list[Directive]:
        """Raises nothing: a policy that fails is logged."""
        found = [one for one in done.directives if isinstance(one, Error)]
        if done.fault is not None:
            found.append(Error(done.fault.code, done.fault.message))
        followed: list[Directive] = []
        for error in found:
            self._errors += 1
            try:
                decided = decide(self.activation.cls.__tenure_policy__, error, self._errors)
            except Exception:
                _logger.exception("the error policy of %s failed", self.activation.cls.__name__)
                continue
            followed += [emission_of(one) if isinstance(one, Emit) else one for one in decided]
        return [one for one in followed if isinstance(one, (Emission, *SUPPORTS)) and not isinstance(one, Error)]

    def _told_of(self, turn: Turn, done: Done, carried: Mapping[str, object] = NOTHING) -> TurnDone:
        if beside := [one for one in done.directives if isinstance(one, Spawn)]:
            self._beside = {**(self._beside or {}), turn.turn: beside}
        due = self.due
        changed = due != self._told
        self._told = due
        return TurnDone(
            turn.turn,
            reply=cast(bytes | None, done.reply),
            state=done.state,
            fault=done.fault,
            signals=self._signals(done),
            sends=self._sends(done, carried),
            due=due if changed else None,
            stop=_stop_of(done),
        )

    def _signals(self, done: Done) -> tuple[Signal, ...]:
        return tuple(
            Signal(id=self._signal_id(done.turn, n), type=one.type, data=one.data)
            for n, one in enumerate(done.directives)
            if isinstance(one, Emission)
        )

    def _signal_id(self, turn: int, n: int) -> str:
        return f"{self.activation.uid}.{self.activation.epoch}.{turn}.{n}"

    def _sends(self, done: Done, carried: Mapping[str, object]) -> tuple[Outgoing, ...]:
        return tuple(
            sent
            for n, one in enumerate(done.directives)
            if (sent := self._outgoing(one, self._signal_id(done.turn, n), carried)) is not None
        )

    def _outgoing(self, directive: Directive, signal_id: str, carried: Mapping[str, object]) -> Outgoing | None:
        namespace = self.activation.id.partition("/")[0]
        match directive:
            case Emission(type_, data, to, subject, priority):
                envelope = Envelope(
                    id=signal_id, source=self.activation.id, type=type_, data=_codec.unpack(data), subject=subject
                )
                body = _encode(Work(signal=to_msgpack(onto(envelope, carried))))
                receiver = targeted(to, namespace) if to else ""
                return Outgoing(receiver, body, type_, priority, signal_id)
            case Send(to, what, priority):
                wanted = work.carrying(work.work_of(what), carried)
                type_ = "" if isinstance(wanted, Asked) else wanted.type
                return Outgoing(targeted(to, namespace), _encode(_work_of(wanted)), type_, priority, signal_id)
            case RunInstruction(instruction, then):
                wanted = work.carrying(work.work_of(instruction), carried)
                body = _encode(msgspec.structs.replace(_work_of(wanted), then=then))
                return Outgoing(self.activation.id, body, id=signal_id)
            case _:
                return None

    def _fold(self, slices: Slices, directives: Sequence[Directive]) -> Slices:
        for directive in directives:
            timers.fold(slices, directive, self._now, self._wall)
        return slices


def _due(name: str, plan: Mapping[str, Any]) -> Due:
    every = " ".join(plan["every"]) if "every" in plan else ""
    what = plan["name"] if "name" in plan else work.label_of(work.read(plan))
    return Due(name, plan["at"], bool(every), what, every)


def _stop_of(done: Done) -> str | None:
    """Why the turn ends its agent; None: it does not."""
    return next((one.reason for one in done.directives if isinstance(one, Stop)), None)


def _with(done: Done, state: bytes | None, more: Sequence[Directive]) -> Done:
    """A turn, and what was done after it under its number."""
    return Done(done.turn, done.reply, state or done.state, (*done.directives, *more), fault=done.fault)


def _plain(done: Done) -> TurnDone:
    return TurnDone(done.turn, reply=cast(bytes | None, done.reply), fault=done.fault)


def _work_of(wanted: Asked | Envelope) -> Work:
    if isinstance(wanted, Envelope):
        return Work(signal=to_msgpack(wanted))
    carried = _codec.pack(dict(wanted.carried)) if wanted.carried else b""
    return Work(name=wanted.name, arguments=wanted.arguments, carried=carried)


async def _beside(agent_id: str, name: str, function: Callable[[], Awaitable[object]]) -> None:
    """An effect outside; nobody waits for it, and it is not repeated."""
    try:
        await function()
    except Exception:
        _logger.exception("%s: %s failed", agent_id, name or "a function beside it")
