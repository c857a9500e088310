"""A simulated world whose script says what happens: who ticks, which message arrives, who crashes. Nothing else moves.

For what random seeds do not reach. The engine, its disk and the checker are those of the random worlds. Messages wait
in one box a direction until the script delivers them, in order; `reconnect` empties a box, as `PeerLink` promises. What
only a link that breaks its promise can do (`copy`, `inject`) is said by the scenarios that use it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tenured.raft.core import State
from tenured.raft.engine import Engine
from tenured.raft.interface import Applied
from tenured.raft.messages import AnyMessage, decode_frame, encode_frame
from tests.raft.sim.checker import Operation
from tests.raft.sim.host import Host
from tests.raft.sim.world import World

LONG_S = 1.0
"""Longer than every election timeout."""
ROUNDS = 400
CALM: dict[str, Any] = {
    "hostile": False, "loss": 0, "duplicates": 0, "tick": 0.01, "delay": 0, "sync_time": 0, "snapshot_time": 0,
    "chunk_time": 0, "part_bytes": 1 << 16, "batch_bytes": 1 << 16, "compact_entries": 10**6, "compact_bytes": 10**9,
    "big": 0, "bad_apply": 0, "bad_callback": 0, "fallback": 30, "until": 1e9,
    "patient": False,
}  # fmt: skip


class Caught(Exception):
    """The checker found a broken rule: the script ends."""


class Boxes:
    """In place of the random network: a box of messages for each direction."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.boxes: dict[tuple[str, str], list[AnyMessage]] = {
            (a, b): [] for a in world.names for b in world.names if a != b
        }
        self.up: set[tuple[str, str]] = set()

    def is_up(self, source: str, target: str) -> bool:
        return (source, target) in self.up

    def send(self, source: str, target: str, frame: bytes) -> None:
        self.boxes[source, target] += decode_frame(frame)

    def booted(self, name: str) -> None:
        for other in self.world.alive():
            if other.name != name:
                self.connect(name, other.name)
                self.connect(other.name, name)

    def connect(self, source: str, target: str) -> None:
        """A new stream; what was in the old one is gone."""
        self.boxes[source, target] = []
        near = self.world.hosts[source]
        if self.is_up(source, target):
            near.step(lambda: near.engine and near.engine.disconnected(target))
        self.up.add((source, target))
        near.step(lambda: near.engine and near.engine.connected(target))

    def dropped(self, name: str) -> None:
        for stream, box in self.boxes.items():
            if name in stream:
                box.clear()
                self.up.discard(stream)


class Stage(World):
    """Servers a, b, c, ... that hold still. Every step raises Caught as soon as the checker has found something."""

    letters = "abcdefg"

    def __init__(self, engine_class: type[Engine] = Engine, size: int = 3, **fixed: Any) -> None:
        super().__init__(1, engine_class, size=size, **{**CALM, **fixed})
        self.boxes = Boxes(self)
        self.net = self.boxes  # type: ignore[assignment]
        self.writing: list[tuple[Host, int, Callable[[], object]]] = []
        self.chores: list[tuple[Host, int, Callable[[], object]]] = []

    def at(self, delay: float, event: Callable[[], object], host: Host | None = None, *, quiet: bool = False) -> None:
        """What would happen on its own: ticks do not; the end of a snapshot's writing waits for the script."""
        if host is not None and event not in (host.periodic, host.tick):
            own = event == host.worker.work and host.worker.writes()
            (self.writing if own else self.chores).append((host, host.incarnation, event))

    def look(self) -> None:
        """What does not wait for the script happens: a snapshot that arrives is written. Then the checker is asked."""
        while self.chores:
            host, incarnation, event = self.chores.pop(0)
            if host.incarnation == incarnation and host.engine is not None:
                host.step(event)
        if self.check.found:
            raise Caught

    # ---- steps ---------------------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def ticks(self, *names: str) -> None:
        for name in names:
            self.hosts[name].step(self.hosts[name].tick)
            self.look()

    def deliver(self, source: str, target: str, count: int | None = None) -> int:
        """The first `count` messages of the box (all that are in it now), one frame each."""
        box = self.boxes.boxes[source, target]
        now = box[:count]
        del box[: len(now)]
        for message in now:
            self.inject(source, target, message)
        return len(now)

    def inject(self, source: str, target: str, *messages: AnyMessage) -> None:
        """These arrive at `target` now, wherever they come from."""
        host = self.hosts[target]
        for message in messages:
            frame = encode_frame([message])
            host.step(lambda frame=frame: host.engine and host.engine.received(source, frame))
            self.look()

    def copy(self, source: str, target: str) -> list[AnyMessage]:
        """What is in the box."""
        return list(self.boxes.boxes[source, target])

    def reconnect(self, *names: str) -> None:
        """All streams among these are cut and opened again: what was in them never arrives."""
        for stream in list(self.boxes.boxes):
            if set(stream) <= set(names):
                self.boxes.connect(*stream)
                self.look()

    def talk(self, *names: str) -> None:
        """Each of these ticks, then everything among them is delivered, until nothing is said any more."""
        for _ in range(ROUNDS):
            self.ticks(*names)
            if not sum(self.deliver(a, b) for a, b in self.boxes.boxes if a in names and b in names):
                return
        self.check.bad("they never stop talking", *names)
        self.look()

    def write(self, name: str) -> Operation:
        """A client's command at this server, and a tick of it."""
        operation = self.call(self.hosts[name])
        self.look()
        self.ticks(name)
        return operation

    def kill(self, name: str) -> None:
        self.hosts[name].crash(power=False)

    def lose_disk(self, name: str) -> None:
        self.hosts[name].lose_disk()
        self.check.disk_lost(self.hosts[name])

    def boot(self, name: str) -> None:
        self.hosts[name].boot()
        self.look()

    def finish_writing(self, name: str) -> None:
        """The snapshot that this server writes is on its disk now."""
        ready = [event for host, incarnation, event in self.writing if (host.name, incarnation) == self._life(name)]
        self.writing = [job for job in self.writing if job[0].name != name]
        for event in ready:
            self.hosts[name].step(event)
            self.look()
        self.ticks(name)

    def _life(self, name: str) -> tuple[str, int]:
        return name, self.hosts[name].incarnation

    # ---- what scripts begin and end with -------------------------------------------------------------------------

    def found(self) -> None:
        """All start with empty disks and found the cluster. Nobody has stood for election."""
        for name in self.names:
            self.boot(name)
        self.ticks(*self.names)
        self.talk(*self.names)
        assert all(host.engine.log.voter for host in self.alive())

    def leads(self, name: str) -> bool:
        engine = self.hosts[name].engine
        return engine is not None and engine.state == State.LEADER

    def ask(self, name: str, *voters: str) -> None:
        """`name` misses its leader and asks these whether it may stand; it has their answers, and does not yet."""
        self.wait(LONG_S)
        self.ticks(name)
        engine = self.hosts[name].engine
        if engine is not None and engine.current_term == 0:  # then everybody must agree that somebody stands
            voters = tuple(other for other in self.names if other != name)
        for voter in voters:
            self.deliver(name, voter)
            self.deliver(voter, name)

    def poll(self, name: str, *voters: str) -> None:
        """`name` asks these, and stands for election: its requests for votes are in the boxes."""
        self.ask(name, *voters)
        self.ticks(name)

    def elect(self, name: str, *voters: str) -> None:
        """`name` becomes leader by the votes of these; its first messages as leader are in the boxes."""
        for _ in range(3):  # it may have to learn first which term it is
            self.poll(name, *voters)
            for voter in voters:
                self.deliver(name, voter)
                self.deliver(voter, name)
            if self.leads(name):
                return
        raise AssertionError(f"{name} was not elected")

    def finish(self) -> None:
        """No more faults: everybody is up and connected, answers a call, and then all are equal and outcomes true."""
        for name in self.names:
            self.boot(name)
        self.reconnect(*self.names)
        probes: list[Operation] = []
        answered = False
        for _ in range(ROUNDS):
            self.wait(0.05)
            self.ticks(*self.names)
            self.talk(*self.names)
            leaders = [name for name in self.names if self.leads(name)]
            ready = all(host.engine.role().ready for host in self.alive())
            if ready and leaders and not probes:
                probes = [self.call(host) for host in self.alive()]
            answered = bool(probes) and all(isinstance(p.outcome, Applied) for p in probes)
            if answered and self.check.level():
                break
        self.check.final(answered and self.check.level())
        self.look()


Script = Callable[[Stage], None]


def play(script: Script, engine_class: type[Engine] = Engine, size: int = 3, **fixed: Any) -> list[str]:
    """The rules that the checker found broken: none for the engine as it is."""
    stage = Stage(engine_class, size, **fixed)
    try:
        script(stage)
        stage.finish()
    except Caught:
        pass
    return [rule for rule, *_ in stage.check.found]
