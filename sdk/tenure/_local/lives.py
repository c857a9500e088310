"""How agents begin and end in the local runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenure import errors
from tenure._agent import Agent
from tenure._local import records, timers
from tenure._local.held import Held, error_of
from tenure._turn import Activation, Hook
from tenure.signals import Route

if TYPE_CHECKING:
    from tenure._local.engine import Engine


class Lives:
    """Activations: the first one, later ones from a storage, and their ends."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._made = 0

    async def activate(self, cls: type[Agent[Any]], full: str, initial: bytes, config: bytes) -> Held:
        """Begin with what is stored, or anew. Raises what `LocalRuntime.create` raises."""
        engine = self._engine
        stored = await records.load(engine.storage, full) if engine.storage is not None else None
        if full in engine.agents:  # meanwhile
            return engine.agents[full]
        if stored is not None and stored[0] != cls.__name__:
            raise other_class(full, stored[0], cls)
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
            fold=engine.fold,
        )
        held = Held(activation, limit=engine.queue_limit)
        held.revision = stored[2] if stored else 0
        engine.agents[full] = held
        for pattern in cls.__tenure_subscribes__:
            engine.subscribers.add(Route(pattern, full))
        if engine.storage is not None or activation.slices or activation.has_hook("on_start"):
            try:
                async with held.turn():  # whoever calls meanwhile waits
                    await self._begin(held)
            except BaseException:
                self.forget(held, "it could not begin")
                raise
        return held

    async def _begin(self, held: Held) -> None:
        engine, activation = self._engine, held.activation
        if activation.first is not None and engine.storage is not None:
            await records.save(engine.storage, held, activation.first)
        if activation.slices.get(timers.SLICE):
            await engine.settle(held, await activation.amend(held.next_turn(), (timers.Resumed(),)))
            engine.timers.sync(held)
        if activation.has_hook("on_start"):
            await self._hook(held, "on_start")

    async def _hook(self, held: Held, hook: Hook, reason: str = "") -> None:
        done = await held.activation.hook(held.next_turn(), hook, reason)
        await self._engine.settle(held, done)
        if done.fault is not None:
            raise error_of(done.fault, held.id)

    async def end(self, held: Held, reason: str, *, failed: bool) -> None:
        """End an agent, after the turns before: its last hook, then nothing more of it. Idempotent."""
        if held.ended is not None:
            return
        try:
            async with held.turn():
                if held.activation.has_hook("on_stop"):
                    await self._hook(held, "on_stop", reason)
                self.forget(held, reason, failed=failed)
        except errors.NotFound:
            return  # somebody else ended it meanwhile
        except errors.CallError as error:
            self._engine.report(held, "on_stop", error)
            self.forget(held, reason, failed=failed)

    def forget(self, held: Held, reason: str, *, failed: bool = False) -> None:  # noqa: ARG002 - families will ask
        """Nothing more of this agent here; what its storage holds stays there. Idempotent."""
        if held.ended is not None:
            return
        engine = self._engine
        held.ended = reason
        engine.agents.pop(held.id, None)
        engine.timers.forget(held.id)
        engine.sensors.stop_all(held.id)
        for pattern in held.activation.cls.__tenure_subscribes__:
            engine.subscribers.remove(pattern, held.id)
        held.note_change()


def other_class(full: str, have: str, cls: type[Agent[Any]]) -> errors.Conflict:
    """An agent that is there is of another class."""
    return errors.Conflict(f"{full} exists and is a {have}, not a {cls.__name__}", agent=full)
