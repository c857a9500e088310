"""How agents begin and end in the local runtime."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from tenure import errors
from tenure._agent import Agent
from tenure._local import families, records, timers
from tenure._local.held import Held, How, Seed, Slept, error_of
from tenure._turn import Activation, Hook
from tenure.directives import Directive
from tenure.signals import Route

if TYPE_CHECKING:
    from tenure._local.engine import Engine

ENDS_KEPT = 10_000
"""Agents whose end can still be asked for."""


class Lives:
    """Activations: the first one, later ones from a storage, and their ends."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._made = 0
        self.arriving: dict[str, asyncio.Task[Held]] = {}
        """Agents that are being activated on behalf of others."""
        self.ends: OrderedDict[str, str] = OrderedDict()
        """Why agents ended, of the last ones."""

    def arrive(self, cls: type[Agent[Any]], full: str, seed: Seed, how: How) -> asyncio.Task[Held]:
        """Begin to activate an agent; who wants it from now on waits for it."""
        task = self._engine.start(self._arrive(cls, full, seed, how), f"{full} begins")
        self.arriving[full] = task
        task.add_done_callback(lambda done: self._arrived(full, done))
        return task

    async def _arrive(self, cls: type[Agent[Any]], full: str, seed: Seed, how: How) -> Held:
        for before in how.after:
            await self._engine.arrival(before)
        return await self.activate(cls, full, seed.initial, seed.config, how)

    def _arrived(self, full: str, task: asyncio.Task[Held]) -> None:
        if self.arriving.get(full) is task:
            del self.arriving[full]
        if not task.cancelled():
            task.exception()  # whoever waits for it gets it

    async def activate(
        self, cls: type[Agent[Any]], full: str, initial: bytes, config: bytes, how: How | None = None
    ) -> Held:
        """Begin with what is stored, or anew. Raises what `LocalRuntime.create` raises."""
        engine = self._engine
        how = how or How(engine.storage_of(full))
        stored = await records.load(how.storage, full) if how.storage is not None else None
        if full in engine.agents:  # meanwhile
            return engine.agents[full]
        if stored is not None and stored[0] != cls.__name__:
            raise other_class(full, stored[0], cls)
        if stored is None and how.woken:
            raise errors.Unavailable(f"{full} was asleep, and its storage does not hold it any more", agent=full)
        self._made += 1
        activation = Activation(
            cls,
            uid=str(self._made),
            agent_id=full,
            epoch=1,
            stored=stored[1] if stored else None,
            initial=initial,
            config=config,
            supports=engine.supports,
            fold=partial(engine.fold, full),
        )
        held = Held(activation, limit=engine.queue_limit, storage=how.storage, seed=Seed(initial, config))
        held.revision = stored[2] if stored else 0
        engine.agents[full] = held
        self.ends.pop(full, None)
        if not how.woken:
            self.subscribe(cls, full)
        if how.storage is not None or activation.slices or how.extra or activation.has_hook("on_start"):
            try:
                async with held.turn():  # whoever calls meanwhile waits
                    await self._begin(held, how)
            except BaseException:
                self.forget(held, "it could not begin", asleep=how.woken)
                raise
        engine.keepers.begun(held)
        return held

    async def _begin(self, held: Held, how: How) -> None:
        engine, activation = self._engine, held.activation
        planned = bool(activation.slices.get(timers.SLICE))
        extra = (*how.extra, timers.Resumed()) if planned and how.missed else how.extra
        if extra:
            await self.amend_now(held, extra)
        if activation.first is not None and held.storage is not None and held.revision == 0:
            await records.save(held.storage, held, activation.first)
        if planned:
            engine.timers.sync(held)
        engine.owing.sync(held, again=True)
        if not (how.woken or how.extra):
            engine.kinship.rebind(held)
        if activation.has_hook("on_start"):
            await self._hook(held, "on_start")

    async def amend_now(self, held: Held, extra: tuple[Directive, ...]) -> None:
        """As `amend`, in the turn that one has."""
        done = await held.activation.amend(held.next_turn(), extra)
        if done.fault is not None:
            held.activation.drop(done.turn)
            raise error_of(done.fault, held.id)
        await self._engine.settle(held, done)

    async def amend(self, held: Held, extra: tuple[Directive, ...]) -> None:
        """Commit something of the runtime's own, in a turn of its own. Raises CallError."""
        try:
            async with held.turn(self._engine.parked, always=True):
                await self.amend_now(held, extra)
        except Slept:
            await self.amend(await self._engine.reach(held.id), extra)

    async def _hook(self, held: Held, hook: Hook, reason: str = "") -> None:
        done = await held.activation.hook(held.next_turn(), hook, reason)
        await self._engine.settle(held, done)
        if done.fault is not None:
            raise error_of(done.fault, held.id)

    async def end(self, held: Held, reason: str, *, failed: bool) -> None:
        """End an agent, after the turns before: its last hook, then nothing more of it. Idempotent."""
        if held.ended is not None and not held.asleep:
            return
        try:
            async with held.turn(self._engine.parked, always=True):
                await self._end(held, reason, failed=failed)
        except Slept:
            await self.end(await self._engine.reach(held.id), reason, failed=failed)
        except errors.NotFound:
            return  # somebody else ended it meanwhile

    async def _end(self, held: Held, reason: str, *, failed: bool) -> None:
        slices: Mapping[str, Any] = held.activation.slices
        try:
            if held.activation.has_hook("on_stop"):
                await self._hook(held, "on_stop", reason)
        except errors.CallError as error:
            self._engine.report(held, "on_stop", error)
        try:
            slices, extra = families.last_slices(held.activation.slices)
            if extra and held.storage is not None:
                await self.amend_now(held, extra)
        except errors.CallError as error:
            self._engine.report(held, "its end", error)
        self.forget(held, reason, failed=failed)
        self._engine.kinship.ended(held, slices, reason, failed=failed)

    def forget(self, held: Held, reason: str, *, failed: bool = False, asleep: bool = False) -> None:  # noqa: ARG002 - for those that stand in for it
        """Nothing more of this agent here; what its storage holds stays there. Idempotent."""
        if held.ended is not None:
            return
        engine = self._engine
        held.ended, held.asleep = reason, asleep
        engine.agents.pop(held.id, None)
        engine.timers.forget(held.id)
        engine.sensors.stop_all(held.id)
        engine.forgotten(held)
        if not asleep:
            self.unsubscribe(held.activation.cls, held.id)
            self.ends[held.id] = reason
            self.ends.move_to_end(held.id)
            if len(self.ends) > ENDS_KEPT:
                self.ends.popitem(last=False)
        engine.keepers.ended(held)
        held.note_change()

    def subscribe(self, cls: type[Agent[Any]], agent_id: str) -> None:
        """It gets the signals that its class subscribes to."""
        for pattern in cls.__tenure_subscribes__:
            self._engine.broadcast.subscribers.add(Route(pattern, agent_id))

    def unsubscribe(self, cls: type[Agent[Any]], agent_id: str) -> None:
        """It gets no signals by its subscriptions any more."""
        for pattern in cls.__tenure_subscribes__:
            self._engine.broadcast.subscribers.remove(pattern, agent_id)

    def known(self, agent_id: str) -> families.Known:
        """What there is to know of an agent."""
        held = self._engine.agents.get(agent_id)
        if held is not None:
            bond = families.parent_of(held.activation.slices)
            return families.Known("here", bond, held.activation.cls.__name__)
        if agent_id in self.arriving:
            return families.Known("starting")
        one = self._engine.sleepers.asleep.get(agent_id)
        if one is not None:
            return families.Known("asleep", one.parent, one.cls.__name__)
        if agent_id in self.ends:
            return families.Known("ended", reason=self.ends[agent_id])
        return families.Known("unknown")


def other_class(full: str, have: str, cls: type[Agent[Any]]) -> errors.Conflict:
    """An agent that is there is of another class."""
    return errors.Conflict(f"{full} exists and is a {have}, not a {cls.__name__}", agent=full)
