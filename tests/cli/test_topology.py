"""`tenure topology`: one picture out of what each server sees."""

import json
from collections.abc import Callable

import pytest
from typer.testing import Result

from tenure_cli.ports import Rows
from tenure_cli.topology import picture
from tenure_proto.v1 import registry_pb2
from tests.cli.cli_fake_cluster import FakeCluster

SERVERS = ("server-0", "server-1", "server-2")


def view(name: str, leader: str, *linked: str) -> registry_pb2.StatusResponse:
    """What a server says that has connections to `linked`."""
    servers = [
        registry_pb2.ServerStatus(
            name=server,
            role="leader" if server == leader else "follower",
            connected=server in (name, *linked),
            version="0.1.0",
        )
        for server in SERVERS
    ]
    hosts = [other for other in linked if other not in SERVERS]
    return registry_pb2.StatusResponse(answered_by=name, leader=leader, servers=servers, linked_hosts=hosts)


def rows(*hosts: str) -> Rows:
    made = Rows()
    for number, name in enumerate(hosts):
        made.hosts[f"i{number}"] = registry_pb2.HostRow(name=name, incarnation=f"i{number}", node=f"node-{number}")
        made.agents[str(number)] = registry_pb2.AgentRow(uid=str(number), incarnation=f"i{number}", host=name)
    made.agents["9"] = registry_pb2.AgentRow(uid="9")
    return made


def healthy() -> list[registry_pb2.StatusResponse]:
    return [view(name, "server-1", *SERVERS, "host-0", "host-1") for name in SERVERS]


def test_in_health_everybody_sees_everybody_and_there_are_no_parts() -> None:
    """TOPO-02 to TOPO-06 of the requirements."""
    found = picture(healthy(), rows("host-0", "host-1"))
    assert [daemon.name for daemon in found.daemons] == [*SERVERS, "host-0", "host-1"]
    assert [daemon.role for daemon in found.daemons] == ["follower", "leader", "follower", "host", "host"]
    assert len(found.seen) == 3 * 5
    assert all(found.seen.values())
    assert found.partitions == ()
    assert set(found.leaders.values()) == {"server-1"}
    assert found.total_agents == 2, "what nobody holds is not held"


def test_a_cut_flips_exactly_its_cells_and_shows_both_sides() -> None:
    """The minority names no leader."""
    views = [
        view("server-0", "server-1", "server-1", "host-0"),
        view("server-1", "server-1", "server-0", "host-0"),
        view("server-2", "", "host-1"),
    ]
    found = picture(views, rows("host-0", "host-1"))
    assert {cell for cell, connected in found.seen.items() if not connected} == {
        ("server-0", "server-2"), ("server-0", "host-1"),
        ("server-1", "server-2"), ("server-1", "host-1"),
        ("server-2", "server-0"), ("server-2", "server-1"), ("server-2", "host-0"),
    }  # fmt: skip
    assert found.partitions == (("server-0", "server-1", "host-0"), ("server-2", "host-1"))
    assert found.leaders == {"server-0": "server-1", "server-1": "server-1", "server-2": ""}


def test_a_one_way_cut_is_a_cut() -> None:
    """A connection that only one end believes in carries nothing."""
    views = [view("server-0", "server-1", *SERVERS), view("server-1", "server-1", *SERVERS), view("server-2", "")]
    assert picture(views, rows()).partitions == (("server-0", "server-1"), ("server-2",))


def test_a_server_that_does_not_answer_is_judged_by_the_others() -> None:
    """It is listed; nobody invents its column."""
    views = [view("server-0", "server-1", "server-1"), view("server-1", "server-1", "server-0")]
    found = picture(views, rows())
    assert {daemon.name: daemon.role for daemon in found.daemons}["server-2"] == "unreachable"
    assert {observer for observer, _ in found.seen} == {"server-0", "server-1"}
    assert found.partitions == (("server-0", "server-1"), ("server-2",))


def test_a_host_that_has_ended_is_gone_from_the_picture() -> None:
    """TOPO-14."""
    made = rows("host-0", "host-1")
    made.hosts["i1"].expired = True
    found = picture(healthy(), made)
    assert [daemon.name for daemon in found.daemons if daemon.role == "host"] == ["host-0"]
    assert found.partitions == ()


def test_the_command(tenure: Callable[..., Result], cluster: FakeCluster) -> None:
    (host,) = cluster.rows.live_hosts()
    cluster.views = [view(name, "server-1", "server-0", "server-1", host.name) for name in SERVERS[:2]]
    shown = tenure("topology")
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert lines[0].split() == ["NAME", "ROLE", "NODE", "AGENTS", "server-0", "server-1"]
    assert lines[3].split() == ["server-2", "unreachable", "-", "-", "-", "-"]
    assert "Leader: server-1." in shown.output
    assert "Connected with each other only: server-2." in shown.output
    values = json.loads(tenure("topology", "-o", "json").output)
    assert values["connections"]["server-0"]["server-2"] is False
    assert values["leaders"] == {"server-0": "server-1", "server-1": "server-1"}


@pytest.mark.parametrize("output", ["table", "json"])
def test_nobody_answers(tenure: Callable[..., Result], cluster: FakeCluster, output: str) -> None:
    refused = tenure("topology", "-o", output)
    assert refused.exit_code != 0
    assert "No server answers." in refused.output
    assert "tenure doctor" in refused.output
