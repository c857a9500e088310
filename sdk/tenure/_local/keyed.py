"""Agents by key: begun when they are wanted, asleep in their storage when they are not."""

from __future__ import annotations

import asyncio
import base64
import re
from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tenure._agent import Agent, Cell, Role, make, pack_arguments
from tenure._clock import Handle
from tenure._local.held import Held, How, Seed
from tenure._local.lives import other_class
from tenure._state import State
from tenure.errors import Conflict, DefinitionError, NotFound, TenureError, UsageError
from tenure.storage import Storage

if TYPE_CHECKING:
    from tenure._local.engine import Engine

A = TypeVar("A", bound=Agent[Any])
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PLAIN = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_WRITTEN = "x--"
"""Before a key that is no part of a name: its UTF-8 in base32."""
KEY_LIMIT = 180
"""Bytes of a key that is not a name."""


@dataclass(frozen=True, slots=True)
class Stats:
    """What a manager did since it was made, and what it has now."""

    here: int
    asleep: int
    attached: int
    """Keys that somebody holds."""
    started: int
    thawed: int
    hibernated: int
    failed: int
    """Times that an agent should have slept and could not."""


class _Entry:
    """An agent that is here."""

    __slots__ = ("handle", "held", "used")

    def __init__(self, held: Held, used: float) -> None:
        self.held = held
        self.used = used
        self.handle: Handle | None = None


class InstanceManager(Generic[A]):
    """Agents of one class by key; `rt.keyed(Cart, idle_timeout=300)` makes one."""

    def __init__(
        self,
        engine: Engine,
        cls: type[A],
        *,
        name: str,
        namespace: str,
        idle_timeout: float | None,
        storage: Storage | None,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} names no manager: lower case letters, digits and -, at most 63")
        if idle_timeout is not None and idle_timeout <= 0:
            raise DefinitionError(f"idle_timeout={idle_timeout}: seconds, more than 0; None: never")
        self.cls = cls
        self.name = name
        self.prefix = engine.full_id(f"{namespace}/{name}")
        """`namespace/name`: ids of its agents are this, a dot, and the key."""
        self.storage = storage
        self.idle_timeout = idle_timeout
        self._engine = engine
        self._entries: dict[str, _Entry] = {}
        self._attached: dict[str, Counter[asyncio.Task[Any]]] = {}
        self._counts: Counter[str] = Counter()

    def id_of(self, key: str) -> str:
        """The id of a key's agent. Keys that are no part of a name are written in base32. Raises UsageError."""
        if not key:
            raise UsageError("a key is not empty")
        part = key
        if not _PLAIN.fullmatch(key) or key.startswith(_WRITTEN):
            data = key.encode()
            if len(data) > KEY_LIMIT // 2:
                raise UsageError(f"a key is at most {KEY_LIMIT // 2} bytes, and this one has {len(data)}")
            part = _WRITTEN + base64.b32encode(data).decode().rstrip("=").lower()
        elif len(key) > KEY_LIMIT:
            raise UsageError(f"a key is at most {KEY_LIMIT} characters, and this one has {len(key)}")
        return f"{self.prefix}.{part}"

    async def get(
        self,
        key: str,
        *,
        state: State | Mapping[str, object] | None = None,
        config: Mapping[str, object] | None = None,
    ) -> A:
        """The agent of a key: it is woken, or begun, if it is not here; several that ask at once get one.

        `state` and `config`: of a new one. Raises what `LocalRuntime.create` raises.
        """
        full = self.id_of(key)
        initial = state.model_dump(mode="python", round_trip=True) if isinstance(state, State) else state
        seed = Seed(pack_arguments("state", initial), pack_arguments("config", config))
        await asyncio.shield(self._engine.start(self._present(full, seed), f"{full} is wanted"))
        return self._reference(full)

    async def _present(self, full: str, seed: Seed) -> None:
        engine = self._engine
        held = engine.agents.get(full)
        if held is None:
            arrival = engine.lives.arriving.get(full) or engine.sleepers.wake(full)
            if arrival is None:
                engine.alive()
                arrival = engine.lives.arrive(self.cls, full, seed, How(self.storage))
            held = await engine.arrival(arrival)
        if held.activation.cls is not self.cls:
            raise other_class(full, held.activation.cls.__name__, self.cls)
        self.begun(held, counted=False)
        self._touch(held.id)

    def lookup(self, key: str) -> A | None:
        """The agent of a key, if it is here or asleep; None: nobody asked for it yet, or it was stopped."""
        full = self.id_of(key)
        return self._reference(full) if full in self._engine.agents or self._engine.sleepers.comes(full) else None

    async def stop(self, key: str, reason: str = "stopped") -> bool:
        """End the agent of a key. What it is must be in its storage, if it has one; `get` goes on from there.

        False: it is not here. Raises StorageError: it is not stored as it is, and goes on.
        """
        engine, full = self._engine, self.id_of(key)
        held = engine.agents.get(full)
        if held is None:
            return engine.sleepers.drop(full)
        await asyncio.shield(engine.start(engine.sleepers.stop(held, reason), f"{full} stop"))
        return True

    async def hibernate(self, key: str) -> bool:
        """Let the agent of a key sleep, attached or not. False: it is not here. Raises as `LocalRuntime.hibernate`."""
        held = self._engine.agents.get(self.id_of(key))
        if held is None:
            return False
        return await asyncio.shield(self._engine.start(self._engine.sleepers.put(held), f"{held.id} sleeps"))

    def attach(
        self,
        key: str,
        *,
        state: State | Mapping[str, object] | None = None,
        config: Mapping[str, object] | None = None,
    ) -> Attaching[A]:
        """As `get`, and it does not sleep until the task that runs now detaches, or ends.

        `async with manager.attach("key") as agent:`, or `await manager.attach("key")` and `detach` later.
        """
        return Attaching(self, key, state, config)

    def hold(self, key: str) -> None:
        """The running task attaches to an agent; `attach` is `get` and this."""
        full, task = self.id_of(key), asyncio.current_task()
        assert task is not None  # noqa: S101 - of a coroutine
        holders = self._attached.setdefault(full, Counter())
        if task not in holders:
            task.add_done_callback(lambda done: self._release(full, done))
        holders[task] += 1

    def detach(self, key: str) -> bool:
        """Undo one `attach` of the running task. False: there is none."""
        full, task = self.id_of(key), asyncio.current_task()
        holders = self._attached.get(full, Counter())
        if task is None or task not in holders:
            return False
        holders[task] -= 1
        if not holders[task]:
            self._release(full, task)
        return True

    def _release(self, full: str, task: asyncio.Task[Any]) -> None:
        holders = self._attached.get(full)
        if holders is None or holders.pop(task, None) is None:
            return
        if not holders:
            del self._attached[full]
        self._touch(full)

    def touch(self, key: str) -> bool:
        """The idle time of an agent begins anew, as with each of its turns. False: it is not here."""
        return self._touch(self.id_of(key))

    def _touch(self, full: str) -> bool:
        entry = self._entries.get(full)
        if entry is not None:
            entry.used = self._engine.clock.now()
        return entry is not None

    @property
    def stats(self) -> Stats:
        """What there is, and what happened."""
        mine = [one for one in self._engine.sleepers.asleep if self._owns(one)]
        counts = {name: self._counts[name] for name in ("started", "thawed", "hibernated", "failed")}
        return Stats(here=len(self._entries), asleep=len(mine), attached=len(self._attached), **counts)

    async def recover(self) -> int:
        """Wait again for the plans of all agents that are stored, after a restart; how many are asleep now.

        Without it, a stored agent goes on when it is first wanted. Raises StorageError, StateUnreadable.
        """
        if self.storage is None:
            return 0
        for full in await self.storage.keys():
            if not self._owns(full) or full in self._engine.agents or self._engine.sleepers.comes(full):
                continue
            await self._engine.sleepers.recall(self.cls, full, self.storage)
        return self.stats.asleep

    async def close(self) -> None:
        """Let all agents sleep, and give up the name. Those that cannot be stored stay, and are logged."""
        for entry in list(self._entries.values()):
            if self.storage is not None:
                await asyncio.shield(self._engine.start(self._sleep(entry, idle_only=False), f"{entry.held.id} sleeps"))
            self._disarm(entry)
        self._engine.keepers.remove(self)

    def _owns(self, full: str) -> bool:
        return full.partition(".")[0] == self.prefix

    def _reference(self, full: str) -> A:
        return make(self.cls, Cell(Role.REFERENCE, full, runtime=self._engine.runtime))

    # --- what the runtime tells ---

    def begun(self, held: Held, *, counted: bool = True) -> None:
        """An agent of this manager is here."""
        if held.id in self._entries or held.ended is not None:
            return
        entry = self._entries[held.id] = _Entry(held, self._engine.clock.now())
        held.touched = lambda: self._used(entry)
        if counted:
            self._counts["thawed" if held.activation.recovered else "started"] += 1
        if self.idle_timeout is not None and held.storage is not None:
            self._arm(entry, entry.used + self.idle_timeout)

    def ended(self, held: Held) -> None:
        """An agent of this manager is not here any more."""
        entry = self._entries.get(held.id)
        if entry is not None and entry.held is held:
            del self._entries[held.id]
            self._disarm(entry)
            self._counts["hibernated"] += held.asleep

    def _used(self, entry: _Entry) -> None:
        entry.used = self._engine.clock.now()

    def _arm(self, entry: _Entry, at: float) -> None:
        entry.handle = self._engine.clock.call_at(at, lambda: self._due(entry))

    def _disarm(self, entry: _Entry) -> None:
        if entry.handle is not None:
            entry.handle.cancel()
            entry.handle = None

    def _due(self, entry: _Entry) -> None:
        """One timer an agent: it looks how long nobody wanted it, instead of being set anew with each turn."""
        held, now = entry.held, self._engine.clock.now()
        if self.idle_timeout is None or held.ended is not None:
            return
        wanted = held.id in self._attached or held.watchers or held.busy or self._engine.sensors.of(held.id)
        if wanted or entry.used + self.idle_timeout > now:
            self._arm(entry, (now if wanted else entry.used) + self.idle_timeout)
        else:
            self._engine.start(self._sleep(entry, idle_only=True), f"{held.id} sleeps")

    async def _sleep(self, entry: _Entry, *, idle_only: bool) -> None:
        held = entry.held
        try:
            slept = await self._engine.sleepers.put(held, idle_only=idle_only)
        except NotFound:
            return  # it ended meanwhile
        except TenureError as error:
            slept = False
            self._counts["failed"] += 1
            self._engine.report(held, "hibernation", error)
        if not slept and held.ended is None and self.idle_timeout is not None:
            self._arm(entry, self._engine.clock.now() + self.idle_timeout)


class Attaching(Generic[A]):
    """What `attach` returns: await it, or use it with `async with`."""

    def __init__(
        self,
        manager: InstanceManager[A],
        key: str,
        state: State | Mapping[str, object] | None,
        config: Mapping[str, object] | None,
    ) -> None:
        self._manager = manager
        self._key = key
        self._state = state
        self._config = config

    def __await__(self) -> Generator[Any, None, A]:
        return self._attach().__await__()

    async def __aenter__(self) -> A:
        return await self._attach()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._manager.detach(self._key)

    async def _attach(self) -> A:
        agent = await self._manager.get(self._key, state=self._state, config=self._config)
        self._manager.hold(self._key)
        return agent


class Keepers:
    """The managers of one runtime."""

    def __init__(self) -> None:
        self._managers: dict[str, InstanceManager[Any]] = {}

    def add(self, manager: InstanceManager[Any]) -> None:
        """Raises Conflict for a name that is in use."""
        if manager.prefix in self._managers:
            raise Conflict(f"there is a manager {manager.prefix} already; give this one another name=")
        self._managers[manager.prefix] = manager

    def remove(self, manager: InstanceManager[Any]) -> None:
        """Its name is free again."""
        if self._managers.get(manager.prefix) is manager:
            del self._managers[manager.prefix]

    def of(self, agent_id: str) -> InstanceManager[Any] | None:
        """The manager of an agent; None: it has none."""
        return self._managers.get(agent_id.partition(".")[0]) if self._managers else None

    def begun(self, held: Held) -> None:
        """An agent is here."""
        manager = self.of(held.id)
        if manager is not None:
            manager.begun(held)

    def ended(self, held: Held) -> None:
        """An agent is not here any more."""
        manager = self.of(held.id)
        if manager is not None:
            manager.ended(held)
