"""Capabilities, taints and quarantine, each strategy, spread, a dry run, the sum of resources."""

from collections import Counter

import msgspec
import pytest
from core_world import COUNTER, World

from tenured.core import commands as c
from tenured.core.agentspec import Spread, Toleration
from tenured.core.model import Node, Pool, Taint
from tenured.core.placement import STRATEGIES, Placement, dry_run, newcomer, place, rooms
from tenured.core.placement.strategies import WEIGHTS

ZONE = "topology.kubernetes.io/zone"


def one(world: World, name: str = "a", **spec: object) -> Placement:
    """Create one agent and place it alone."""
    (uid,) = world.create(name, **spec)
    return place(world.registry, [world.agent(uid)])[0]


def carry_out(world: World, *uids: str, **options: object) -> list[str]:
    """Place together, assign, and say where."""
    found = place(world.registry, [world.agent(uid) for uid in uids], **options)
    for each in found:
        if each.incarnation:
            world.assign(each.uid, each.incarnation)
    return [each.host for each in found]


def zones(world: World, **zone_of: str) -> None:
    """node -> zone."""
    world.apply(
        c.SetNodes(nodes=tuple(Node(name=name, labels={ZONE: zone} if zone else {}) for name, zone in zone_of.items()))
    )


# --- filters --------------------------------------------------------------------------------------------------------


def test_a_missing_capability_is_said_in_one_sentence_and_is_waited_for(world: World) -> None:
    """DESIGN.md 10; TOPO-09: never an incapable host, and the agent runs as soon as one has it."""
    world.pool()
    world.host("plain")
    found = one(world, requires=("gpu",))
    assert (found.reason, found.message) == ("CapabilityMissing", "Waiting: no host has capability gpu")
    assert found.next_action
    world.host("strong", capabilities=("gpu",))
    assert place(world.registry, [world.registry.agents[found.uid]])[0].host == "strong"


def test_capabilities_of_the_pool_count_and_several_must_be_at_one_host(world: World) -> None:
    world.apply(c.ApplyPools(pools=(Pool(name="default", capabilities=("eu",)),)))
    world.host("a", capabilities=("gpu",))
    world.host("b", capabilities=("ssd",))
    assert one(world, "x", requires=("eu", "gpu")).host == "a"
    assert one(world, "y", requires=("ssd", "gpu")).message == "Waiting: no host has capabilities gpu and ssd at once"
    assert (
        one(world, "z", requires=("tpu", "gpq")).message
        == "Waiting: no host has capabilities gpq and tpu (did you mean gpu?)"
    )


def test_taints_of_pool_and_node_must_be_tolerated(world: World) -> None:
    """By key, by key and value, or all; what the pool's own pods tolerate of a node keeps nobody away."""
    own = (Taint(key="dedicated", value="db"),)
    world.apply(c.ApplyPools(pools=(Pool(name="default", taints=own, tolerations=(Toleration(key="gpu"),)),)))
    world.host("h", "n")
    world.apply(c.SetNodes(nodes=(Node(name="n", taints=(Taint(key="gpu"), Taint(key="spot"))),)))
    assert one(world, "none").message == "Waiting: no host of pool default fits (1 tainted dedicated=db)"
    dedicated = Toleration(key="dedicated", value="db")
    assert "tainted spot" in one(world, "half", tolerations=(dedicated,)).message
    assert "tainted dedicated=db" in one(world, "other", tolerations=(Toleration(key="dedicated", value="x"),)).message
    assert one(world, "both", tolerations=(Toleration(key="spot"), dedicated)).host == "h"
    assert one(world, "every", tolerations=(Toleration(key=""),)).host == "h"


def test_of_several_broken_workers_the_same_one_is_named(world: World) -> None:
    """The order in which hosts registered says nothing."""
    world.pool()
    for name in ("h1", "h0"):
        world.host(name, ready=False)
        world.apply(c.ReportHost(incarnation=f"{name}.1", worker_error=f"broken at {name}"))
    assert one(world).message == "Waiting: no worker of pool default serves: broken at h0"


def test_a_preferred_taint_makes_a_host_the_second_choice(world: World) -> None:
    world.pool()
    world.host("spot", "n", cpu_milli=64000)
    world.host("small", cpu_milli=1000)
    world.apply(c.SetNodes(nodes=(Node(name="n", taints=(Taint(key="spot", effect="PreferNoSchedule"),)),)))
    assert one(world, "a").host == "small"
    assert one(world, "b", tolerations=(Toleration(key="spot"),)).host == "spot"
    assert one(world, "c", cpu_milli=2000).host == "spot"


def test_a_quarantined_host_takes_nothing_new_and_keeps_what_it_has(world: World) -> None:
    world.pool()
    world.host("h0")
    (uid,) = world.create("old")
    world.assign(uid, "h0.1")
    world.apply(c.QuarantineHost(name="h0", reason="disk errors"))
    assert one(world, "new").message == "Waiting: no host of pool default fits (1 quarantined)"
    assert world.agent(uid).host == "h0"
    world.apply(c.QuarantineHost(name="h0"))
    assert one(world, "newer").host == "h0"


def test_a_suspect_row_is_as_good_as_a_silent_host(world: World) -> None:
    world.pool()
    world.host("h0")
    world.apply(c.ClassifyHosts(items=(c.HostClass("h0.1", suspect=True),)))
    assert one(world).message == "Waiting: no host of pool default fits (1 silent)"


def test_a_host_that_starts_all_it_may_is_busy_and_not_silent(world: World) -> None:
    """Pacing of failover: the explanation tells the two apart."""
    world.pool()
    world.host("h0")
    world.host("h1")
    world.host("h2")
    (uid,) = world.create("a")
    (found,) = place(world.registry, [world.agent(uid)], avoid={"h1.1"}, busy={"h0.1"})
    assert found.explanation == "h2 1.00; rejected: 1 busy starting others, 1 silent"
    (found,) = place(world.registry, [world.agent(uid)])
    assert "rejected" not in found.explanation


def test_reservations_are_no_room(world: World) -> None:
    """What is reserved is not given to others."""
    world.pool()
    world.host("h0", cpu_milli=1000)
    row = c.Reservation(id="r", incarnation="h0.1", cpu_milli=800, agents=1, until_ns=10**9)
    assert world.apply(c.Reserve(reservation=row)).ok
    assert one(world, cpu_milli=300).message == "Waiting: no host of pool default fits (1 short of cpu)"
    world.apply(c.Unreserve(id="r"))
    assert one(world, "b", cpu_milli=300).host == "h0"


# --- strategies -----------------------------------------------------------------------------------------------------


def test_the_least_loaded_host_is_chosen(world: World) -> None:
    """TOPO-08: with loads 0.9, 0.5, 0.1 the third; one that reported none counts as fully loaded."""
    world.pool()
    for n in range(4):
        world.host(f"h{n}", cpu_milli=1000)
    (uid,) = world.create("a")
    loads = {"h0.1": 0.9, "h1.1": 0.5, "h2.1": 0.1}
    assert place(world.registry, [world.agent(uid)], loads=loads)[0].host == "h2"
    assert carry_out(world, *world.create("b", "c", "d", "e"), loads=loads) == ["h2", "h1", "h0", "h3"]


def test_capability_matched_keeps_scarce_hosts_free(world: World) -> None:
    """Nothing unasked first; the strong host when it is asked for, or when nothing else has room."""
    world.pool(limit=2)
    world.host("plain")
    world.host("strong", capabilities=("gpu", "ssd"), cpu_milli=64000)
    matched = {"strategy": "CapabilityMatched"}
    assert carry_out(world, *world.create("a", "b", "c", **matched)) == ["plain", "plain", "strong"]
    assert (
        one(world, "d", requires=("gpu",), **matched).explanation
        == "CapabilityMatched: strong 1 unasked, 0.03; rejected: 1 without capability gpu"
    )


def test_leader_only_gathers_all_on_the_host_that_serves_longest(world: World) -> None:
    """ADR 0016; TOPO-10: the next in seniority takes over, with all of them."""
    world.pool()
    for n, name in enumerate(("third", "first", "second")):
        world.host(name)
        row = world.registry.hosts[f"{name}.1"]
        world.registry.put(msgspec.structs.replace(row, registered_wall=100.0 * (3, 1, 2)[n]))
    uids = world.create("a", "b", "c", strategy="LeaderOnly")
    assert carry_out(world, *uids) == ["first"] * 3
    assert one(world, "d", strategy="LeaderOnly").explanation.startswith(
        "LeaderOnly: first since 00:01:40Z; then second"
    )
    world.expire("first.1")
    assert carry_out(world, *uids) == ["second"] * 3


def test_random_is_uniform_and_repeatable(world: World) -> None:
    """TOPO-11: 1,000 placements over 3 hosts, chi-square below the 0.1 % bound of 2 degrees of freedom; alone and in a
    batch. Another seed draws others.
    """
    world.pool()
    for n in range(3):
        world.host(f"h{n}")
    uids = world.create(*(f"a-{n}" for n in range(1000)), strategy="Random")
    agents = [world.agent(uid) for uid in uids]
    batch = [found.host for found in place(world.registry, agents)]
    alone = [place(world.registry, [agent])[0].host for agent in agents]
    for draws in (batch, alone):
        counts = Counter(draws)
        assert sum((counts[f"h{n}"] - 1000 / 3) ** 2 / (1000 / 3) for n in range(3)) < 13.8
    assert batch == [found.host for found in place(world.registry, agents)]
    assert batch != [found.host for found in place(world.registry, agents, seed=1)]


def test_local_preferred_goes_by_host_node_and_zone(world: World) -> None:
    """TOPO-12: near another agent while there is room; then the nearest."""
    world.pool(limit=2)
    for host, node in (("h0", "n0"), ("h1", "n0"), ("h2", "n1"), ("h3", "n2")):
        world.host(host, node, cpu_milli=64000 if host == "h3" else 1000)
    zones(world, n0="a", n1="a", n2="b")
    (friend,) = world.create("friend")
    world.assign(friend, "h0.1")
    near = {"strategy": "LocalPreferred", "near": "shop/friend"}
    assert carry_out(world, *world.create("a", "b", "c", "d", **near)) == ["h0", "h1", "h1", "h2"]
    assert "h2 same zone" in one(world, "e", **near).explanation
    assert one(world, "f", strategy="LocalPreferred", near="n2").host == "h3"


def test_local_preferred_goes_back_to_where_it_was(world: World) -> None:
    """Without `near`: the last node."""
    world.pool()
    world.host("h0", "n0")
    world.host("h1", "n1", cpu_milli=64000)
    (uid,) = world.create("a", strategy="LocalPreferred")
    world.assign(uid, "h0.1")
    world.report(uid, released=True)
    assert carry_out(world, uid) == ["h0"]


def test_optimal_weighs_free_resources_agents_distance_and_likeness(world: World) -> None:
    """LB-30: the weights add up to 1; a dry run prints the parts. TOPO-13."""
    assert sum(WEIGHTS.values()) == pytest.approx(1)
    world.pool()
    world.host("full", cpu_milli=1000, memory_bytes=1000)
    world.host("free", cpu_milli=1000, memory_bytes=1000)
    world.host("unknown")
    (uid,) = world.create("old", cpu_milli=800, memory_bytes=100)
    world.assign(uid, "full.1")
    (new,) = world.create("new", cpu_milli=100, memory_bytes=100, strategy="Optimal")
    trial = dry_run(world.registry, world.agent(new))
    assert [verdict.host for verdict in trial.verdicts] == ["free", "full", "unknown"]
    assert trial.verdicts[0].score == "0.16"
    assert trial.verdicts[0].detail == (
        "cpu 0.10 x 0.3, memory 0.10 x 0.3, agents 0.00 x 0.2, locality 1.00 x 0.1, spread 0.00 x 0.05, "
        "capability 0.00 x 0.05"
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_unknown_capacity_comes_last_where_size_counts(world: World, strategy: str) -> None:
    """RES-10: a host whose figures are missing is chosen last."""
    world.pool()
    world.host("unknown")
    world.host("small", cpu_milli=100, memory_bytes=10)
    (uid,) = world.create("a", strategy=strategy)
    host = place(world.registry, [world.agent(uid)])[0].host
    assert host == "small" if strategy not in ("LeaderOnly", "Random") else host in ("small", "unknown")


# --- spread ---------------------------------------------------------------------------------------------------------


def test_agents_of_a_class_spread_over_zones(world: World) -> None:
    """Although one zone has more hosts and larger ones."""
    world.pool()
    for host, node in (("a1", "na1"), ("a2", "na2"), ("a3", "na3"), ("b1", "nb1")):
        world.host(host, node, cpu_milli=8000 if host.startswith("a") else 1000)
    zones(world, na1="a", na2="a", na3="a", nb1="b")
    hosts = carry_out(world, *world.create(*(f"x-{n}" for n in range(6)), spread=(Spread(by="Zone"),)))
    assert Counter(host[0] for host in hosts) == {"a": 3, "b": 3}
    hosts = carry_out(world, *world.create(*(f"y-{n}" for n in range(3)), spread=(Spread(by="Zone", max_skew=3),)))
    assert Counter(host[0] for host in hosts) == {"a": 3}


def test_what_is_placed_one_by_one_spreads_too(world: World) -> None:
    """The count is of what hosts hold, not of the batch."""
    world.pool()
    world.host("h0", cpu_milli=64000)
    world.host("h1", cpu_milli=1000)
    hosts = [carry_out(world, *world.create(f"x-{n}", spread=(Spread(by="Host"),)))[0] for n in range(6)]
    assert Counter(hosts) == {"h0": 3, "h1": 3}


def test_a_group_reaches_over_classes_and_not_over_namespaces(world: World) -> None:
    world.pool()
    for n in range(2):
        world.host(f"h{n}", cpu_milli=(64000, 1000)[n], classes=(*COUNTER, c.AgentClass(name="Other")))
    group = (Spread(by="Host", group="billing"),)
    first = carry_out(world, *world.create("a", spread=group))
    second = carry_out(world, *world.create("b", class_name="Other", spread=group))
    assert [*first, *second] == ["h0", "h1"]
    spec = c.AgentSpec(id="mall/a", class_name="Counter", spread=group)
    world.apply(c.ApplyAgents(agents=(spec,), managed_by="API"))
    assert carry_out(world, world.registry.by_id["mall/a"]) == ["h0"]


def test_a_zone_without_room_holds_nobody_up(world: World) -> None:
    """Only places that have room are compared: an agent that runs is worth more than an even count."""
    world.pool(limit=1)
    for n in range(4):
        world.host(f"h{n}", f"n{n}")
    zones(world, n0="a", n1="b", n2="b", n3="b")
    assert "" not in carry_out(world, *world.create(*(f"x-{n}" for n in range(4)), spread=(Spread(by="Zone"),)))


def test_a_rule_that_nobody_can_keep_is_passed_over_and_said(world: World) -> None:
    """The first rule counts most."""
    world.pool(limit=3)
    world.host("a", "na")
    world.host("b1", "nb1")
    world.host("b2", "nb2")
    zones(world, na="a", nb1="b", nb2="b")
    rules = (Spread(by="Zone"), Spread(by="Host"))
    uids = world.create(*(f"x-{n}" for n in range(6)), spread=rules)
    found = place(world.registry, [world.agent(uid) for uid in uids])
    assert Counter(each.host[0] for each in found) == {"a": 3, "b": 3}
    assert any("spread by Host not kept" in each.explanation for each in found)


def test_hosts_of_unknown_zone_are_one_zone(world: World) -> None:
    world.pool()
    for n in range(3):
        world.host(f"h{n}", f"n{n}")
    zones(world, n0="a")
    hosts = carry_out(world, *world.create(*(f"x-{n}" for n in range(4)), spread=(Spread(by="Zone"),)))
    assert Counter(host == "h0" for host in hosts) == {True: 2, False: 2}


# --- on paper -------------------------------------------------------------------------------------------------------


def test_a_dry_run_has_a_verdict_on_every_host_and_changes_nothing(world: World) -> None:
    """Score and rank, or the filter; the winner is the one that `place` takes."""
    world.pool("default", "gpu", limit=1)
    world.host("small", cpu_milli=500)
    world.host("good", cpu_milli=4000)
    world.host("better", cpu_milli=8000)
    world.host("idle", ready=False)
    world.host("foreign", pool="gpu")
    world.assign(world.create("old")[0], world.host("busy", cpu_milli=8000))
    before = world.registry.snapshot()
    spec = c.AgentSpec(id="shop/new", class_name="Counter", cpu_milli=1000)
    trial = dry_run(world.registry, newcomer(spec))
    assert [(v.host, v.rank, v.score, v.rejected) for v in trial.verdicts] == [
        ("better", 1, "0.12", ""),
        ("good", 2, "0.25", ""),
        ("busy", 0, "", "maxAgents"),
        ("foreign", 0, "", "pool"),
        ("idle", 0, "", "readiness"),
        ("small", 0, "", "cpu"),
    ]
    assert (trial.placement.host, trial.node) == ("better", "node-better")
    assert world.registry.snapshot() == before
    assert dry_run(world.registry, newcomer(spec)) == trial


def test_a_dry_run_says_which_places_are_too_full_for_the_spread(world: World) -> None:
    world.pool()
    world.host("h0", "n0", cpu_milli=64000)
    world.host("h1", "n1")
    zones(world, n0="a", n1="b")
    carry_out(world, *world.create("x", spread=(Spread(by="Zone"),)))
    trial = dry_run(
        world.registry, newcomer(c.AgentSpec(id="shop/y", class_name="Counter", spread=(Spread(by="Zone"),)))
    )
    assert [(v.host, v.rejected, v.why) for v in trial.verdicts] == [
        ("h1", "", ""),
        ("h0", "spread", "zone a holds 1, the emptiest 0"),
    ]


def test_a_dry_run_without_its_pool(world: World) -> None:
    world.pool("default")
    world.host("h0")
    trial = dry_run(world.registry, newcomer(c.AgentSpec(id="shop/y", class_name="Counter", pool="defautl")))
    assert trial.placement.message == "Waiting: the cluster has no pool defautl (did you mean default?)"
    assert [v.rejected for v in trial.verdicts] == ["pool"]


# --- resources ------------------------------------------------------------------------------------------------------


def test_resources_by_node_and_in_all(world: World) -> None:
    """RES-02, RES-04: capacity less what is used and reserved; a node that is gone is unavailable, not missing."""
    world.pool()
    world.host("h0", "n0", cpu_milli=4000, memory_bytes=1000)
    world.host("h1", "n1", cpu_milli=2000)
    world.host("h2", "n2", cpu_milli=2000, memory_bytes=500)
    world.apply(c.SetNodes(nodes=(Node(name="n0", labels={ZONE: "a"}), Node(name="n3"))))
    (uid,) = world.create("a", cpu_milli=1000, memory_bytes=100)
    world.assign(uid, "h0.1")
    row = c.Reservation(id="r", incarnation="h0.1", cpu_milli=500, memory_bytes=200, agents=1, until_ns=10**9)
    world.apply(c.Reserve(reservation=row))
    world.create("b", "c")
    world.expire("h2.1")
    found = rooms(world.registry, loads={"h0.1": 0.25})
    nodes = {node.node: node for node in found.nodes}
    assert [(n.node, n.available, n.why) for n in found.nodes] == [
        ("n0", True, ""),
        ("n1", True, ""),
        ("n2", False, "h2 ended (LeaseExpired)"),
        ("n3", False, "it has no host"),
    ]
    room = nodes["n0"].room
    assert (room.cpu_capacity, room.cpu_used, room.cpu_reserved, room.cpu_free) == (4000, 1000, 500, 2500)
    assert (room.memory_capacity, room.memory_used, room.memory_reserved, room.memory_free) == (1000, 100, 200, 700)
    assert (room.agents, nodes["n0"].zone, nodes["n0"].load, nodes["n1"].load) == (1, "a", 0.25, -1.0)
    assert (found.total.cpu_capacity, found.total.cpu_free, found.total.capacity_known) == (6000, 4500, False)
    assert (found.waiting, found.agents) == (2, 3)


def test_a_node_says_why_it_takes_nothing_new(world: World) -> None:
    world.pool()
    world.host("h0", "n0")
    world.host("h1", "n1")
    world.host("h2", "n2")
    world.host("h3", "n3", ready=False)
    world.apply(c.SetNodes(nodes=(Node(name="n0", schedulable=False),)))
    world.apply(c.QuarantineHost(name="h1", reason="disk"))
    found = rooms(world.registry, avoid={"h2.1"})
    assert [(node.available, node.why) for node in found.nodes] == [
        (True, "cordoned"),
        (True, "h1 is quarantined: disk"),
        (False, "h2 is silent"),
        (True, "h3 has no worker"),
    ]


def test_a_lost_node_is_shown_as_long_as_its_agents_wait(world: World) -> None:
    """Also where no operator tells of nodes, and after the row of the host is forgotten."""
    world.pool()
    world.host("h0", "n0")
    (uid,) = world.create("a")
    world.assign(uid, "h0.1")
    world.expire("h0.1")
    world.apply(c.ForgetHosts(incarnations=("h0.1",)))
    (node,) = rooms(world.registry).nodes
    assert (node.node, node.available) == ("n0", False)
