"""Entries about hosts, pools, nodes and servers; the registry's own bounds."""

import pytest
from core_world import World

from tenured.core import changes
from tenured.core import commands as c
from tenured.core import registry as registry_module
from tenured.core.model import AgentClass, Node, Pool, RowKey
from tenured.core.registry import Registry


def test_a_new_incarnation_does_not_end_the_old_one(world: World) -> None:
    """Protocol 1 [no_supersede]: after a forced pod delete both may run."""
    world.host("h0")
    world.host("h0", incarnation="h0.2")
    assert world.registry.alive("h0.1")
    assert world.registry.alive("h0.2")


def test_proof_of_death_ends_the_predecessor_in_the_same_entry(world: World) -> None:
    """Protocol additions 1; only incarnations of the same host name."""
    world.pool()
    world.host("h0")
    world.host("h1")
    (uid,) = world.create("a")
    world.assign(uid, "h0.1")
    world.host("h0", incarnation="h0.2", dead=["h0.1", "h1.1", "h0.2", "unknown"])
    assert world.registry.ended("h0.1")
    assert world.registry.alive("h1.1")
    assert world.registry.alive("h0.2")
    assert world.agent(uid).unheld_reason == "HostLost"


@pytest.mark.parametrize("end", [c.ExpireHost, c.ReleaseHost])
def test_an_ended_incarnation_never_comes_back(world: World, end: type) -> None:
    """Protocol 1, host 4; also when its row is long gone."""
    world.host("h0")
    world.apply(end(incarnation="h0.1"))
    again = c.RegisterHost(name="h0", incarnation="h0.1", pool="default", node="n")
    assert world.apply(again).reason == "IncarnationEnded"
    assert world.apply(c.ReportHost(incarnation="h0.1", ready=True)).reason == "IncarnationEnded"
    world.apply(c.ForgetHosts(incarnations=("h0.1", "unknown")))
    assert "h0.1" not in world.registry.hosts
    assert world.apply(again).reason == "IncarnationEnded"


def test_rows_of_ended_incarnations_give_way_to_the_next(world: World) -> None:
    """One name shows one row, unless two processes may be alive."""
    world.host("h0")
    world.expire("h0.1")
    assert "h0.1" in world.registry.hosts
    world.host("h0", incarnation="h0.2")
    assert list(world.registry.hosts) == ["h0.2"]


def test_a_repeated_registration_keeps_what_the_host_reported(world: World) -> None:
    """Hosts repeat themselves until they see their row."""
    world.host("h0")
    revision = world.registry.revision
    world.host("h0", ready=False)
    assert world.registry.revision == revision
    assert world.registry.hosts["h0.1"].ready


def test_a_registration_that_makes_no_sense_is_refused(world: World) -> None:
    """An incarnation belongs to one host."""
    world.host("h0")
    assert world.apply(c.RegisterHost(name="h1", incarnation="h0.1", pool="p", node="n")).reason == "CommandInvalid"
    assert world.apply(c.RegisterHost(name="", incarnation="x", pool="p", node="n")).reason == "CommandInvalid"


def test_a_row_is_written_only_when_a_report_differs(world: World) -> None:
    """DESIGN.md 5: a row is written when something changed."""
    world.host("h0")
    revision = world.registry.revision
    world.apply(c.ReportHost(incarnation="h0.1", ready=True, classes=(AgentClass(name="Counter"),)))
    assert world.registry.revision == revision


def test_a_release_of_a_draining_host_says_so(world: World) -> None:
    """The reason follows the agents."""
    world.host("h0")
    (uid,) = world.create("a")
    world.assign(uid, "h0.1")
    world.apply(c.ReportHost(incarnation="h0.1", ready=True, draining=True))
    world.apply(c.ReleaseHost(incarnation="h0.1"))
    assert world.agent(uid).unheld_reason == "Draining"
    assert world.agent(uid).last_failover is None


def test_cordoned_nodes_show_on_their_hosts(world: World) -> None:
    """Also on a host that registers later; a node that nobody sees any more is schedulable."""
    world.host("h0", "n0")
    world.apply(c.SetNodes(nodes=(Node(name="n0", schedulable=False), Node(name="n1", schedulable=False))))
    world.host("h1", "n1")
    assert [host.schedulable for host in world.registry.hosts.values()] == [False, False]
    world.apply(c.SetNodes(nodes=(Node(name="n1", schedulable=False),)))
    assert [host.schedulable for host in world.registry.hosts.values()] == [True, False]
    assert world.apply(c.SetNodes(nodes=(Node(name=""),))).reason == "SpecInvalid"


def test_pools_are_the_whole_set(world: World) -> None:
    """What is not named is gone; the same again changes nothing."""
    world.pool("default", "gpu")
    world.pool("gpu")
    assert list(world.registry.pools) == ["gpu"]
    revision = world.registry.revision
    world.pool("gpu")
    assert world.registry.revision == revision
    assert world.pool("a", "a").reason == "SpecInvalid"
    assert world.apply(c.ApplyPools(pools=(Pool(name="a", max_agents_per_host=-1),))).reason == "SpecInvalid"


def test_a_server_with_another_disk_must_be_replaced_and_that_is_a_new_view(world: World) -> None:
    """Protocol 2 [rejoin, view]."""
    registry = world.registry
    assert world.apply(c.RegisterServer(name="s0", incarnation="d1", address="a:1")).ok
    assert world.apply(c.RegisterServer(name="s0", incarnation="d2")).reason == "DiskReplaced"
    assert registry.view == 1
    assert world.apply(c.ReplaceServer(name="s0", incarnation="d2")).ok
    assert world.apply(c.ReplaceServer(name="s0", incarnation="d2")).ok
    assert (registry.view, registry.servers["s0"].incarnation) == (2, "d2")
    assert world.apply(c.RegisterServer(name="s0", incarnation="d2", address="a:1")).ok
    assert world.apply(c.ReplaceServer(name="s9", incarnation="d2")).reason == "CommandInvalid"
    assert world.apply(c.RegisterServer(name="", incarnation="d2")).reason == "CommandInvalid"


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_what_changed_is_known_however_long_ago_each_row_once(world: World) -> None:
    """A watcher that is far behind needs no snapshot: that of a large registry is outrun while it is being read."""
    for n in range(30):
        world.create(f"a-{n}")
    registry = world.registry
    at = registry.revision
    for n in range(50):
        world.apply(c.SetWaiting(items=(c.WaitingItem(uid="7", epoch=0, reason="NoHostFits", message=f"{n}"),)))
    assert [key.name for key in registry.since(at - 5).changed] == ["26", "27", "28", "29", "30", "7"]
    assert len(registry.since(0).changed) == len(registry.agents) + len(registry.hosts) + len(registry.pools)
    assert registry.since(registry.revision + 1) is None
    assert not registry.since(registry.revision)


def test_what_is_gone_is_bounded_and_says_when_it_does_not_reach(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """DESIGN.md 3, invariant 7: a watcher that may lack a row's end gets a snapshot."""
    monkeypatch.setattr(changes, "GONE_LIMIT", 10)
    for n in range(15):
        world.create(f"a-{n}")
    registry = world.registry
    at = registry.revision
    world.apply(c.DeleteAgents(ids=tuple(f"shop/a-{n}" for n in range(10)), managed_by="API"))
    assert (len(registry.since(at).gone), registry.reaches(at)) == (10, True)
    world.apply(c.DeleteAgents(ids=("shop/a-10",), managed_by="API"))
    assert registry.since(at) is None
    assert len(registry.since(at + 1).gone) == 10


def test_the_command_table_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest id is forgotten first; many row results push out more."""
    monkeypatch.setattr(registry_module, "RESULTS_LIMIT", 3)
    monkeypatch.setattr(registry_module, "RESULT_ROWS_LIMIT", 4)
    for n in range(5):
        world.apply(c.ForgetHosts(incarnations=(), command_id=f"c{n}"))
    assert list(world.registry.results) == ["c2", "c3", "c4"]
    specs = tuple(c.AgentSpec(id=f"shop/a-{n}", class_name="C") for n in range(5))
    world.apply(c.ApplyAgents(agents=specs, managed_by="API", command_id="big"))
    assert list(world.registry.results) == ["big"]


def test_tombstones_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes first."""
    monkeypatch.setattr(registry_module, "TOMBSTONES_LIMIT", 2)
    for n in range(4):
        world.host(f"h{n}")
        world.expire(f"h{n}.1")
        world.apply(c.ForgetHosts(incarnations=(f"h{n}.1",)))
    assert list(world.registry.tombstones) == ["h2.1", "h3.1"]


def test_a_snapshot_of_another_version_is_refused() -> None:
    """A server stops with a sentence rather than guess."""
    with pytest.raises(c.Undecodable, match="schema version 9"):
        Registry.restore(b"\x09")
    with pytest.raises(c.Undecodable):
        Registry.restore(b"\x01\xc1")
    with pytest.raises(c.Undecodable, match="schema version none"):
        c.decode(b"")


def test_rows_are_found_by_key(world: World) -> None:
    """What a watcher is told, it can fetch."""
    world.pool()
    world.apply(c.SetNodes(nodes=(Node(name="n0"),)))
    world.apply(c.RegisterServer(name="s0", incarnation="d1"))
    names = [world.registry.row(RowKey(kind, name)).name for kind, name in (("pool", "default"), ("node", "n0"))]
    assert names == ["default", "n0"]
    assert world.registry.row(RowKey("server", "s0")).incarnation == "d1"
    assert world.registry.row(RowKey("agent", "1")) is None
