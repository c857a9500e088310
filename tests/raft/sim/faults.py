"""What goes wrong in a simulated world. Each fault takes the world and picks its victim by the world's own dice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tenured.raft.core import State

if TYPE_CHECKING:
    from tests.raft.sim.host import Host
    from tests.raft.sim.world import World


def pick(world: World) -> Host:
    return world.rng.choice(list(world.hosts.values()))


def crash(world: World, host: Host, *, power: bool) -> None:
    host.crash(power=power)
    world.at(world.rng.choice((0.02, 0.5, 2)) * world.rng.random(), host.boot)


def kill(world: World) -> None:
    crash(world, pick(world), power=False)


def power(world: World) -> None:
    crash(world, pick(world), power=True)


def crash_all(world: World) -> None:
    lost = world.rng.random() < 0.7
    for host in world.hosts.values():
        crash(world, host, power=lost)


def crash_in_event(world: World) -> None:
    host = pick(world)
    if host.engine is not None:
        host.fuse, host.fuse_power = world.rng.randint(0, 12), world.rng.random() < 0.7
        world.at(0.3, lambda: world.at(world.rng.random(), host.boot))


def pause(world: World) -> None:
    """A second pause never shortens the first: what waits for its end would be overtaken."""
    host = pick(world)
    host.paused_until = max(host.paused_until, world.now + world.rng.choice((0.1, 1, 3)) * world.rng.random())


def split(world: World) -> None:
    side = {name: world.rng.random() < 0.5 for name in world.names}
    for source, target in world.net.streams:
        world.net.block(source, target, side[source] != side[target])
    world.at(2 * world.rng.random(), lambda: mend(world))


def one_way(world: World) -> None:
    world.net.block(*world.rng.choice(sorted(world.net.streams)), True)


def isolate(world: World) -> None:
    leaders = [h.name for h in world.alive() if h.engine.state == State.LEADER]
    victim = world.rng.choice(leaders) if leaders and world.rng.random() < 0.7 else pick(world).name
    outgoing, incoming = world.rng.choice(((True, True), (True, False), (False, True)))
    for source, target in world.net.streams:
        if (source == victim and outgoing) or (target == victim and incoming):
            world.net.block(source, target, True)
    world.at(2 * world.rng.random(), lambda: mend(world))


def mend(world: World) -> None:
    for source, target in world.net.streams:
        world.net.block(source, target, False)


def reset(world: World) -> None:
    source, target = world.rng.choice(sorted(world.net.streams))
    world.net.cut(source, target)
    world.net.connect(source, target, world.rng.choice((0, 0.3)))


def compact(world: World) -> None:
    for host in world.alive():
        if world.rng.random() < 0.5:
            host.engine.forceLogCompaction()


def transfer(world: World) -> None:
    for host in world.alive():
        if host.engine.state == State.LEADER and host.paused_until <= world.now:
            host.step(host.engine.hand_over)


def lose_disk(world: World) -> None:
    """One at a time, once anybody stood for election. Before that, any: nobody has promised anything."""
    host = pick(world)
    others_vote = all(other.is_voter() for other in world.hosts.values() if other is not host)
    if others_vote or not world.check.begun:
        host.lose_disk()
        world.check.disk_lost(host)
        world.at(world.rng.random(), host.boot)


def no_room(world: World) -> None:
    """For snapshots; a log that finds none stops its server, which is a crash."""
    pick(world).full_until = world.now + 2 * world.rng.random()


def rot(world: World) -> None:
    """A server is down, and its newest snapshot is damaged meanwhile."""
    host = pick(world)
    crash(world, host, power=True)
    if host.engine is None and host.disk.rot(world.rng):
        world.coverage["snapshot damaged"] += 1


Fault = Callable[["World"], None]
FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        kill,
        power,
        crash_in_event,
        crash_all,
        pause,
        split,
        one_way,
        isolate,
        mend,
        reset,
        compact,
        transfer,
        lose_disk,
        no_room,
        rot,
    )
}
