"""Couriers of two hosts on the simulated network, in virtual time: cuts and blocked ways lose and double nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from couriers import Agents, Entry, Host, Sending

from tenured import clocks
from tenured.core.streams import Route
from tenured.simulation import Cluster
from tenured.simulation.cluster import Settings
from tenured.simulation.links import SimWires
from tenured.simulation.machines import Machine, Process
from tenured.simulation.net import MS, Net
from tenured.simulation.timeline import NS, Clock, Timeline


class World:
    """Two machines with a courier each; agent 50 is at b."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.timeline = Timeline()
        self.net = Net(self.timeline, self.rng)
        self.problems: list[Any] = []
        self.hosts = {name: self.host(name) for name in ("a", "b")}
        for process, host in self.hosts.values():
            process.spawn(host.courier.start())
        self.within("a", lambda host: host.read((self.hosts["b"][1],), {"50": self.hosts["b"][1]}))
        self.senders: list[Sending] = []
        self.within("a", lambda host: self.senders.append(Sending(host)))
        self.n = 0

    def host(self, name: str) -> tuple[Process, Host]:
        process = Process(self, Machine(name, Clock()), name)
        with process.loop.running():
            return process, Host(name, SimWires(process))

    def note(self, who: str, what: str) -> None:
        """No transcript here."""

    def problem(self, who: str, message: str, error: BaseException | None) -> None:
        self.problems.append((who, message, error))

    def within(self, name: str, work: Callable[[Host], object]) -> None:
        process, host = self.hosts[name]
        process.loop.deliver(self.timeline.now, work, host)

    def run(self, seconds: float) -> None:
        end = self.timeline.now + int(seconds * NS)
        while (at := self.timeline.next_at) is not None and at <= end:
            self.timeline.step()
        self.timeline.now = end

    def release(self) -> None:
        self.n += 1
        number = self.n
        self.within("a", lambda _: self.senders[0].release("50", number))


@pytest.mark.parametrize("seed", range(10))
def test_cuts_and_blocked_ways_lose_and_double_nothing(seed: int) -> None:
    """Protocol 3 [keep_box]; a cut way is given up after 3 s of silence, as TCP's keepalive does."""
    world = World(seed)
    for _ in range(60):
        world.release()
        match world.rng.randrange(8):
            case 0:
                world.net.cut("a", "b")
            case 1:
                world.net.block(*world.rng.choice([("a", "b"), ("b", "a")]))
            case 2:
                world.net.heal()
        world.run(world.rng.random() * 2)
    world.net.heal()
    world.run(20)
    assert world.problems == []
    assert sorted(world.senders[0].settled) == [(n, "applied") for n in range(1, 61)]
    assert world.hosts["b"][1].agents.applied == [("50", "1", n) for n in range(1, 61)]


def test_each_host_of_a_cluster_knows_the_ways_to_all_agents() -> None:
    """The daemon's own courier, in a whole simulated cluster: what a host registers reaches the others' couriers."""
    world = Cluster(3, Settings(hosts=3))
    with clocks.replaced(world):
        try:
            world._begin()
            world.until(3 * NS)
            daemons = [slot.daemon for slot in world.hosts.values() if slot.daemon is not None]
            assert len(daemons) == 3
            for daemon in daemons:
                mirror, courier = daemon._site.mirror, daemon._site.courier
                assert mirror.agents
                for uid, row in mirror.agents.items():
                    assert courier._route(uid) == Route(row.incarnation, row.epoch, row.ready)
                    assert row.incarnation
        finally:
            world._end()


def test_two_hosts_of_a_cluster_carry_a_signal_to_the_agent() -> None:
    """From one daemon's courier through the network into the other's activations."""
    world = Cluster(3, Settings(hosts=3))
    settled: list[tuple[int, str]] = []
    with clocks.replaced(world):
        try:
            world._begin()
            world.until(3 * NS)
            uid, holder = next((uid, slot.daemon) for slot in world.hosts.values() for uid in slot.daemon.holds)
            sender = next(slot.daemon for slot in world.hosts.values() if slot.daemon is not holder)
            taken = Agents()
            holder._activations.holders[uid].deliver = taken.deliver  # in place of the agent's turn
            with sender.process.loop.running():
                out = sender._site.courier.open("9", "sim/9", "sim", lambda n, a: settled.append((n, str(a.verdict))))
            sender.process.loop.deliver(world.timeline.now, out.release, [Entry(1, uid), Entry(2, uid)])
            world.until(4 * NS)
            assert settled == [(1, "applied"), (2, "applied")]
            assert taken.applied == [(uid, "9", 1), (uid, "9", 2)]
        finally:
            world._end()


def test_the_way_between_two_hosts_takes_one_round_trip() -> None:
    """Once it is open."""
    world = World(1)
    world.net.jitter_ns = 0
    world.release()
    world.run(1)
    world.release()
    world.run((2 * world.net.delay_ns + MS) / NS)
    assert world.senders[0].settled == [(1, "applied"), (2, "applied")]
