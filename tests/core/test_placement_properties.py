"""Placement over random clusters: never too much, never the wrong host, never nowhere while a host would do.

The oracle is written anew, host by host and without heaps, caches or cells.
"""

from collections import Counter

import msgspec
from core_world import COUNTER, World
from hypothesis import given
from hypothesis import strategies as st

from tenured.core import commands as c
from tenured.core.agentspec import STRATEGIES, Spread, Toleration
from tenured.core.model import Agent, Host, Node, Pool, Taint
from tenured.core.placement import EXPLANATION_BYTES, Placement, dry_run, place
from tenured.core.registry import Registry, Usage

ZONE = "topology.kubernetes.io/zone"
WORDS = ("gpu", "ssd")
taint_lists = st.lists(st.sampled_from([Taint(key="t"), Taint(key="t", value="v"), Taint(key="u")]), max_size=2)
host_shapes = st.fixed_dictionaries(
    {
        "cpu": st.sampled_from([0, 100, 300, 1000]),
        "memory": st.sampled_from([0, 100, 300]),
        "node": st.integers(0, 3),
        "pool": st.sampled_from(["default", "default", "gpu"]),
        "ready": st.sampled_from([True, True, True, False]),
        "capabilities": st.sets(st.sampled_from(WORDS)),
        "quarantined": st.sampled_from([False, False, True]),
        "suspect": st.sampled_from([False, False, True]),
    }
)
node_shapes = st.fixed_dictionaries(
    {"zone": st.sampled_from(["", "a", "b"]), "schedulable": st.booleans(), "taints": taint_lists}
)
agent_shapes = st.fixed_dictionaries(
    {
        "strategy": st.sampled_from(STRATEGIES),
        "cpu_milli": st.sampled_from([0, 50, 100, 250]),
        "memory_bytes": st.sampled_from([0, 50, 100]),
        "requires": st.sampled_from([(), (), ("gpu",), ("gpu", "ssd")]),
        "tolerations": st.sampled_from([(), (Toleration(key="t"),), (Toleration(key=""),)]),
        "spread": st.sampled_from(
            [
                (),
                (Spread(by="Zone"),),
                (Spread(by="Node"),),
                (Spread(by="Host", max_skew=2, group="g"), Spread(by="Zone")),
            ]
        ),
        "node_selector": st.sampled_from([{}, {}, {"disk": "fast"}]),
        "near": st.sampled_from(["", "shop/a0", "n1"]),
    }
)
clusters = st.tuples(
    st.lists(host_shapes, min_size=1, max_size=6),
    st.lists(node_shapes, min_size=4, max_size=4),
    st.lists(agent_shapes, min_size=1, max_size=8),
    st.integers(0, 3),
    st.lists(st.sampled_from([(50, 0), (0, 50), (200, 100)]), max_size=2),
)


def build(shape: tuple, *, backwards: bool = False) -> tuple[World, list[Agent]]:
    """The cluster, with half of the agents placed one by one; `backwards`: hosts register in the opposite order."""
    hosts, nodes, agents, limit, reserved = shape
    world = World()
    pools = (Pool(name="default", max_agents_per_host=limit, taints=(Taint(key="u"),)), Pool(name="gpu"))
    world.apply(c.ApplyPools(pools=pools))
    rows = [
        Node(
            name=f"n{n}",
            schedulable=node["schedulable"] or n == 0,
            labels={"disk": "fast" if n % 2 else "slow"} | ({ZONE: node["zone"]} if node["zone"] else {}),
            taints=tuple(node["taints"]),
        )
        for n, node in enumerate(nodes)
    ]
    world.apply(c.SetNodes(nodes=tuple(rows)))
    numbered = list(enumerate(hosts))
    for n, host in reversed(numbered) if backwards else numbered:
        world.host(
            f"h{n}", f"n{host['node']}", pool=host["pool"], ready=host["ready"], classes=COUNTER,
            cpu_milli=host["cpu"], memory_bytes=host["memory"], capabilities=tuple(sorted(host["capabilities"])),
        )  # fmt: skip
        world.apply(c.ClassifyHosts(items=(c.HostClass(f"h{n}.1", suspect=host["suspect"]),)))
        if host["quarantined"]:
            world.apply(c.QuarantineHost(name=f"h{n}", reason="x"))
    for n, (cpu_milli, memory_bytes) in enumerate(reserved):  # refused where there is no room
        kept = c.Reservation(
            id=f"r{n}", incarnation="h0.1", cpu_milli=cpu_milli, memory_bytes=memory_bytes, agents=1, until_ns=10**9
        )
        world.apply(c.Reserve(reservation=kept))
    uids = [world.create(f"a{n}", **agent)[0] for n, agent in enumerate(agents)]
    for uid in uids[: len(uids) // 2]:
        (found,) = place(world.registry, [world.agent(uid)])
        if found.incarnation:
            assert world.assign(uid, found.incarnation).outcome == "assigned"
    return world, [world.agent(uid) for uid in uids if not world.agent(uid).held]


def may_stand(registry: Registry, agent: Agent, host: Host) -> bool:
    """Every filter but room and spread."""
    spec, pool, node = agent.spec, registry.pools[host.pool], registry.nodes[host.node]
    taints = [taint for taint in (*pool.taints, *node.taints) if taint.effect != "PreferNoSchedule"]
    return (
        host.alive
        and host.pool == spec.pool
        and host.ready
        and not host.quarantined
        and host.schedulable
        and not host.suspect
        and set(spec.requires) <= set(host.capabilities)
        and all(node.labels.get(name) == value for name, value in spec.node_selector.items())
        and all(
            any(t.key in ("", taint.key) and t.value in ("", taint.value) for t in spec.tolerations) for taint in taints
        )
    )


def has_room(registry: Registry, agent: Agent, host: Host, used: dict[str, Usage]) -> bool:
    spec, usage = agent.spec, used.setdefault(host.incarnation, Usage())
    limit = registry.pools[host.pool].max_agents_per_host
    return (
        (not limit or usage.agents < limit)
        and (not host.cpu_milli or not spec.cpu_milli or usage.cpu_milli + spec.cpu_milli <= host.cpu_milli)
        and (
            not host.memory_bytes
            or not spec.memory_bytes
            or usage.memory_bytes + spec.memory_bytes <= host.memory_bytes
        )
    )


def used_now(registry: Registry) -> dict[str, Usage]:
    used: dict[str, Usage] = {}
    for agent in registry.agents.values():
        if agent.held:
            usage = used.setdefault(agent.incarnation, Usage())
            usage.agents += 1
            usage.cpu_milli += agent.spec.cpu_milli
            usage.memory_bytes += agent.spec.memory_bytes
    for kept in registry.reservations.values():
        usage = used.setdefault(kept.incarnation, Usage())
        usage.agents += kept.agents
        usage.cpu_milli += kept.cpu_milli
        usage.memory_bytes += kept.memory_bytes
    return used


def place_of(registry: Registry, rule: Spread, host: Host) -> str:
    return {"Zone": registry.nodes[host.node].zone, "Node": host.node, "Host": host.name}[rule.by]


@given(clusters, st.integers(0, 5))
def test_filters_room_and_feasibility(shape: tuple, seed: int) -> None:
    """In a batch: the host passes every filter, has room for all that was placed before, and some host is found exactly
    when there is one; what fits nowhere has a reason and a sentence.
    """
    world, agents = build(shape)
    registry = world.registry
    found = {each.uid: each for each in place(registry, agents, seed=seed)}
    assert len(found) == len(agents)
    used = used_now(registry)
    order = sorted(agents, key=lambda agent: list(found).index(agent.uid))
    for agent in order:
        each = found[agent.uid]
        able = [
            host
            for host in registry.hosts.values()
            if may_stand(registry, agent, host) and has_room(registry, agent, host, used)
        ]
        if not each.incarnation:
            assert not able
            assert each.reason
            assert each.message.startswith("Waiting: ")
            continue
        assert each.incarnation in {host.incarnation for host in able}
        usage = used[each.incarnation]
        usage.agents += 1
        usage.cpu_milli += agent.spec.cpu_milli
        usage.memory_bytes += agent.spec.memory_bytes
        assert 0 < len(each.explanation.encode()) <= EXPLANATION_BYTES


@given(clusters, st.integers(0, 5))
def test_a_batch_is_applied_as_it_was_planned(shape: tuple, seed: int) -> None:
    """The machine, which checks room by itself, refuses none of it."""
    world, agents = build(shape)
    for each in place(world.registry, agents, seed=seed):
        if each.incarnation:
            assert world.assign(each.uid, each.incarnation).outcome == "assigned"


@given(clusters, st.integers(0, 5))
def test_the_first_rule_of_a_spread_is_kept_whenever_it_can_be(shape: tuple, seed: int) -> None:
    """One by one: the place that was taken exceeds the emptiest one with room by at most the skew."""
    world, agents = build(shape)
    registry = world.registry
    for agent in agents:
        (each,) = place(registry, [agent], seed=seed)
        if each.incarnation and agent.spec.spread:
            rule = agent.spec.spread[0]
            used = used_now(registry)
            able = [
                host
                for host in registry.hosts.values()
                if may_stand(registry, agent, host) and has_room(registry, agent, host, used)
            ]
            held = Counter(
                place_of(registry, rule, registry.hosts[other.incarnation])
                for other in registry.agents.values()
                if other.held and (not rule.group or rule.group in {each.group for each in other.spec.spread})
            )
            least = min(held[place_of(registry, rule, host)] for host in able)
            taken = held[place_of(registry, rule, registry.hosts[each.incarnation])]
            assert taken + 1 - least <= rule.max_skew
        if each.incarnation:
            world.assign(each.uid, each.incarnation)


@given(clusters, st.integers(0, 5))
def test_the_same_input_gives_the_same_output(shape: tuple, seed: int) -> None:
    """Twice in a row, in a restored copy, and with hosts that registered in another order."""
    world, agents = build(shape)
    copy = Registry.restore(world.registry.snapshot())
    first = place(world.registry, agents, seed=seed)
    assert place(world.registry, agents, seed=seed) == first
    assert place(copy, agents, seed=seed) == first


@given(clusters, st.integers(0, 5))
def test_the_order_of_the_hosts_rows_says_nothing(shape: tuple, seed: int) -> None:
    """The same hosts in the opposite order: every single decision is the same."""
    hosts, nodes, agents, limit, reserved = shape
    alone = (hosts, nodes, agents[:1], limit, reserved)
    one, two = build(alone), build(alone, backwards=True)
    answers = []
    for world, (agent,) in (one, two):
        plain = msgspec.structs.replace(agent, uid="7", revision=0)
        (each,) = place(world.registry, [plain], seed=seed)
        answers.append((each.host, each.explanation, each.message))
    assert answers[0] == answers[1]


@given(clusters, st.integers(0, 5))
def test_a_dry_run_foretells(shape: tuple, seed: int) -> None:
    """Its winner is what `place` chooses; ranks are 1, 2, ...; every host has a verdict, the rejected with a filter."""
    world, agents = build(shape)
    registry = world.registry
    for agent in agents:
        trial = dry_run(registry, agent, seed=seed)
        (each,) = place(registry, [agent], seed=seed)
        assert trial.placement == each
        fit = [verdict for verdict in trial.verdicts if not verdict.rejected]
        assert [verdict.rank for verdict in fit] == list(range(1, len(fit) + 1))
        assert (fit[0].incarnation if fit else "") == each.incarnation
        assert {verdict.incarnation for verdict in trial.verdicts} == {h.incarnation for h in registry.hosts.values()}
        used = used_now(registry)
        for verdict in trial.verdicts:
            host = registry.hosts[verdict.incarnation]
            able = may_stand(registry, agent, host) and has_room(registry, agent, host, used)
            assert able == (verdict.rejected in ("", "spread"))
            assert bool(verdict.rejected) == bool(verdict.why)


def assert_groups(registry: Registry) -> None:
    """The index that spread asks says what the rows say."""
    counts: dict[str, Counter[str]] = {}
    for agent in registry.agents.values():
        if agent.held:
            named = {rule.group for rule in agent.spec.spread if rule.group}
            for group in {agent.spec.class_name} | named:
                counts.setdefault(f"shop/{group}", Counter())[agent.incarnation] += 1
    assert {name: dict(registry.groups.held(name)) for name in counts} == {n: dict(each) for n, each in counts.items()}
    total = sum(sum(registry.groups.held(name).values()) for name in ("shop/Counter", "shop/g"))
    assert total == sum(sum(each.values()) for each in counts.values())


@given(clusters)
def test_what_is_remembered_between_questions_is_what_is_true(shape: tuple) -> None:
    """Rows change between questions in every way; a registry that was asked before answers as one that never was."""
    world, agents = build(shape)
    place(world.registry, agents)
    changes = [
        c.QuarantineHost(name="h0", reason="later"),
        c.SetNodes(nodes=(Node(name="n0", labels={ZONE: "c"}),)),
        c.ApplyPools(pools=(Pool(name="default", max_agents_per_host=1),)),
        c.ClassifyHosts(items=(c.HostClass("h1.1", suspect=True),)),
        c.ExpireHost(incarnation="h0.1"),
        c.ReleaseHost(incarnation="h1.1"),
    ]
    for change in changes:
        world.apply(change)
        unheld = [world.registry.agents[uid] for uid in sorted(world.registry.unheld, key=int)]
        fresh = Registry.restore(world.registry.snapshot())
        assert_groups(world.registry)
        for avoid in (frozenset(), frozenset({"h2.1"}), frozenset()):
            asked: list[Placement] = place(world.registry, unheld, avoid=avoid)
            assert asked == place(fresh, unheld, avoid=avoid)
