"""Random command sequences: the state machine never raises, keeps its invariants, and replays to identical bytes."""

from unittest import mock

import msgspec
from core_world import World
from hypothesis import given
from hypothesis import strategies as st

from tenured.core import _apply_cluster, machine, results
from tenured.core import commands as c
from tenured.core.model import GENERAL_PURPOSE, AgentClass, Node, Pool, Reservation
from tenured.core.registry import DECISIONS_LIMIT, FAILOVERS_LIMIT, Registry

IDS = st.sampled_from(["shop/a", "shop/b", "shop/c", "Bad Id", ""])
HOSTS = st.sampled_from(["h0", "h1"])
INCARNATIONS = st.sampled_from(["h0.1", "h1.1", "h0.1", "h1.1", "h0.2", "h1.2", "", "zz"])
UIDS = st.sampled_from(["4", "5", "6", "4", "5", "9", "12", "nonsense"])
EPOCHS = st.sampled_from([0, 1, 1, 1, 2, 2, 3, -1])
WALLS = st.floats(0, 1e6)
DOCUMENTS = st.sampled_from([b"", b"\x80", b"\x81\xa1a\x01", b"\xc1", b"\x01", b"\x81\xa1\xff\x01"])
COMMAND_IDS = st.sampled_from(["", "", "", "x", "y"])
REASONS = st.sampled_from(["Scheduled", "LeaseExpired", "nonsense"])
DOORS = st.sampled_from(["API", "Kubernetes"])


def entry(kind: type, **fields: st.SearchStrategy) -> st.SearchStrategy:
    return st.builds(kind, command_id=COMMAND_IDS, wall=WALLS, **fields)


SPECS = st.builds(
    c.AgentSpec,
    id=IDS,
    class_name=st.sampled_from(["Counter", "Other", ""]),
    state=DOCUMENTS,
    config=DOCUMENTS,
    cpu_milli=st.integers(-1, 100),
    memory_bytes=st.integers(0, 100),
    capabilities=st.sampled_from([(), ("ocr",), ("ocr", "gpu"), ("",)]),
    labels=st.sampled_from([{}, {"team": "a"}, {"team": "b", "tier": "1"}]),
    critical=st.booleans(),
    object_uid=st.sampled_from(["", "o1"]),
)
CLASSES = st.sampled_from([(AgentClass(name="Counter"),), (AgentClass(name="Counter", capabilities=("ocr",)),)])
POOLS = st.builds(
    Pool,
    name=st.sampled_from(["default", "gpu", ""]),
    max_agents_per_host=st.integers(-1, 2),
    capabilities=st.sampled_from([(), ("gpu",)]),
)
RESERVATIONS = st.builds(
    Reservation,
    id=st.sampled_from(["r1", "r2", ""]),
    incarnation=INCARNATIONS,
    cpu_milli=st.integers(-1, 60),
    memory_bytes=st.integers(-1, 60),
    agents=st.integers(-1, 2),
    until_ns=st.integers(-1, 10**9),
)
NODES = st.builds(Node, name=st.sampled_from(["n0", "n1", ""]), schedulable=st.booleans())
TROUBLES = st.builds(
    c.TroubleReport,
    phase=st.sampled_from(["Backoff", "Starting", "Unavailable", "Paused"]),
    reason=REASONS,
    message=st.text(max_size=5),
    attempt=st.integers(-1, 4),
    retry_in_seconds=st.floats(-1, 10),
)
REPORTS = st.builds(
    c.AgentReport,
    uid=UIDS,
    epoch=EPOCHS,
    ready=st.booleans(),
    released=st.booleans(),
    stopped=st.booleans(),
    trouble=st.none() | TROUBLES,
    hibernated=st.none() | st.builds(c.HibernationReport, wake_wall=st.floats(-1, 10)),
    dead_letters=st.none() | st.integers(0, 3),
)
ASSIGNMENTS = st.builds(
    c.Assignment,
    uid=UIDS,
    epoch=EPOCHS,
    incarnation=INCARNATIONS,
    reason=REASONS,
    reservation=st.sampled_from(["", "", "r1", "zz"]),
)
UNAVAILABLE = st.builds(c.UnavailableItem, uid=UIDS, epoch=EPOCHS, reason=REASONS | st.just(""), message=st.text())
WAITINGS = st.builds(c.WaitingItem, uid=UIDS, epoch=EPOCHS, reason=REASONS, message=st.just("Waiting"))


def some(items: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(items, max_size=3).map(tuple)


COMMANDS = st.one_of(
    entry(c.Tick, step_ns=st.integers(-5, 10**9)),
    entry(
        c.RegisterHost,
        name=HOSTS,
        incarnation=INCARNATIONS,
        pool=st.just("default"),
        node=st.sampled_from(["n0", "n1"]),
        cpu_milli=st.integers(-1, 100),
        memory_bytes=st.integers(-1, 100),
        capabilities=st.sampled_from([(), ("avx",)]),
        dead_incarnations=some(INCARNATIONS),
    ),
    entry(
        c.ReportHost,
        incarnation=INCARNATIONS,
        ready=st.booleans(),
        draining=st.booleans(),
        classes=CLASSES,
    ),
    entry(c.ExpireHost, incarnation=INCARNATIONS, last_heard_wall=WALLS),
    entry(c.ReleaseHost, incarnation=INCARNATIONS),
    entry(c.FreeAgents, incarnation=INCARNATIONS, uids=some(UIDS)),
    entry(c.ForgetHosts, incarnations=some(INCARNATIONS)),
    entry(c.ApplyPools, pools=some(POOLS)),
    entry(c.SetNodes, nodes=some(NODES)),
    entry(c.ApplyAgents, agents=some(SPECS), managed_by=DOORS, expected_revision=st.sampled_from([0, 0, 7, -1, 100])),
    entry(
        c.DeleteAgents,
        ids=some(IDS),
        managed_by=DOORS,
        object_uid=st.sampled_from(["", "o1"]),
        expected_revision=st.sampled_from([0, 0, 7, -1, 100]),
    ),
    *[entry(c.Assign, items=some(ASSIGNMENTS))] * 4,
    *[entry(c.AgentReports, incarnation=INCARNATIONS, reports=some(REPORTS))] * 3,
    entry(c.SetWaiting, items=some(WAITINGS)),
    entry(c.ClassifyHosts, items=some(st.builds(c.HostClass, INCARNATIONS, st.booleans()))),
    entry(c.QuarantineHost, name=HOSTS | st.just("zz"), reason=st.sampled_from(["", "", "broken"])),
    *[entry(c.MarkUnavailable, items=some(UNAVAILABLE))] * 2,
    entry(c.MarkAvailable, uids=some(UIDS)),
    *[entry(c.Reserve, reservation=RESERVATIONS)] * 2,
    entry(c.Unreserve, id=st.sampled_from(["r1", "r2", ""])),
    entry(c.ServerJoined, name=st.sampled_from(["s0", "s9"]), incarnation=st.sampled_from(["d1", "d2", ""])),
    entry(c.RegisterServer, name=st.sampled_from(["s0", ""]), incarnation=st.sampled_from(["d1", "d2", ""])),
    entry(c.ReplaceServer, name=st.sampled_from(["s0", "s9"]), incarnation=st.sampled_from(["d1", "d2", ""])),
)
LIVELY = st.lists(COMMANDS, min_size=5, max_size=60)
"""Random commands alone rarely assign anything: tests begin with two hosts and three agents."""
START = (
    c.ApplyPools(pools=(Pool(name="default"),)),
    c.RegisterHost(name="h0", incarnation="h0.1", pool="default", node="n0", cpu_milli=100, memory_bytes=100),
    c.RegisterHost(name="h1", incarnation="h1.1", pool="default", node="n1", cpu_milli=100, memory_bytes=100),
    c.ApplyAgents(
        agents=tuple(c.AgentSpec(id=f"shop/{n}", class_name="Counter") for n in "abc"),
        managed_by="API",
    ),
    c.Assign(
        items=(
            c.Assignment(uid="4", epoch=0, incarnation="h0.1", reason="Scheduled"),
            c.Assignment(uid="5", epoch=0, incarnation="h1.1", reason="Scheduled"),
        ),
    ),
)


def check_indexes(registry: Registry) -> None:
    """Every index says what the rows say."""
    assert registry.by_id == {agent.id: uid for uid, agent in registry.agents.items()}
    held = {}
    for uid, agent in registry.agents.items():
        assert agent.uid == uid
        assert agent.held == bool(agent.host) == bool(agent.incarnation)
        assert agent.ready_epoch <= agent.epoch
        assert not agent.ready or agent.held
        assert agent.hibernation is None or agent.ready_epoch > 0, "whoever sleeps has a state"
        assert agent.held or agent.unheld_reason
        assert agent.held or not agent.deleting, "a deleting row that nobody holds goes at once"
        if agent.held:
            few = len(registry.held_by[agent.incarnation]) <= _apply_cluster.AT_ONCE
            kept = registry.ended(agent.incarnation) and not few
            assert registry.alive(agent.incarnation) or kept, "few agents leave a dead incarnation at once"
            held.setdefault(agent.incarnation, set()).add(uid)
    assert registry.held_by == held
    check_room(registry, held)
    check_lookups(registry)
    check_failovers(registry)
    assert registry.unheld == {uid for uid, agent in registry.agents.items() if not agent.held and not agent.deleting}
    assert not set(registry.tombstones) & set(registry.hosts)


def check_room(registry: Registry, held: dict) -> None:
    """Usage is the sum of what is held and reserved, and never more than a host has."""
    reserved = {}
    for row in registry.reservations.values():
        reserved.setdefault(row.incarnation, set()).add(row.id)
        assert registry.alive(row.incarnation)
        assert row.until_ns > registry.cluster_ns
    assert registry.reserved == reserved
    assert set(registry.usage) == set(held) | set(reserved)
    for inc, usage in registry.usage.items():
        asks = [registry.agents[uid].spec for uid in held.get(inc, ())]
        asks += [registry.reservations[name] for name in reserved.get(inc, ())]
        assert usage.cpu_milli == sum(ask.cpu_milli for ask in asks)
        assert usage.memory_bytes == sum(ask.memory_bytes for ask in asks)
        assert usage.agents == sum(getattr(ask, "agents", 1) for ask in asks)
        host = registry.hosts[inc]
        assert not host.cpu_milli or usage.cpu_milli <= host.cpu_milli, "oversubscribed"
        assert not host.memory_bytes or usage.memory_bytes <= host.memory_bytes, "oversubscribed"


def check_lookups(registry: Registry) -> None:
    """What lookups answer is what a search through all rows finds."""
    offered = {}
    for host in registry.hosts.values():
        for kind in host.classes if host.alive else ():
            offered.setdefault(kind.name, set()).update(kind.capabilities)
    for capability in ("ocr", "gpu", "none", GENERAL_PURPOSE):
        wanted = set()
        for uid, agent in registry.agents.items():
            of_agent = {*agent.spec.capabilities, *offered.get(agent.spec.class_name, ())} or {GENERAL_PURPOSE}
            if capability in of_agent:
                wanted.add(uid)
        assert {agent.uid for agent in registry.by_capability(capability)} == wanted
    for labels in ({"team": "a"}, {"team": "b", "tier": "1"}, {"team": "a", "tier": "1"}):
        wanted = {uid for uid, agent in registry.agents.items() if labels.items() <= agent.spec.labels.items()}
        assert {agent.uid for agent in registry.by_label(labels)} == wanted
    for node in ("n0", "n1"):
        wanted = {uid for uid, agent in registry.agents.items() if agent.held and agent.node == node}
        assert {agent.uid for agent in registry.by_node(node)} == wanted


def check_failovers(registry: Registry) -> None:
    """Records add up, and point to nobody who has arrived."""
    assert len(registry.failovers) <= FAILOVERS_LIMIT
    assert len(registry.decisions) <= DECISIONS_LIMIT
    open_ones = {}
    for agent in registry.agents.values():
        if agent.failover_id:
            open_ones[agent.failover_id] = open_ones.get(agent.failover_id, 0) + 1
            assert not agent.ready
        assert not agent.unavailable or not agent.held
    for key, record in registry.failovers.items():
        assert key == str(record.id)
        marked = [a for a in registry.agents.values() if a.failover_id == record.id and a.unavailable]
        assert record.marked_unavailable == len(marked)
        held = [registry.agents[uid] for uid in registry.held_by.get(record.incarnation, ())]
        coming = sum(not agent.deleting for agent in held)
        assert record.agents == record.ready + record.left + open_ones.get(record.id, 0) + coming


def check_step(before: dict, world: World, command: c.Command) -> None:
    """What one entry may change (protocol 4: cas, rule R; protocol additions 2)."""
    registry = world.registry
    for uid, old in before["agents"].items():
        new = registry.agents.get(uid)
        if new is None:
            continue
        assert new.epoch in (old.epoch, old.epoch + 1)
        assert new.spec.class_name == old.spec.class_name
        assert new.spec.state == old.spec.state
        if new.epoch > old.epoch:
            assert isinstance(command, c.Assign)
            assert not old.held, "rule R: it was assigned while somebody held it"
        elif new.incarnation != old.incarnation:
            released = isinstance(command, c.AgentReports) and command.incarnation == old.incarnation
            assert released or not registry.alive(old.incarnation), "rule R: it was taken from a live holder"
    for incarnation in before["ended"]:
        assert registry.ended(incarnation), "an ended incarnation came back"
    rows = registry.revision - before["revision"]
    assert rows >= len({*world.changed.changed, *world.changed.gone})
    if isinstance(command, c.Tick):
        assert {key.kind for key in (*world.changed.changed, *world.changed.gone)} <= {"reservation"}
    for key in world.changed.changed:
        assert registry.row(key).revision > before["revision"]
    assert registry.cluster_ns >= before["cluster_ns"]


def state_of(registry: Registry) -> dict:
    ended = {inc for inc, host in registry.hosts.items() if not host.alive} | set(registry.tombstones)
    return {
        "agents": dict(registry.agents),
        "ended": ended,
        "revision": registry.revision,
        "cluster_ns": registry.cluster_ns,
    }


@given(LIVELY)
def test_invariants_hold_after_every_entry(sequence: list) -> None:
    """Indexes, compare-and-set, rule R, and ended incarnations that stay so."""
    play(sequence)


@given(LIVELY)
def test_invariants_hold_where_agents_leave_an_ended_host_in_parts(sequence: list) -> None:
    """As they do where it held more than one entry takes (rule R, b)."""
    with mock.patch.object(_apply_cluster, "AT_ONCE", 0):
        play(sequence)


def play(sequence: list) -> None:
    world = World()
    for command in (*START, *sequence):
        before = state_of(world.registry)
        result = world.apply(command)
        assert result.ok or (result.reason and result.message)
        for row in result.rows:
            assert row.outcome != "refused" or (row.reason and row.message)
        check_indexes(world.registry)
        if not command.command_id:
            check_step(before, world, command)


@given(LIVELY)
def test_replay_gives_identical_bytes_also_across_a_snapshot(sequence: list) -> None:
    """Three servers that apply the same log are the same, whether or not they were restored on the way."""
    world = World()
    for command in (*START, *sequence):
        world.apply(command)
    plain, restored = Registry(), Registry()
    for index, data in enumerate(world.log, 1):
        one, _ = machine.apply_bytes(plain, index, data)
        two, _ = machine.apply_bytes(restored, index, data)
        assert one == two
        if index == len(world.log) // 2:
            restored = Registry.restore(restored.snapshot())
    assert plain.revision == world.registry.revision
    assert plain.snapshot() == restored.snapshot() == world.registry.snapshot()
    check_indexes(restored)


@given(LIVELY)
def test_watching_by_deltas_gives_the_same_rows(sequence: list) -> None:
    """A watcher that takes each delta holds what the registry holds."""
    world, seen, at = World(), {}, 0
    for command in (*START, *sequence):
        world.apply(command)
        delta = world.registry.since(at)
        at = world.registry.revision
        for key in delta.gone:
            seen.pop(key, None)
        for key in delta.changed:
            seen[key] = world.registry.row(key)
    tables = {key.kind: {} for key in seen}
    for key, row in seen.items():
        tables[key.kind][key.name] = row
    assert tables.get("agent", {}) == world.registry.agents
    assert tables.get("host", {}) == world.registry.hosts


@given(COMMANDS)
def test_commands_survive_the_log(command: c.Command) -> None:
    """Encode and decode are inverse, and the encoding is one."""
    data = c.encode(command)
    assert c.decode(data) == command
    assert c.encode(c.decode(data)) == data


@given(st.binary(max_size=40), st.booleans())
def test_damage_is_refused_not_raised(data: bytes, versioned: bool) -> None:
    """Whatever lies in the log, a server answers; it never stops."""
    registry = Registry()
    if versioned:
        data = bytes([c.SCHEMA_VERSION]) + data
    answer, applied = machine.apply_bytes(registry, 1, data)
    assert results.decode(answer) == applied.result
    assert applied.result.ok or applied.result.reason == "CommandInvalid"


@given(LIVELY)
def test_a_repeated_command_answers_the_first_result(sequence: list) -> None:
    """The bounded table of command ids: a repetition changes nothing."""
    world = World()
    for command in (*START, *sequence):
        named = msgspec.structs.replace(command, command_id=f"id-{world.index}")
        first = world.apply(named)
        before = (world.registry.revision, world.registry.cluster_ns)
        assert world.apply(named) == first
        assert (world.registry.revision, world.registry.cluster_ns) == before
        assert not world.changed
