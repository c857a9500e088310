"""Placement: filters, the strategy, the explanation, and what users read when nothing fits."""

from collections import Counter

import pytest
from core_world import COUNTER, World

from tenured.core import commands as c
from tenured.core.model import AgentClass, Node, Taint
from tenured.core.placement import EXPLANATION_BYTES, Placement, place


def put(world: World, **options: object) -> list[Placement]:
    agents = [world.registry.agents[uid] for uid in sorted(world.registry.unheld, key=int)]
    return place(world.registry, agents, **options)


def one(world: World, **options: object) -> Placement:
    return put(world, **options)[0]


def test_agents_spread_evenly_over_equal_hosts(world: World) -> None:
    """LoadBalanced: fewest agents for the size."""
    world.pool()
    for n in range(4):
        world.host(f"h{n}", cpu_milli=4000)
    world.create(*(f"a-{n}" for n in range(10)))
    assert sorted(Counter(found.host for found in put(world)).values()) == [2, 2, 3, 3]


def test_larger_hosts_take_more(world: World) -> None:
    """In proportion to their size; one of unknown size comes last."""
    world.pool()
    world.host("big", cpu_milli=8000)
    world.host("small", cpu_milli=2000)
    world.host("unknown")
    world.create(*(f"a-{n}" for n in range(10)))
    assert Counter(found.host for found in put(world)) == {"big": 8, "small": 2}


def test_what_a_host_holds_counts(world: World) -> None:
    """Also what was assigned before."""
    world.pool()
    world.host("h0", cpu_milli=1000)
    world.host("h1", cpu_milli=1000)
    for uid in world.create("a", "b", "c"):
        world.assign(uid, "h0.1")
    world.create("d", "e", "f")
    assert {found.host for found in put(world)} == {"h1"}


def test_ties_are_broken_by_the_uid_and_repeatably(world: World) -> None:
    """Not always the first host; the same input gives the same result, another seed another one."""
    world.pool()
    for n in range(8):
        world.host(f"h{n}", cpu_milli=1000)
    winners = set()
    for n in range(12):
        (uid,) = world.create(f"a-{n}")
        agent = world.agent(uid)
        first = place(world.registry, [agent], seed=n)[0]
        assert first == place(world.registry, [agent], seed=n)[0]
        winners.add(first.host)
    assert len(winners) > 3


def test_requests_must_fit(world: World) -> None:
    """Against capacity; an unknown capacity bears anything."""
    world.pool()
    world.host("h0", cpu_milli=1000, memory_bytes=100)
    world.host("unknown")
    world.create("cpu", cpu_milli=2000)
    world.create("memory", memory_bytes=101)
    world.create("both", cpu_milli=600, memory_bytes=60)
    world.create("again", cpu_milli=600, memory_bytes=60)
    assert [found.host for found in put(world)] == ["unknown", "unknown", "h0", "unknown"]


def test_a_pools_limit_is_kept(world: World) -> None:
    """maxAgentsPerHost counts what is there and what is placed."""
    world.pool(limit=2)
    world.host("h0")
    world.host("h1")
    world.assign(world.create("a")[0], "h0.1")
    world.create("b", "c", "d", "e")
    found = put(world)
    assert Counter(f.host for f in found) == {"h0": 1, "h1": 2, "": 1}
    assert found[-1].reason == "NoHostFits"
    assert found[-1].message == "Waiting: no host of pool default fits (2 full)"


def test_the_filters_and_their_sentence(world: World) -> None:
    """Every rejection is counted under its name."""
    world.pool("default", "gpu")
    world.host("other-pool", pool="gpu")
    world.host("no-worker", ready=False)
    world.host("cordoned", "n-cordoned")
    world.host("silent")
    world.host("draining")
    world.host("elsewhere")
    world.expire(world.host("dead"))
    world.apply(c.ReportHost(incarnation="draining.1", ready=True, draining=True, classes=COUNTER))
    world.apply(c.SetNodes(nodes=(Node(name="n-cordoned", schedulable=False),)))
    world.create("a", node_selector={"zone": "a"})
    found = one(world, avoid={"silent.1"})
    assert found.reason == "NoHostFits"
    assert found.message == (
        "Waiting: no host of pool default fits (1 cordoned, 1 draining, 1 not selected, 1 silent, 1 without a worker)"
    )
    assert found.next_action


def test_selectors_look_at_labels_of_the_node_and_of_the_host(world: World) -> None:
    """Both count; the node's win."""
    world.pool()
    world.host("h0", "n0", labels={"zone": "a", "disk": "ssd"})
    world.host("h1", "n1", labels={"zone": "a"})
    world.apply(c.SetNodes(nodes=(Node(name="n0", labels={"zone": "b"}), Node(name="n1"))))
    world.create("a", node_selector={"zone": "b", "disk": "ssd"})
    world.create("b", node_selector={"zone": "a"})
    assert [found.host for found in put(world)] == ["h0", "h1"]


def test_an_unknown_pool_or_class_names_the_near_ones(world: World) -> None:
    """Issue 3, bad input: one clear sentence."""
    world.pool("default", "gpu")
    world.host("h0")
    world.create("a", pool="gpuu")
    world.create("b", class_name="Countr")
    world.create("c", class_name="Zzz")
    world.create("d", pool="gpu")
    found = {f.uid: (f.reason, f.message) for f in put(world)}
    assert list(found.values()) == [
        ("PoolNotFound", "Waiting: the cluster has no pool gpuu (did you mean gpu?)"),
        ("ClassNotFound", "Waiting: pool default has no class Countr (did you mean Counter?)"),
        ("ClassNotFound", "Waiting: pool default has no class Zzz (it has Counter)"),
        ("NoHostFits", "Waiting: pool gpu has no host yet"),
    ]


def test_without_any_pool_there_is_no_guess(world: World) -> None:
    """Nothing to name."""
    world.create("a")
    assert one(world).message == "Waiting: the cluster has no pool default"


@pytest.mark.parametrize("reason", ["ImportFailed", "VersionSkew", "SomethingNew"])
def test_an_import_error_is_what_the_user_reads(world: World, reason: str) -> None:
    """The worker's own words, under its reason."""
    world.pool()
    world.host("h0", ready=False)
    error = "No module named 'shop'"
    world.apply(c.ReportHost(incarnation="h0.1", worker_error=error, worker_reason=reason))
    world.create("a")
    found = one(world)
    assert (found.reason, found.message) == (
        reason,
        "Waiting: no worker of pool default serves: No module named 'shop'",
    )


def test_a_class_of_any_ready_host_is_known(world: World) -> None:
    """While a pool rolls out, some hosts lack the new class: no host fits, but the class exists."""
    world.pool()
    world.host("old")
    world.host("new", classes=(*COUNTER, AgentClass(name="New")))
    world.create("a", class_name="New")
    assert one(world).host == "new"
    assert one(world, avoid={"new.1"}).message == (
        "Waiting: no host of pool default fits (1 silent, 1 without the class)"
    )


def test_an_agent_that_is_not_critical_waits_for_its_node(world: World) -> None:
    """API.md 2: marked Unavailable instead of moved when its host is lost; moved if it was released."""
    world.pool()
    world.host("h0", "n0")
    world.host("h1", "n1")
    (uid,) = world.create("a", critical=False)
    world.assign(uid, "h0.1")
    world.expire("h0.1")
    assert one(world).incarnation == ""
    world.host("h0", "n0", incarnation="h0.2")
    assert one(world).incarnation == "h0.2"
    world.assign(uid, "h0.2")
    world.report(uid, released=True)
    world.expire("h0.2")
    assert one(world).host == "h1"


def test_the_explanation_has_winner_runners_up_and_rejections(world: World) -> None:
    """DESIGN.md 3, invariant 6."""
    world.pool()
    for n, size in enumerate((8, 4, 2, 1)):
        world.host(f"h{n}", cpu_milli=size * 1000)
    world.host("full", ready=False)
    world.create("a")
    assert one(world).explanation == "h0 0.12; then h1 0.25, h2 0.50; rejected: 1 without a worker"


def test_an_explanation_is_bounded(world: World) -> None:
    """At most 256 B, whatever hosts are called."""
    world.pool()
    for n in range(3):
        world.host(f"höst-{n}-" + "x" * 120)
    world.create("a")
    text = one(world).explanation
    assert len(text.encode()) <= EXPLANATION_BYTES
    assert text.startswith("höst-")


def test_reasons_are_bounded_too(world: World) -> None:
    """Whatever taints are called, and however many kinds of rejections there are."""
    world.pool()
    for n in range(20):
        world.host(f"h{n:02}", f"n{n}")
    taints = {f"n{n}": Taint(key=f"{n:02}-" + "y" * 300) for n in range(1, 20)}
    nodes = (Node(name=name, taints=(taint,)) for name, taint in taints.items())
    world.apply(c.SetNodes(nodes=(Node(name="n0"), *nodes)))
    world.create("a")
    text = one(world).explanation
    assert text.startswith("h00 1.00; rejected: 1 tainted 01-y")
    assert 200 < len(text.encode()) <= EXPLANATION_BYTES
    message = one(world, avoid={"h00.1"}).message
    assert message.endswith("14 otherwise)")
    assert len(message) < 600


def test_ten_thousand_at_once(world: World) -> None:
    """As evenly as one by one. What it takes: `bench.placement`."""
    world.pool()
    for n in range(100):
        world.host(f"h{n}", cpu_milli=4000)
    world.create(*(f"a-{n}" for n in range(10_000)))
    found = put(world)
    assert set(Counter(f.host for f in found).values()) == {100}
