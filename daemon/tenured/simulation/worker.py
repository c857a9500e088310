"""The worker container of a simulated host: PID 1 and one worker process, behind the daemon's worker link.

What runs in it is a list of what was done, so that effects can be counted; programs.py puts users' classes there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

import msgspec

import tenure_link
from tenured.host.link import Connection
from tenured.simulation.machines import Machine, Setting
from tenured.simulation.net import MS

LINK_NS = MS // 10
DIE_NS = 400 * MS
"""A worker that lost its daemon ends within so long (API.md: 1 s)."""
START_NS = 100 * MS

CLASSES = (
    tenure_link.AgentClass(
        name="Counter", methods=(tenure_link.Method(name="add"), tenure_link.Method(name="get", query=True))
    ),
)
EMPTY = msgspec.msgpack.encode([])
_HELLO: dict[str, Any] = {
    "link_version": tenure_link.LINK_VERSION,
    "sdk_version": "0",
    "python_version": "3",
}


class Observer(Protocol):
    """Who is told of what user code and its commits do."""

    def activated(self, machine: str, uid: str, epoch: int, state: bytes | None) -> None:
        """A state became visible to user code."""

    def committed(self, machine: str, uid: str, epoch: int, state: bytes) -> None:
        """A turn became durable, as its daemon says."""


class Pool(Protocol):
    """The daemon's side (`host.pool.WorkerPool`)."""

    def received(self, connection: Connection, frame: Any) -> None:
        """A frame of a process."""

    def lost(self, connection: Connection) -> None:
        """Its connection ended."""


class Socket:
    """One connection of the worker link, in the daemon's hands; stands for `host.link.Connection`."""

    def __init__(self, deliver: Callable[[Any], None], closed: Callable[[], None]) -> None:
        self._deliver, self._closed = deliver, closed
        self.why_closed = ""
        self.open = True

    def send(self, frame: Any) -> None:
        """To the process."""
        if self.open:
            self._deliver(frame)

    def send_soon(self, frame: Any) -> None:
        """The same: a simulated process costs nothing to wake."""
        self.send(frame)

    def finish(self, frame: Any, why: str) -> None:
        """A last frame."""
        self.send(frame)
        self.close(why)

    def close(self, why: str) -> None:
        """Drop it."""
        self.why_closed = self.why_closed or why
        if self.open:
            self.open = False
            self._closed()


class _Memory:
    """One agent in the worker."""

    def __init__(self, epoch: int, state: bytes) -> None:
        self.epoch = epoch
        self.state = state
        self.ahead: list[tuple[int, bytes]] = []
        """Drafts of turns that are not settled, by the number of the turn."""
        self.waiting: deque[tenure_link.Turn] = deque()
        """Turns that have not ended, the first one runs."""

    @property
    def draft(self) -> bytes:
        """What the next turn builds on."""
        return self.ahead[-1][1] if self.ahead else self.state


class SimWorker(ABC):
    """One worker process."""

    def __init__(self, container: WorkerContainer, pid: int, life: int) -> None:
        self._container = container
        self.life = life
        """Of the daemon that it serves."""
        self.pid = pid
        self.alive = True
        self.socket = Socket(
            lambda frame: container.later(LINK_NS, lambda: self._received(frame)),
            lambda: container.later(LINK_NS, lambda: container.reap(self, "its daemon hung up")),
        )

    @property
    def begun(self) -> tuple[int, ...] | None:
        """Turns that have begun and not ended; None: nobody notes them."""
        return None

    def end(self) -> None:
        """The process is gone."""
        self.alive = False

    @abstractmethod
    def _received(self, frame: Any) -> None:
        """A frame of the daemon."""


class _Worker(SimWorker):
    """The stand-in: its agents append to a list."""

    def __init__(self, container: WorkerContainer, pid: int, life: int) -> None:
        super().__init__(container, pid, life)
        self.agents: dict[str, _Memory] = {}

    @property
    def begun(self) -> tuple[int, ...]:
        """See SimWorker: the first of each agent."""
        return tuple(memory.waiting[0].turn for memory in self.agents.values() if memory.waiting)

    def _received(self, frame: Any) -> None:
        if not self.alive:
            return
        match frame:
            case tenure_link.Ping():
                self._container.say(self.socket, tenure_link.Pong(n=frame.n))
            case tenure_link.Activate():
                self._activate(frame)
            case tenure_link.Deactivate():
                memory = self.agents.get(frame.uid)
                if memory is not None and memory.epoch == frame.epoch:
                    del self.agents[frame.uid]
            case tenure_link.Turn():
                self._take(frame)
            case tenure_link.Commit() | tenure_link.Drop():
                self._settle(frame)
            case _:
                pass

    def _activate(self, frame: tenure_link.Activate) -> None:
        self._container.observer.activated(self._container.name, frame.uid, frame.epoch, frame.state)
        first = EMPTY if frame.state is None else None
        self.agents[frame.uid] = _Memory(frame.epoch, frame.state or EMPTY)
        self._container.say(self.socket, tenure_link.Activated(uid=frame.uid, epoch=frame.epoch, state=first))

    def _take(self, frame: tenure_link.Turn) -> None:
        memory = self.agents.get(frame.uid)
        if memory is not None:
            memory.waiting.append(frame)
            if len(memory.waiting) == 1:
                self._container.later(self._container.turn_ns(), lambda: self._next(memory))

    def _next(self, memory: _Memory) -> None:
        """The first turn that waits has ended."""
        if not self.alive or not memory.waiting:
            return
        frame = memory.waiting.popleft()
        if self.agents.get(frame.uid) is memory:
            self._turn(memory, frame)
        if memory.waiting:
            self._container.later(self._container.turn_ns(), lambda: self._next(memory))

    def _turn(self, memory: _Memory, frame: tenure_link.Turn) -> None:
        if frame.method == "get":
            self._container.say(self.socket, tenure_link.TurnDone(turn=frame.turn, reply=memory.state))
            return
        done: list[str] = msgspec.msgpack.decode(memory.draft)
        done.append(frame.call_id)
        draft = msgspec.msgpack.encode(done)
        memory.ahead.append((frame.turn, draft))
        reply = msgspec.msgpack.encode(len(done))
        self._container.say(self.socket, tenure_link.TurnDone(turn=frame.turn, reply=reply, state=draft))

    def _settle(self, frame: tenure_link.Commit | tenure_link.Drop) -> None:
        memory = self.agents.get(frame.uid)
        if memory is None:
            return
        if isinstance(frame, tenure_link.Drop):
            memory.ahead = [one for one in memory.ahead if one[0] < frame.turn]
            memory.waiting = deque(one for one in memory.waiting if one.turn < frame.turn)
            return
        for turn, draft in memory.ahead:
            if turn <= frame.turn:
                memory.state = draft
                self._container.observer.committed(self._container.name, frame.uid, memory.epoch, draft)
        memory.ahead = [one for one in memory.ahead if one[0] > frame.turn]


class WorkerContainer:
    """PID 1 with its workers, for as long as its machine has power. Follows the machine's pauses."""

    def __init__(self, setting: Setting, machine: Machine, observer: Observer, longest_turn_ns: int) -> None:
        self.setting, self.machine, self._longest_turn_ns = setting, machine, longest_turn_ns
        self.observer = observer
        self.classes: tuple[tenure_link.AgentClass, ...] = CLASSES
        self.name = machine.name
        self._pool: Pool | None = None
        self._loop: Any = None
        self._boss: Socket | None = None
        self._workers: dict[int, SimWorker] = {}
        self._wanted = 1
        self._kept: tuple[int, ...] = ()
        self._starting = 0
        self._last_pid = 100
        self._life = 0
        self._dead = False
        self.holds: set[str] = set()
        """Incarnations whose lock file a process of this container holds."""
        self.lease_until = 0

    def power_off(self) -> None:
        """Everything in it is gone."""
        self._dead = True
        self._pool = None
        self.holds.clear()

    def new_worker(self, pid: int, life: int) -> SimWorker:
        """A process that runs agents."""
        return _Worker(self, pid, life)

    def turn_ns(self) -> int:
        """How long a turn takes this time."""
        return int(self.setting.rng.random() * self._longest_turn_ns)

    # --- the daemon -------------------------------------------------------------------------------------------------

    def connect(self, pool: Pool, loop: Any, incarnation: str) -> None:
        """A new daemon listens."""
        self.later(START_NS, lambda: self._hello(pool, loop, incarnation))

    def daemon_died(self) -> None:
        """Its sockets are closed: the workers end by themselves."""
        self._pool = None
        held, workers = set(self.holds), list(self._workers.values())

        def end() -> None:
            for worker in workers:
                worker.end()
                self._workers.pop(worker.pid, None)
            self.holds -= held

        self.later(int(self.setting.rng.random() * DIE_NS), end)

    def _hello(self, pool: Pool, loop: Any, incarnation: str) -> None:
        if loop.dead:
            return
        self._life += 1
        life = self._life
        self._pool, self._loop, self._wanted, self._starting = pool, loop, 1, 0
        self.holds.add(incarnation)
        self._boss = Socket(lambda frame: self.later(LINK_NS, lambda: self._to_boss(life, frame)), _nothing)
        self.say(self._boss, tenure_link.Hello(kind="supervisor", pid=1, classes=self.classes, **_HELLO))
        self._start_workers()

    def _start_workers(self) -> None:
        mine = [worker for worker in self._workers.values() if worker.life == self._life]
        living = sum(worker.socket.open for worker in mine)
        while self._pool is not None and living + self._starting < self._wanted:
            self._starting += 1
            life = self._life
            self.later(START_NS, partial(self._start_worker, life))

    def _start_worker(self, life: int) -> None:
        if self._life != life or self._boss is None or self._pool is None:
            return
        self._starting -= 1
        self._last_pid += 1
        worker = self._workers[self._last_pid] = self.new_worker(self._last_pid, life)
        self.say(self._boss, tenure_link.Workers(pids=tuple(self._workers)))
        self._kill_surplus()
        if not worker.alive:
            return
        self.say(worker.socket, tenure_link.Hello(kind="worker", pid=worker.pid, classes=self.classes, **_HELLO))

    def _kill_surplus(self) -> None:
        """As PID 1 does: the youngest beyond what is wanted."""
        mine = [worker for worker in self._workers.values() if worker.life == self._life and worker.socket.open]
        spare = [worker for worker in mine if worker.pid not in self._kept]
        for worker in spare[::-1][: max(0, len(mine) - self._wanted)]:
            self.reap(worker, "fewer workers are wanted")

    def crash(self) -> None:
        """A worker process dies in the middle of whatever it does."""
        if self._workers and self._pool is not None:
            self.reap(self.setting.rng.choice(list(self._workers.values())), "killed")

    def reap(self, worker: SimWorker, why: str) -> None:
        """A worker is dead: its socket closes, PID 1 says so and starts another if one is wanted."""
        if not worker.alive:
            return
        worker.end()
        self._workers.pop(worker.pid, None)
        worker.socket.open = False
        if self._pool is not None and self._boss is not None and worker.life == self._life:
            at = self.setting.timeline.now + LINK_NS
            self._loop.deliver(at, self._pool.lost, cast("Connection", worker.socket))
            end = tenure_link.Workers(tuple(self._workers), worker.pid, why, begun=worker.begun)
            self.say(self._boss, end)
            self._start_workers()

    def _to_boss(self, life: int, frame: Any) -> None:
        if self._life != life or self._boss is None:
            return
        match frame:
            case tenure_link.Ping():
                self.say(self._boss, tenure_link.Pong(n=frame.n))
            case tenure_link.Lease():
                self.lease_until = frame.until_ns
            case tenure_link.Kill() if frame.pid in self._workers:
                self.reap(self._workers[frame.pid], frame.reason)
            case tenure_link.Spawn():
                self._wanted, self._kept = frame.workers, frame.keep
                self._kill_surplus()
                self._start_workers()
            case _:
                pass

    # --- time and frames --------------------------------------------------------------------------------------------

    def say(self, socket: Socket, frame: Any) -> None:
        """To the daemon."""
        if self._pool is not None:
            at = self.setting.timeline.now + LINK_NS
            self._loop.deliver(at, self._pool.received, cast("Connection", socket), frame)

    def later(self, delay_ns: int, event: Callable[[], None]) -> None:
        """On this machine: not while it is frozen, and never without power."""

        def happen() -> None:
            if self._dead:
                return
            if self.machine.paused_until > self.setting.timeline.now:
                self.setting.timeline.at(self.machine.paused_until, happen)
            else:
                event()

        self.setting.timeline.after(delay_ns, happen)


def _nothing() -> None:
    """The daemon dropped PID 1's socket."""
