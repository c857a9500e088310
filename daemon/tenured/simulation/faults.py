"""What goes wrong in a simulated world. Each fault picks its victim by the world's own dice, and mends itself later."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tenured.core import commands
from tenured.core.agentspec import AgentSpec
from tenured.core.model import Node

if TYPE_CHECKING:
    from tenured.simulation.cluster import Cluster
    from tenured.simulation.slots import HostSlot, ServerSlot

MS = 1_000_000


def _server(world: Cluster) -> ServerSlot:
    """Any server; the leader more often than its share."""
    leader = world.leader()
    if leader is not None and world.rng.random() < 0.5:
        return world.slots[leader]
    return world.rng.choice(list(world.slots.values()))


def _host(world: Cluster) -> HostSlot:
    """Any host that is up."""
    return world.rng.choice(list(world.hosts.values()))


def _some_ms(world: Cluster, *choices: int) -> int:
    return int(world.rng.choice(choices) * (0.5 + world.rng.random())) * MS


# --- servers ----------------------------------------------------------------------------------------------------------


def kill_server(world: Cluster) -> None:
    """Its process dies, its kernel lives."""
    slot = _server(world)
    world.note(slot.name, "is killed")
    slot.stop(power=False)
    world.timeline.after(_some_ms(world, 50, 500, 1500), slot.start)


def power_server(world: Cluster) -> None:
    """What was not synced is gone."""
    slot = _server(world)
    world.note(slot.name, "loses its power")
    slot.stop(power=True)
    world.timeline.after(_some_ms(world, 50, 500, 1500), slot.start)


def power_all_servers(world: Cluster) -> None:
    """All at once."""
    world.note("world", "all servers lose their power")
    for slot in world.slots.values():
        slot.stop(power=True)
        world.timeline.after(_some_ms(world, 50, 300), slot.start)


def pause_server(world: Cluster) -> None:
    """SIGSTOP, or a busy hypervisor."""
    slot = _server(world)
    length = _some_ms(world, 100, 500, 2000)
    world.note(slot.name, f"stands still for {length // MS} ms")
    slot.machine.pause(world.timeline.now + length)


def slow_disk(world: Cluster) -> None:
    """Syncs take a hundred times as long for a while."""
    slot = _server(world)
    slot.disks.health.sync_ns = usual = int(world.settings.sync_ms * MS)
    slot.disks.health.sync_ns *= 100
    world.note(slot.name, "has a slow disk")

    def mend() -> None:
        slot.disks.health.sync_ns = usual

    world.timeline.after(_some_ms(world, 500, 1500), mend)


def full_disk(world: Cluster) -> None:
    """Writes fail: the server ends, and comes back when there is room."""
    slot = _server(world)
    slot.disks.health.full = True
    world.note(slot.name, "has a full disk")

    def mend() -> None:
        slot.disks.health.full = False
        slot.stop(power=False)
        slot.start()

    world.timeline.after(_some_ms(world, 300, 1500), mend)


def isolate_leader(world: Cluster) -> None:
    """From the other servers, or from everybody; in one direction, or in both."""
    leader = world.leader()
    if leader is None:
        return
    everybody = world.rng.random() < 0.5
    others = world.server_names if not everybody else [*world.server_names, *world.hosts]
    sending, hearing = world.rng.choice(((True, True), (True, False), (False, True)))
    cut = [(leader, other) for other in others if other != leader and sending]
    cut += [(other, leader) for other in others if other != leader and hearing]
    world.note(leader, f"leads and is cut off: sends {not sending}, hears {not hearing}, everybody {everybody}")
    _block(world, cut, _some_ms(world, 300, 1500, 3000))


def strand_leader(world: Cluster) -> None:
    """The leader stands still while a host hears nobody else: it goes on sending to it, and all of that is read at
    once, before the leader knows that it was deposed. In half of the cases it is deaf to the other servers as well.
    """
    leader = world.leader()
    if leader is None:
        return
    stranded, others = world.rng.choice(list(world.hosts)), [name for name in world.server_names if name != leader]
    length = _some_ms(world, 2200)
    deaf = world.rng.random() < 0.5
    world.note(leader, f"leads and stands still for {length // MS} ms, deaf {deaf}; {stranded} hears nobody else")
    world.slots[leader].machine.pause(world.timeline.now + length)
    mend_ns = length + 300 * MS
    _block(world, [way for other in others for way in ((stranded, other), (other, stranded))], mend_ns)
    if deaf:  # what was on its way when it fell asleep still arrives
        ways = [(other, leader) for other in others]
        world.timeline.after(20 * MS, lambda: _block(world, ways, mend_ns))


def split_servers(world: Cluster) -> None:
    """One server on its own."""
    alone = _server(world).name
    cut = [(a, b) for a in world.server_names for b in world.server_names if a != b and alone in (a, b)]
    world.note(alone, "is cut off from the other servers")
    _block(world, cut, _some_ms(world, 300, 1500, 3000))


def lose_disk(world: Cluster) -> None:
    """A volume is gone. One at a time: two disks at once are outside of the promise (protocol 2, rejoin)."""
    slot = _server(world)
    rows = world.check.truth.servers
    whole = len(rows) == len(world.slots) and not any(row.joining for row in rows.values())
    if whole and len(world.servers) == len(world.slots) and all(s.is_whole for s in world.servers.values()):
        world.note(slot.name, "loses its disk")
        slot.lose_disk()
        world.timeline.after(_some_ms(world, 50, 500), slot.start)


def hand_over(world: Cluster) -> None:
    """The leader asks another one to lead."""
    leader = world.leader()
    server = world.servers.get(leader or "")
    if server is not None and not server.process.paused:
        engine = server.consensus.engine
        if engine is not None:
            world.note(server.name, "hands over")
            server.process.loop.deliver(world.timeline.now, engine.hand_over)


# --- hosts ------------------------------------------------------------------------------------------------------------


def kill_daemon(world: Cluster) -> None:
    """The daemon dies; its supervisor starts the next one, its workers end by themselves."""
    slot = _host(world)
    if slot.daemon is not None:
        world.note(slot.name, "its daemon is killed")
        slot.daemon.process.kill()


def power_host(world: Cluster) -> None:
    """The node is gone, and comes back with an empty pod."""
    slot = _host(world)
    world.note(slot.name, "loses its power")
    slot.power_off()
    world.timeline.after(_some_ms(world, 300, 2000), slot.power_on)


def pause_host(world: Cluster) -> None:
    """Everything on the node is frozen, and goes on later as if nothing had been."""
    slot = _host(world)
    length = _some_ms(world, 200, 1000, 2500)
    world.note(slot.name, f"is frozen for {length // MS} ms")
    slot.machine.pause(world.timeline.now + length)
    world.disturbed(slot.name, length)


def sleep_host(world: Cluster) -> None:
    """The machine is suspended: timers stand still, the boot clock runs on [boottime]."""
    slot = _host(world)
    length = _some_ms(world, 500, 2000)
    world.note(slot.name, f"sleeps for {length // MS} ms")
    slot.machine.pause(world.timeline.now + length)
    slot.machine.clock.slept_ns += int(length * slot.machine.clock.rate)
    world.disturbed(slot.name, length)


def crash_worker(world: Cluster) -> None:
    """User code takes its process down."""
    slot = _host(world)
    world.note(slot.name, "its worker crashes")
    slot.container.crash()


def drain_host(world: Cluster) -> None:
    """SIGTERM to the daemon."""
    slot = _host(world)
    if slot.daemon is not None:
        world.note(slot.name, "is told to drain")
        slot.daemon.drain()


def cut_host(world: Cluster) -> None:
    """Some servers, or all, do not hear the host, or it does not hear them."""
    slot = _host(world)
    servers = [name for name in world.server_names if world.rng.random() < 0.7]
    sending, hearing = world.rng.choice(((True, True), (True, False), (False, True)))
    cut = [(slot.name, server) for server in servers if sending] + [(s, slot.name) for s in servers if hearing]
    world.note(slot.name, f"is cut off from {servers}: sends {not sending}, hears {not hearing}")
    _block(world, cut, _some_ms(world, 200, 1500, 2200))


def die_in_a_write(world: Cluster) -> None:
    """A host reaches one server only, or two, for a moment; then its power is gone with what waited for the others."""
    slot = _host(world)
    reached = world.rng.sample(world.server_names, world.rng.choice((1, 1, 2)))
    cut = [(slot.name, server) for server in world.server_names if server not in reached]
    world.note(slot.name, f"reaches {reached} only")
    _block(world, cut, 2000 * MS)

    def die() -> None:
        world.note(slot.name, "loses its power")
        slot.power_off()
        world.timeline.after(_some_ms(world, 300, 2000), slot.power_on)

    world.timeline.after(_some_ms(world, 50, 200), die)


def cut_clients(world: Cluster) -> None:
    """A host that callers cannot reach, though it holds its lease."""
    slot = _host(world)
    world.note(slot.name, "cannot be called")
    _block(world, [(client.name, slot.name) for client in world.clients], _some_ms(world, 300, 1500))


# --- anything ---------------------------------------------------------------------------------------------------------


def slow_node(world: Cluster) -> None:
    """Everything takes long on one machine."""
    slot = _host(world) if world.rng.random() < 0.5 else _server(world)
    machine = slot.machine
    world.note(slot.name, "is slow")

    def speed(cost_ns: int) -> None:
        machine.cost_ns = cost_ns
        for process in machine.processes:
            process.loop.cost_ns = cost_ns

    speed(world.rng.choice((1, 5)) * MS)
    world.timeline.after(_some_ms(world, 500, 2000), lambda: speed(20_000))


def slow_link(world: Cluster) -> None:
    """One direction between two machines takes fifty times as long."""
    names = [*world.server_names, *world.hosts]
    source, target = world.rng.sample(names, 2)
    way = world.net.way(source, target)
    way.factor = world.rng.choice((20, 100))
    world.note("world", f"the way from {source} to {target} is slow")

    def mend() -> None:
        way.factor = 1.0

    world.timeline.after(_some_ms(world, 500, 2000), mend)


def cut_connections(world: Cluster) -> None:
    """Every connection between two machines breaks."""
    names = [*world.server_names, *world.hosts]
    source, target = world.rng.sample(names, 2)
    world.note("world", f"connections between {source} and {target} break")
    world.net.cut(source, target)


def step_wall_clock(world: Cluster) -> None:
    """Somebody sets the time."""
    slot = _host(world) if world.rng.random() < 0.5 else _server(world)
    slot.machine.clock.wall_offset_s += world.rng.choice((-3600, -5, 5, 86400))
    world.note(slot.name, "its wall clock is set")


def change_agents(world: Cluster) -> None:
    """One agent is deleted, another one created."""
    if world.passing and world.rng.random() < 0.6:
        gone = world.passing.pop(world.rng.randrange(len(world.passing)))
        world.operator.want(commands.DeleteAgents(ids=(gone,), managed_by="API"))
    name = f"shop/p-{world.timeline.events}"
    world.passing.append(name)
    world.operator.want(commands.ApplyAgents(agents=(AgentSpec(id=name, class_name="Counter"),), managed_by="API"))


def cordon(world: Cluster) -> None:
    """Some nodes take nothing new."""
    nodes = tuple(Node(name=f"node-{name}", schedulable=world.rng.random() < 0.7) for name in world.hosts)
    world.operator.want(commands.SetNodes(nodes=nodes))


def _block(world: Cluster, ways: list[tuple[str, str]], length: int) -> None:
    for way in ways:
        world.net.block(*way)

    def mend() -> None:
        for way in ways:
            world.net.unblock(*way)

    world.timeline.after(length, mend)


ON_SERVERS = frozenset(
    {
        "kill_server",
        "power_server",
        "power_all_servers",
        "pause_server",
        "slow_disk",
        "full_disk",
        "isolate_leader",
        "strand_leader",
        "split_servers",
        "lose_disk",
        "hand_over",
    }
)
"""Those that take the leader away, mostly: after each a new one waits before it expires anybody."""

Fault = Callable[["Cluster"], None]
FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        kill_server,
        power_server,
        power_all_servers,
        pause_server,
        slow_disk,
        full_disk,
        isolate_leader,
        strand_leader,
        split_servers,
        lose_disk,
        hand_over,
        kill_daemon,
        power_host,
        pause_host,
        sleep_host,
        crash_worker,
        drain_host,
        cut_host,
        die_in_a_write,
        cut_clients,
        slow_node,
        slow_link,
        cut_connections,
        step_wall_clock,
        change_agents,
        cordon,
    )
}
