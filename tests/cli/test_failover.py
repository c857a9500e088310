"""`tenure failovers`, `tenure failover confirm`, and what the doctor says of silent hosts."""

import json
from collections.abc import Callable

import pytest
from typer.testing import Result

from tenure_proto.v1.registry_pb2 import FailoverItem, FailoverRecord
from tests.cli.cli_fake_cluster import NOW, FakeCluster

Tenure = Callable[..., Result]


@pytest.fixture
def lost(cluster: FakeCluster) -> FailoverRecord:
    """A host with three agents; two are Ready elsewhere."""
    record = FailoverRecord(
        id=77, host="host-2", node="node-2", incarnation="i", cause="LeaseExpired", last_heard_wall=NOW - 62.5,
        ended_wall=NOW - 60.0, agents=3, moved=2, ready=2, marked_unavailable=1, done_wall=NOW - 60.0,
    )  # fmt: skip
    record.items.append(FailoverItem(uid="1", id="shop/a", critical=True, to_host="host-1"))
    record.items.append(FailoverItem(uid="2", id="shop/b", critical=False, unavailable="NodeLost"))
    cluster.losses.append(record)
    return record


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("   ") if cell.strip()]


def test_failovers_are_listed_with_cause_agents_and_duration(tenure: Tenure, lost: FailoverRecord) -> None:
    """FAIL-01."""
    header, row = tenure("failovers").stdout.splitlines()
    assert cells(header) == ["ID", "AGO", "HOST", "NODE", "CAUSE", "AGENTS", "READY", "UNAVAILABLE", "TOOK"]
    assert cells(row) == ["77", "60s", "host-2", "node-2", "LeaseExpired", "3", "2", "1", "2.5 s"]
    lost.done_wall = 0.0
    assert "under way for 62.5 s" in tenure("failovers").stdout


def test_wide_says_where_each_agent_went_and_json_everything(tenure: Tenure, lost: FailoverRecord) -> None:
    """FAIL-03: exactly the agents that ran there."""
    shown = tenure("failovers", "-o", "wide").stdout
    assert "shop/a -> host-1, shop/b -> NodeLost, and 1 more" in shown
    (item,) = json.loads(tenure("failovers", "-o", "json").stdout)["items"]
    assert (item["cause"], item["lastHeardWall"], len(item["items"])) == ("LeaseExpired", NOW - 62.5, 2)


def test_no_failover_is_said_in_words(tenure: Tenure) -> None:
    """An empty table tells nobody anything."""
    shown = tenure("failovers")
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert "there are no failovers" in shown.stderr


def test_watching_prints_what_changed(tenure: Tenure, cluster: FakeCluster, lost: FailoverRecord) -> None:
    """The table, then the row again when an agent became Ready; not when something else changed."""

    def ready(_: object) -> None:
        lost.ready = 3

    cluster.changes = [lambda _: None, ready]
    lines = tenure("failovers", "--watch").stdout.splitlines()
    assert [cells(line)[6] for line in lines] == ["READY", "2", "3"]
    lost.ready = 2
    lines = tenure("failovers", "--watch", "-o", "json").stdout.splitlines()
    assert [json.loads(line)["ready"] for line in lines] == [2, 3]


def test_confirming_names_the_hosts(tenure: Tenure, cluster: FakeCluster) -> None:
    """All that are held back, or those that are named."""
    for name in ("host-1", "host-2"):
        cluster.add_host(name, silence="Held", suspect=True)
    shown = tenure("failover", "confirm")
    assert shown.exit_code == 0
    assert "confirmed: host-1, host-2" in shown.stdout
    assert tenure("failover", "confirm", "host-1").exit_code == 0
    assert cluster.confirmed == [(), ("host-1",)]


def test_confirming_what_is_not_held_back_is_refused(tenure: Tenure, cluster: FakeCluster) -> None:
    """With what is."""
    shown = tenure("failover", "confirm")
    assert shown.exit_code == 1
    assert "Nothing is held back." in shown.stderr
    cluster.add_host("host-1", silence="Held", suspect=True)
    shown = tenure("failover", "confirm", "host-2")
    assert "The failover of host-2 is not held back." in shown.stderr
    assert "Held back: host-1." in shown.stderr
    assert cluster.confirmed == []


def test_the_doctor_says_that_failover_is_held_back(tenure: Tenure, cluster: FakeCluster) -> None:
    """And names the way on."""
    for name in ("host-1", "host-2"):
        cluster.add_host(name, silence="Held", suspect=True)
    shown = tenure("doctor")
    assert shown.exit_code == 1
    assert "✗ failover: held back; 2 of 2 hosts fell silent at once: host-1, host-2" in shown.stdout
    assert "tenure failover confirm" in shown.stdout
    assert "host-1: Silent, failover held back" in shown.stdout


def test_one_silent_host_is_shown_as_such(tenure: Tenure, cluster: FakeCluster) -> None:
    """Long before it is lost."""
    cluster.add_host("host-1", silence="Silent", suspect=True)
    assert "1 of 2 are heard; host-1: Silent, takes no new agents" in tenure("doctor").stdout
    assert "failover" not in tenure("doctor").stdout
    cluster.add_host("host-1", silence="Lapsed", suspect=True)
    assert "Silent, its lease ends" in tenure("get", "hosts").stdout
