"""Each rule taken back: the checker must say so, within the seeds that the mutant states, in a world that is clean with
the rule in its place.
"""

import pytest
from sim_mutants import MUTANTS, WRITES, Mutant

from tenured.core import commands, machine, turns
from tenured.core.lease import HostLease, LeaderLeases
from tenured.core.profile import FAST
from tenured.core.registry import Registry
from tenured.simulation import Breach, Cluster, Rules, Settings


def caught(mutant: Mutant) -> tuple[int, Breach] | None:
    """The first seed that shows it."""
    for seed in range(mutant.most):
        try:
            Cluster(seed, Settings(**mutant.settings), mutant.rules).run()
        except Breach as breach:
            return seed, breach
    return None


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", list(MUTANTS))
def test_a_rule_that_is_missing_is_caught(name: str) -> None:
    """Evidence that the checks can fail (protocol README, section 6)."""
    mutant = MUTANTS[name]
    found = caught(mutant)
    assert found is not None, f"{name}: not caught in {mutant.most} seeds"
    seed, breach = found
    assert mutant.says in breach.rule
    Cluster(seed, Settings(**{**mutant.settings, "lies": False})).run()


class CoversLater(LeaderLeases):
    """A tick covers what arrived after it was proposed [after]."""

    def tick_committed(self, token: int, index: int, registry: Registry) -> tuple[object, ...]:
        self._open.get(token, {}).update(self._wait)
        return super().tick_committed(token, index, registry)


@pytest.mark.parametrize(("leases", "outlives"), [(LeaderLeases, False), (CoversLater, True)])
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


def test_a_call_without_a_mark_is_applied_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protocol 3 [mark_in_commit]: a client whose answer was lost sends the call again."""

    def unmarked(self: turns.Draft, _: turns.CallId, born: float, reply: bytes) -> None:
        self.saw(born)

    monkeypatch.setattr(turns.Draft, "call", unmarked)
    found = caught(Mutant(Rules(), "", WRITES))
    assert found is not None
    assert found[1].rule == "effects once"


def test_rule_r_stops_whoever_assigns_agents_away() -> None:
    """Protocol 4: checked where the entry is applied, so that a wrong planner costs nothing."""
    world = Cluster(1, Settings(fault_names=("cut_host",)))
    refused = 0

    def meddle() -> None:
        nonlocal refused
        truth = world.check.truth
        held = [agent for agent in truth.agents.values() if agent.held]
        others = [host for host in truth.hosts.values() if host.alive]
        for agent in held:
            for host in others[:2]:
                item = commands.Assignment(
                    uid=agent.uid, epoch=agent.epoch, incarnation=host.incarnation, reason="Rebalance"
                )
                refused += 1
                world.operator.want(commands.Assign(items=(item,)))
        if world.loading:
            world.timeline.after(500_000_000, meddle)

    world.timeline.after(1_000_000_000, meddle)
    world.run()
    assert refused
