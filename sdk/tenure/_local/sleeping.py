"""Agents that are in their storage and not in memory, and come back when somebody wants them or a plan is due."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenure import _codec
from tenure._agent import Agent
from tenure._clock import Handle
from tenure._context import Parent
from tenure._local import families, owed, records, timers
from tenure._local.held import Held, How, Seed, Slept
from tenure.errors import ConfigurationError
from tenure.storage import Storage

if TYPE_CHECKING:
    from tenure._local.engine import Engine

RETRY_S = 60.0
"""When a plan is due and its agent cannot be woken, it is tried again after so long."""
_logger = logging.getLogger("tenure.local")


@dataclass(slots=True)
class Sleeper:
    """What it takes to wake an agent."""

    cls: type[Agent[Any]]
    seed: Seed
    storage: Storage
    parent: Parent | None = None
    due: float | None = None
    """When its next plan is due, in seconds since the epoch; None: it has none."""
    missed: bool = False
    """Whether it slept while nobody waited for its plans: those that say so are skipped."""
    handle: Handle | None = None


class Sleep:
    """The agents of one runtime that are asleep."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.asleep: dict[str, Sleeper] = {}

    async def put(self, held: Held, *, idle_only: bool = False) -> bool:
        """Let an agent sleep, after the turns before; `idle_only`: unless others want it meanwhile. False: it did not.

        Turns that wait behind wake it again. It leaves the memory only if the storage holds what it is. Raises
        StorageError, ConfigurationError, NotFound.
        """
        storage = held.storage
        if storage is None:
            raise ConfigurationError(f"{held.id} has no storage: there is nowhere to sleep")
        try:
            async with held.turn(self._engine.parked, always=True):
                await records.check(storage, held)
                if idle_only and (held.waiting or held.watchers):
                    return False
                slices = held.activation.slices
                self._engine.lives.forget(held, "it is asleep", asleep=True)
                self.register(held.id, sleeper(held.activation.cls, held.seed, storage, slices))
        except Slept:
            pass  # already
        return True

    async def stop(self, held: Held, reason: str) -> None:
        """End an agent whose storage, if it has one, holds what it is. Raises StorageError: it goes on."""
        if held.storage is not None:
            try:
                async with held.turn(self._engine.parked, always=True):
                    await records.check(held.storage, held)
            except Slept:
                held = await self._engine.reach(held.id)
        await self._engine.lives.end(held, reason, failed=False)

    async def recall(self, cls: type[Agent[Any]], agent_id: str, storage: Storage) -> bool:
        """One that is stored, and not here, is asleep. False: nothing is stored. Raises StorageError, StateUnreadable.

        It is the caller's to know that it is neither here nor on its way; that it is so still is looked at again.
        """
        stored = await records.load(storage, agent_id)
        if stored is None:
            return False
        if agent_id not in self._engine.agents and not self.comes(agent_id):
            slices = {name: value for name, value in _codec.unpack_map(stored[1]).items() if name.startswith("@")}
            self._engine.lives.subscribe(cls, agent_id)
            self.register(agent_id, sleeper(cls, Seed(), storage, slices, missed=True))
        return True

    def comes(self, agent_id: str) -> bool:
        """Whether it is asleep, or on its way."""
        return agent_id in self.asleep or agent_id in self._engine.lives.arriving

    def register(self, agent_id: str, one: Sleeper) -> None:
        """From now on it is asleep, and woken for its next plan."""
        self.asleep[agent_id] = one
        self._wait(agent_id, one, one.due)

    def wake(self, agent_id: str) -> asyncio.Task[Held] | None:
        """Begin to wake an agent. None: it is not asleep."""
        one = self.asleep.pop(agent_id, None)
        if one is None:
            return None
        if one.handle is not None:
            one.handle.cancel()
        how = How(one.storage, woken=True, missed=one.missed)
        arrival = self._engine.lives.arrive(one.cls, agent_id, one.seed, how)
        arrival.add_done_callback(lambda task: self._woken(agent_id, one, task))
        return arrival

    def drop(self, agent_id: str) -> bool:
        """Wake it no more by itself. False: it is not asleep."""
        one = self.asleep.pop(agent_id, None)
        if one is None:
            return False
        if one.handle is not None:
            one.handle.cancel()
        self._engine.lives.unsubscribe(one.cls, agent_id)
        return True

    def close(self) -> None:
        """Wake nobody any more."""
        for agent_id in list(self.asleep):
            self.drop(agent_id)

    def _wait(self, agent_id: str, one: Sleeper, at: float | None) -> None:
        one.handle = None if at is None else self._engine.clock.call_at(at, lambda: self._due(agent_id, one))

    def _due(self, agent_id: str, one: Sleeper) -> None:
        if self.asleep.get(agent_id) is one:
            self.wake(agent_id)

    def _woken(self, agent_id: str, one: Sleeper, task: asyncio.Task[Held]) -> None:
        """One that could not be woken sleeps on: nothing of it is lost."""
        error = None if task.cancelled() else task.exception()
        if error is None or not self._engine.open or self.comes(agent_id):
            return
        _logger.error("%s could not be woken: %s", agent_id, error)
        self.asleep[agent_id] = one
        self._wait(agent_id, one, None if one.due is None else self._engine.clock.now() + RETRY_S)


def sleeper(
    cls: type[Agent[Any]], seed: Seed, storage: Storage, slices: Mapping[str, Any], *, missed: bool = False
) -> Sleeper:
    """One whose record has these slices."""
    plans: Mapping[str, Any] = slices.get(timers.SLICE, {})
    times = [plan["at"] for plan in plans.values()]
    if (at := owed.due(slices)) is not None:
        times.append(at)
    due = min(times, default=None)
    return Sleeper(cls, seed, storage, families.parent_of(slices), due, missed)
