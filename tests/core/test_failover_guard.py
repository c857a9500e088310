"""Many hosts silent at once: nothing is moved before that is confirmed, and nothing is held for ever.

The rules are a pure function of what is seen, so every run of a small cluster can be tried: each host is heard or not,
step by step, until nothing new is reached.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
from core_world import World

from tenured.core import commands as c
from tenured.core.failover import Planner
from tenured.core.failover.guard import AT_ONCE_NS, NOTHING_HELD, Held, Seen, grace_ns, look, waiting
from tenured.core.lease import LeaderLeases
from tenured.core.profile import BALANCED, FAST, NS

# --- every run of a small cluster -----------------------------------------------------------------------------------

LEASE, EXPIRY, GRACE, AT_ONCE = 2, 3, 4, 5
MOST = EXPIRY + GRACE + 1
"""In steps; the proportions are those of the profiles, roughly."""


class State(NamedTuple):
    """Of one run. Silence in steps, -1: ended; how long the guard has held it, -1: not; how long ago it ended."""

    silence: tuple[int, ...]
    held: tuple[int, ...]
    ended: tuple[int, ...]


def step(state: State, heard: tuple[bool, ...], share: float, *, broken: str = "") -> tuple[State, set[int]]:
    """One step: who is heard, what the guard says, who is ended. A host that ended comes back as another when heard."""
    hosts = range(len(heard))
    silence = [0 if heard[n] else age if age == -1 else min(age + 1, MOST) for n, age in enumerate(state.silence)]
    ended = [-1 if heard[n] else age if age == -1 else min(age + 1, AT_ONCE + 1) for n, age in enumerate(state.ended)]
    now = 1000
    before = Held(since={str(n): now - age - 1 for n, age in enumerate(state.held) if age >= 0})
    seen = [Seen(str(n), silence[n] >= LEASE, heard[n]) for n in hosts if silence[n] >= 0]
    seen += [Seen(str(n), silent=True, ended=True) for n in hosts if silence[n] < 0 and ended[n] <= AT_ONCE]
    held = look(before, seen, now, share=share)
    kept = set() if broken == "guard" else waiting(held, now, 10**6 if broken == "grace" else GRACE)
    gone = {n for n in hosts if silence[n] >= EXPIRY and str(n) not in kept}
    for n in gone:
        silence[n], ended[n] = -1, 0
    ages = tuple(min(now - held.since[str(n)], MOST) if str(n) in held.since and n not in gone else -1 for n in hosts)
    return State(tuple(silence), ages, tuple(ended)), gone


def explore(hosts: int, share: float, *, broken: str = "") -> int:
    """Every run until nothing new is reached; the number of states. Raises AssertionError with the run."""
    start = State((0,) * hosts, (-1,) * hosts, (-1,) * hosts)
    known = {start}
    todo = [start]
    for state in todo:
        for heard in itertools.product([True, False], repeat=hosts):
            after, gone = step(state, heard, share, broken=broken)
            check(state, heard, after, gone, share)
            # Which host is which makes no difference: one order stands for all.
            after = State(*zip(*sorted(zip(*after, strict=True)), strict=True))
            if after not in known:
                known.add(after)
                todo.append(after)
    return len(known)


def check(state: State, heard: tuple[bool, ...], after: State, gone: set[int], share: float) -> None:
    """What must hold at each step, whatever came before."""
    story = f"{state} heard {heard} -> {after}, ended {gone}"
    hosts = range(len(heard))
    silent = [n for n in hosts if not heard[n] and (state.silence[n] + 1 >= LEASE or 0 <= state.ended[n] < AT_ONCE)]
    total = [n for n in hosts if heard[n] or state.silence[n] >= 0 or 0 <= state.ended[n] < AT_ONCE]
    wide = len(silent) >= 2 and len(silent) > share * len(total)
    for n in gone:
        assert state.silence[n] + 1 >= EXPIRY, f"ended before its lease had: {story}"
        assert not wide or state.held[n] >= GRACE - 1, f"moved at once: {story}"
        assert not (wide and not any(heard)), f"moved by a leader that hears nobody: {story}"
    for n in hosts:
        if not heard[n] and not wide and state.silence[n] + 1 >= EXPIRY:
            assert n in gone, f"held back although few are silent: {story}"
        if any(heard) and state.silence[n] >= EXPIRY - 1 and state.held[n] >= GRACE - 1 and not heard[n]:
            assert n in gone, f"held back for ever: {story}"


@pytest.mark.parametrize(("hosts", "share"), [(2, 0.5), (3, 0.5), (3, 0.34), (4, 0.5)])
def test_no_run_moves_many_at_once_and_none_holds_for_ever(hosts: int, share: float) -> None:
    """All reachable states of 2, 3 and 4 hosts."""
    assert explore(hosts, share) > 50


@pytest.mark.parametrize(("broken", "sentence"), [("guard", "moved"), ("grace", "for ever")])
def test_a_guard_that_is_broken_is_caught(broken: str, sentence: str) -> None:
    """Mutation evidence."""
    with pytest.raises(AssertionError, match=sentence):
        explore(3, 0.5, broken=broken)


# --- the planner ------------------------------------------------------------------------------------------------------


class Leader:
    """A leader of some hosts, each with one agent; time goes by in ticks."""

    def __init__(self, world: World, hosts: int, *, share: float = 0.5) -> None:
        self.world = world
        self.leases = LeaderLeases(FAST)
        self.leases.elected()
        self.leases.first_commit(0)
        self.planner = Planner(share=share)
        self.now = 0
        self.hosts = [f"h{n}.1" for n in range(hosts)]
        world.pool()
        for n in range(hosts):
            world.host(f"h{n}")
            (uid,) = world.create(f"a-{n}")
            world.assign(uid, f"h{n}.1")
            world.report(uid, ready=True)
        self.pass_time(NS, self.hosts)

    def pass_time(self, ns: int, heard: list[str]) -> set[str]:
        """Who ended meanwhile."""
        before = {host.incarnation for host in self.world.registry.hosts.values() if host.alive}
        for _ in range(ns // FAST.tick_ns):
            self.now += FAST.tick_ns
            self.world.apply(c.Tick(step_ns=FAST.tick_ns))
            for incarnation in heard:
                self.leases.heartbeat(self.now, incarnation, 0)
            while found := self.planner.plan(self.world.registry, self.leases, self.now, self.now / NS):
                for command in found:
                    self.world.apply(command)
                    self.planner.settled(command)
        return before - {host.incarnation for host in self.world.registry.hosts.values() if host.alive}

    def silence(self, incarnation: str) -> str:
        return self.world.registry.hosts[incarnation].silence

    def node(self, number: int) -> str:
        return self.world.registry.agent(f"shop/a-{number}").node


SOON = FAST.expiry_ns + FAST.tick_ns


def test_one_lost_host_of_three_is_never_held_back(world: World) -> None:
    """The local cluster, and what failover is for."""
    leader = Leader(world, 3)
    assert leader.pass_time(SOON, leader.hosts[1:]) == {"h0.1"}
    assert leader.node(0) in ("node-h1", "node-h2")


def test_two_of_three_are_held_back_and_then_moved(world: World) -> None:
    """The demo must not hang: the leader goes on hearing the third."""
    leader = Leader(world, 3)
    assert leader.pass_time(SOON, leader.hosts[2:]) == set()
    assert [leader.silence(name) for name in leader.hosts] == ["Held", "Held", ""]
    assert leader.pass_time(grace_ns(FAST), leader.hosts[2:]) == {"h0.1", "h1.1"}
    assert {leader.node(n) for n in range(3)} == {"node-h2"}


def test_hosts_that_come_back_go_on_under_their_old_incarnations(world: World) -> None:
    """What the guard is for: a switch was restarted. Nothing moved, and no agent started anew."""
    leader = Leader(world, 4)
    epochs = {agent.id: agent.epoch for agent in world.registry.agents.values()}
    assert leader.pass_time(SOON + NS, leader.hosts[3:]) == set()
    assert leader.pass_time(10 * NS, leader.hosts) == set()
    assert [leader.silence(name) for name in leader.hosts] == [""] * 4
    assert {agent.id: agent.epoch for agent in world.registry.agents.values()} == epochs


def test_a_leader_that_hears_nobody_moves_nobody(world: World) -> None:
    """Its own links are the suspect, and there is nowhere to go. The grace period begins when one is heard."""
    leader = Leader(world, 3)
    assert leader.pass_time(60 * NS, []) == set()
    assert leader.pass_time(grace_ns(FAST) - 2 * FAST.tick_ns, leader.hosts[:1]) == set()
    assert leader.pass_time(4 * FAST.tick_ns, leader.hosts[:1]) == {"h1.1", "h2.1"}


def test_a_new_leader_that_hears_few_holds_back_the_others(world: World) -> None:
    """It was elected, and most hosts have not found it."""
    leader = Leader(world, 4)
    leader.leases.elected()
    leader.planner.reset()
    leader.leases.first_commit(leader.now)
    assert leader.pass_time(SOON + NS, leader.hosts[:1]) == set()
    assert leader.pass_time(5 * NS, leader.hosts) == set()


def test_an_operators_word_ends_the_wait_for_the_hosts_named(world: World) -> None:
    """`tenure failover confirm h0`; then `tenure failover confirm`."""
    leader = Leader(world, 3)
    leader.pass_time(SOON, leader.hosts[2:])
    assert not world.apply(c.ConfirmFailover(hosts=("h2",))).ok
    assert world.apply(c.ConfirmFailover(hosts=("h0",))).ok
    assert leader.silence("h0.1") == "Confirmed"
    assert leader.pass_time(FAST.tick_ns, leader.hosts[2:]) == {"h0.1"}
    assert leader.silence("h1.1") == "Held"
    assert world.apply(c.ConfirmFailover()).ok
    assert leader.pass_time(FAST.tick_ns, leader.hosts[2:]) == {"h1.1"}


def test_a_confirmation_outlives_its_leader_and_not_a_sign_of_life(world: World) -> None:
    """It is in the registry; a host that is heard again is no longer confirmed dead."""
    leader = Leader(world, 3)
    leader.pass_time(SOON, leader.hosts[2:])
    world.apply(c.ConfirmFailover())
    leader.leases.elected()
    leader.planner.reset()
    leader.leases.first_commit(leader.now)
    leader.pass_time(FAST.ttl_ns, leader.hosts[1:])
    assert [leader.silence(name) for name in leader.hosts] == ["Confirmed", "", ""]
    assert leader.pass_time(SOON - FAST.ttl_ns, leader.hosts[1:]) == {"h0.1"}


def test_the_guard_can_be_switched_off_and_never_holds_a_pair_of_many(world: World) -> None:
    """`--failover-guard 1`; and two of four are not more than half."""
    assert Leader(world, 3, share=1.0).pass_time(SOON, ["h2.1"]) == {"h0.1", "h1.1"}
    assert Leader(World(), 4).pass_time(SOON, ["h2.1", "h3.1"]) == {"h0.1", "h1.1"}


def test_losses_a_while_apart_are_not_at_once(world: World) -> None:
    """Three of four, one after the other."""
    leader = Leader(world, 4)
    gone: set[str] = set()
    for number in range(3):
        gone |= leader.pass_time(AT_ONCE_NS + SOON, leader.hosts[number + 1 :])
        assert len(gone) == number + 1


def test_a_second_process_under_the_same_name_is_no_lost_host(world: World) -> None:
    """Two incarnations of each name may live (protocol 1, no_supersede): the old ones end by their time."""
    leader = Leader(world, 3)
    new = [world.host(f"h{n}", incarnation=f"h{n}.2") for n in range(3)]
    assert leader.pass_time(SOON, new) == set(leader.hosts)


def test_what_is_looked_at_says_how_many_of_how_many() -> None:
    """For status and doctor."""
    seen = [Seen("a", silent=True), Seen("b", silent=True), Seen("c", silent=False)]
    held = look(NOTHING_HELD, seen, 5)
    assert (held.silent, held.total, dict(held.since)) == (2, 3, {"a": 5, "b": 5})
    assert grace_ns(BALANCED) == 3 * BALANCED.expiry_ns
