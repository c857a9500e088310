"""The simulated network: one stream per direction, FIFO, or hostile (loss, duplicates, any order)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tenured.raft.messages import Forward, ForwardReply, decode_frame

if TYPE_CHECKING:
    from tests.raft.sim.world import World


@dataclass
class Stream:
    """One direction. A cut raises the epoch: what was in it never arrives."""

    up: bool = False
    epoch: int = 0
    blocked: bool = False
    stalled: list[bytes] = field(default_factory=list)
    latest: float = 0.0  # no frame arrives before one that was sent earlier
    target: int | None = None  # incarnation of the receiver that the stream leads to


class Net:
    """A blocked stream stalls, and later delivers late and in order, or is cut."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.streams = {(a, b): Stream() for a in world.names for b in world.names if a != b}

    def is_up(self, source: str, target: str) -> bool:
        return self.streams[source, target].up

    def send(self, source: str, target: str, frame: bytes) -> None:
        world, stream = self.world, self.streams[source, target]
        if world.hostile and world.now < world.until:
            if not stream.blocked and world.rng.random() >= world.loss:
                for _ in range(1 + (world.rng.random() < world.duplicates and may_double(frame))):
                    slow = 100 if world.rng.random() < 0.02 else 1  # crosses reigns and restarts
                    world.at(world.rng.random() * world.delay * slow, self._arrival(source, target, frame))
        elif stream.up and (world.hostile or stream.target == world.hosts[target].incarnation):
            if stream.blocked:
                stream.stalled.append(frame)
                return
            stream.latest = max(stream.latest, world.now + world.rng.random() * world.delay)
            world.at_time(stream.latest, self._arrival(source, target, frame, stream.epoch))

    def _arrival(self, source: str, target: str, frame: bytes, epoch: int | None = None) -> Callable[[], None]:
        def arrive() -> None:
            host = self.world.hosts[target]
            if host.engine is None or (epoch is not None and self.streams[source, target].epoch != epoch):
                return
            if host.paused_until > self.world.now:
                self.world.at_time(host.paused_until, arrive)
                return
            self.world.log(source, "->", target, frame)
            host.received(source, frame)

        return arrive

    # ---- streams come and go -------------------------------------------------------------------------------------

    def booted(self, name: str) -> None:
        for other in self.world.names:
            if other != name:
                self.connect(name, other)
                self.connect(other, name)

    def connect(self, source: str, target: str, lag: float = 0.2) -> None:
        world = self.world

        def go() -> None:
            stream, near, far = self.streams[source, target], world.hosts[source], world.hosts[target]
            if near.engine is None or far.engine is None:
                return
            if stream.blocked:
                world.at(0.1, go)
                return
            if stream.up:
                self.cut(source, target)
            stream.up, stream.target, stream.stalled, stream.latest = True, far.incarnation, [], world.now
            near.step(lambda: near.engine and near.engine.connected(target))

        world.at(world.rng.random() * lag, go)

    def cut(self, source: str, target: str) -> None:
        stream, near = self.streams[source, target], self.world.hosts[source]
        stream.epoch += 1
        stream.stalled = []
        if stream.up:
            stream.up = False
            if near.engine is not None:
                near.step(lambda: near.engine and near.engine.disconnected(target))

    def dropped(self, name: str) -> None:
        """A process is gone: its own streams end, those to it die without a word."""
        for (source, target), stream in self.streams.items():
            if name in (source, target):
                stream.epoch += 1
                stream.up &= source != name

    def block(self, source: str, target: str, on: bool) -> None:
        stream, world = self.streams[source, target], self.world
        if on and not stream.blocked and not world.hostile and world.rng.random() < 0.7:
            world.at(world.rng.random() * 2, lambda: stream.blocked and self.cut(source, target))
        if not on and stream.blocked:
            late, stream.stalled, stream.blocked = stream.stalled, [], False
            if not stream.up:
                self.connect(source, target)
            for frame in late if stream.up else ():
                self.send(source, target, frame)
        stream.blocked = on


def may_double(frame: bytes) -> bool:
    """Commands are never doubled: the contract of PeerLink is at most once, and a second copy is a second command."""
    return not any(isinstance(m, Forward | ForwardReply) for m in decode_frame(frame))
