"""The simulated cluster keeps its invariants under faults, and the checker sees each guard that is switched off."""

import core_cluster_sim as sim
import pytest

from tenured.core import _apply_agents, commands, machine
from tenured.core.failover import Planner
from tenured.core.lease import Ack, HostLease, LeaderLeases, Silence
from tenured.core.model import Agent, Host
from tenured.core.profile import FAST
from tenured.core.registry import Registry

BLOCKS = 6
SEEDS_PER_BLOCK = 20


@pytest.mark.parametrize("block", range(BLOCKS))
def test_one_holder_whatever_happens_and_everybody_held_in_the_end(block: int) -> None:
    """DESIGN.md 3, invariants 1 and 4; a failing seed prints its transcript."""
    for seed in range(block * SEEDS_PER_BLOCK, (block + 1) * SEEDS_PER_BLOCK):
        sim.ClusterSim(seed).run()


def test_the_same_seed_gives_the_same_run() -> None:
    """A failing seed can be repeated."""
    first, again = sim.ClusterSim(3), sim.ClusterSim(3)
    first.run()
    again.run()
    assert first.transcript == again.transcript
    assert first.truth.snapshot() == again.truth.snapshot()


# --- each guard, off ------------------------------------------------------------------------------------------------


class NoMargin(LeaderLeases):
    """Expires at ttl, not at ttl + margin [margin]."""

    def expirable(self, now: int, registry: Registry) -> list[Silence]:
        return super().expirable(now + self.profile.margin_ns, registry)


class NoWaitNew(LeaderLeases):
    """A new leader does not wait for leases that the old one gave [wait_new]."""

    def expirable(self, now: int, registry: Registry) -> list[Silence]:
        oldest = now - self.profile.expiry_ns
        return [
            Silence(host.incarnation, 0)
            for host in registry.hosts.values()
            if self.leading
            and host.alive
            and self._last.get(host.incarnation, self._registered.get(host.incarnation, oldest)) <= oldest
        ]


class NoAckState(LeaderLeases):
    """Acknowledges whoever is covered, also the expired [ack_state]."""

    def tick_committed(self, token: int, index: int, registry: Registry) -> tuple[Ack, ...]:
        return tuple(Ack(name, sent_at, index) for name, sent_at in self._open.pop(token, {}).items())


class NoReceived(LeaderLeases):
    """Counts from the last acknowledged heartbeat, not from the last received one [received]."""

    def heartbeat(self, now: int, incarnation: str, sent_at_ns: int, load: object = None) -> None:
        before = self._last.get(incarnation)
        super().heartbeat(now, incarnation, sent_at_ns)
        self._arrived = {**getattr(self, "_arrived", {}), incarnation: now}
        if before is None:
            del self._last[incarnation]
        else:
            self._last[incarnation] = before

    def tick_committed(self, token: int, index: int, registry: Registry) -> tuple[Ack, ...]:
        acks = super().tick_committed(token, index, registry)
        for ack in acks:
            self._last[ack.incarnation] = self._arrived[ack.incarnation]
        return acks


class NoAfter(LeaderLeases):
    """A tick covers what arrived after it was proposed [after]."""

    def tick_committed(self, token: int, index: int, registry: Registry) -> tuple[Ack, ...]:
        self._open.get(token, {}).update(self._wait)
        self._wait = {}
        return super().tick_committed(token, index, registry)


class Rebalancer(Planner):
    """Assigns agents away from live hosts, without asking them."""

    def plan(self, registry: Registry, leases: LeaderLeases, now: int, wall: float) -> list[commands.Command]:
        found = super().plan(registry, leases, now, wall)
        hosts = [host for host in registry.hosts.values() if host.alive and host.ready]
        held = [agent for agent in registry.agents.values() if agent.held and agent.ready]
        if len(hosts) > 1 and held:
            agent = held[registry.index % len(held)]
            item = commands.Assignment(
                uid=agent.uid,
                epoch=agent.epoch,
                incarnation=hosts[registry.index % len(hosts)].incarnation,
                reason="Rebalance",
            )
            found.append(commands.Assign(items=(item,)))
        return found


def caught(seeds: int = 150, **mutation: type) -> str:
    for seed in range(seeds):
        try:
            sim.ClusterSim(seed, **mutation).run()
        except sim.Violation as violation:
            return str(violation)
    return ""


@pytest.mark.parametrize("leases", [NoMargin, NoWaitNew, NoAckState, NoReceived])
def test_each_lease_guard_that_is_off_is_caught(leases: type[LeaderLeases]) -> None:
    """Mutation evidence (protocol 1)."""
    assert "still holds a lease" in caught(leases=leases)


@pytest.mark.parametrize(("leases", "outlives"), [(LeaderLeases, False), (NoAfter, True)])
def test_a_commit_from_before_the_election_that_is_learned_late(leases: type[LeaderLeases], outlives: bool) -> None:
    """Protocol 1 [after], rare at random: only the old leader hears the host, and learns of its tick late."""
    registry = Registry()
    machine.apply(registry, 1, commands.RegisterHost(name="h", incarnation="h.1", pool="p", node="n"))
    old, new, host = leases(FAST), leases(FAST), HostLease(FAST, "h.1")
    old.elected()
    old.first_commit(0)
    tick = old.tick_proposed()
    new.elected()
    new.first_commit(1)
    late = FAST.expiry_ns
    old.heartbeat(late, "h.1", late)
    for ack in old.tick_committed(tick, 2, registry):
        host.ack(ack)
    assert [silence.incarnation for silence in new.expirable(late + 1, registry)] == ["h.1"]
    assert host.held(late + 1) == outlives


class NoRegistered(LeaderLeases):
    """Counts the silence of a new host from the leader's own start."""

    def registered(self, now: int, incarnation: str) -> None:
        pass


def test_hosts_expired_before_their_first_heartbeat_are_caught() -> None:
    """Mutation evidence, of liveness: hosts that never come back."""
    assert "back at the end" in caught(leases=NoRegistered)


def test_rule_r_stops_a_planner_that_moves_agents_from_live_hosts() -> None:
    """Protocol 4: checked where the entry is applied, so a wrong planner costs nothing."""
    sim.ClusterSim(1, planner=Rebalancer).run()


def test_rule_r_that_is_off_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutation evidence (protocol 4)."""
    checked = _apply_agents._assign_error

    def unchecked(agent: Agent | None, host: Host | None, item: commands.Assignment) -> str:
        problem = checked(agent, host, item)
        return "" if problem.endswith("nor expired") else problem

    monkeypatch.setattr(_apply_agents, "_assign_error", unchecked)
    assert "is held by" in caught(planner=Rebalancer)
