"""`tenure place`, `explain`, `resources`, `quarantine`: what they ask for, what they print, how they end."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tenure_proto.v1 import registry_pb2
from tests.cli.cli_fake_cluster import NOW, FakeCluster

Tenure = Callable[..., Result]

WINNER = registry_pb2.Verdict(host="host-2", node="node-2", pool="default", fits=True, rank=1, score="0.25", zone="b")
REJECTED = registry_pb2.Verdict(
    host="host-1", node="node-1", pool="default", rejected="capabilities", why="without capability gpu"
)
MANIFEST = """
apiVersion: tenure.dev/v1alpha1
kind: Agent
metadata: {name: seer, labels: {team: x}}
spec:
  class: Counter
  capabilities: [billing]
  placement:
    strategy: LocalPreferred
    requires: [gpu]
    tolerations: [{key: dedicated, value: db}, {key: spot}]
    spread: [{by: Zone, maxSkew: 2}, {by: Host, group: g}]
    near: shop/counter-1
"""


def test_a_dry_run_shows_a_verdict_for_each_host(tenure: Tenure, cluster: FakeCluster) -> None:
    """The winner with its score, the others with the filter that rejected them."""
    cluster.trial = registry_pb2.DryRunResponse(
        host="host-2", node="node-2", strategy="LoadBalanced", verdicts=[WINNER, REJECTED], loads_known=True
    )
    result = tenure("place", "--dry-run", "--class", "Counter", "--requires", "gpu", "--cpu", "2", "--memory", "1Gi")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0] == "An agent of class Counter would go to host-2 (node-2), by LoadBalanced."
    assert lines[1].split() == ["RANK", "HOST", "NODE", "SCORE", "REJECTED-BY", "WHY"]
    assert lines[2].split() == ["1", "host-2", "node-2", "0.25", "-", "-"]
    assert lines[3].split() == ["-", "host-1", "node-1", "-", "capabilities", "without", "capability", "gpu"]
    assert not cluster.applied
    (asked,) = cluster.trials
    assert (asked.cpu_milli, asked.memory_bytes, list(asked.requires)) == (2000, 1 << 30, ["gpu"])


def test_a_manifest_is_asked_about_with_everything_in_it(tenure: Tenure, cluster: FakeCluster, tmp_path: Path) -> None:
    """The same row that `tenure apply` would write."""
    cluster.trial = registry_pb2.DryRunResponse(host="host-2", node="node-2", strategy="LocalPreferred")
    file = tmp_path / "agent.yaml"
    file.write_text(MANIFEST)
    shown = tenure("place", "--dry-run", "-f", str(file))
    assert shown.exit_code == 0, shown.output
    (asked,) = cluster.trials
    assert (asked.id, asked.strategy, asked.near) == ("shop/seer", "LocalPreferred", "shop/counter-1")
    assert (list(asked.capabilities), list(asked.requires), dict(asked.labels)) == (["billing"], ["gpu"], {"team": "x"})
    assert [(each.key, each.value) for each in asked.tolerations] == [("dedicated", "db"), ("spot", "")]
    assert [(rule.by, rule.max_skew, rule.group) for rule in asked.spread] == [("Zone", 2, ""), ("Host", 1, "g")]
    assert "measured load is not in this" in shown.stdout


def test_what_fits_nowhere_ends_with_status_1_and_the_next_step(tenure: Tenure, cluster: FakeCluster) -> None:
    cluster.trial = registry_pb2.DryRunResponse(
        message="Waiting: no host has capability gpu", next_action="Give a pool that capability.", verdicts=[REJECTED]
    )
    result = tenure("place", "--dry-run", "--class", "Counter")
    assert result.exit_code == 1
    assert "fits nowhere. Waiting: no host has capability gpu" in result.stdout
    assert "Next: Give a pool that capability." in result.stdout
    shown = tenure("place", "--dry-run", "--class", "Counter", "-o", "json")
    assert shown.exit_code == 1
    assert json.loads(shown.stdout)["verdicts"][0]["rejected"] == "capabilities"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("place", "--class", "Counter"), "`tenure place` only shows where agents would go. Add --dry-run"),
        (("place", "--dry-run"), "Give manifests with -f, or a class with --class."),
        (("place", "--dry-run", "--class", "C", "--cpu", "much"), "--cpu 500m"),
        (("place", "--dry-run", "--class", "C", "--strategy", "Pack"), "LoadBalanced"),
        (("quarantine", "host-2"), "A quarantine needs a reason."),
        (("quarantine", "host-3", "--reason", "x"), "There is no host 'host-3'. Did you mean 'host-2'?"),
        (("explain", "shop/counter-9"), "There is no agent shop/counter-9."),
    ],
)
def test_a_mistake_is_answered_with_a_sentence(
    tenure: Tenure, cluster: FakeCluster, words: tuple[str, ...], sentence: str
) -> None:
    result = tenure(*words)
    assert result.exit_code in (1, 2)
    assert not result.stdout
    said = " ".join(result.stderr.replace("Error: ", "").replace("Next:  ", "").replace("\n", " ").split())
    assert sentence in said
    assert not cluster.quarantined


def test_explain_tells_why_since_when_and_who_was_before(tenure: Tenure, cluster: FakeCluster) -> None:
    cluster.explanation = registry_pb2.ExplainResponse(
        id="shop/counter-1", summary="Running on node-2", host="host-2", node="node-2", epoch=2, since_wall=NOW - 65,
        assigned_reason="LeaseExpired", strategy="LoadBalanced", explanation="host-2 0.25; rejected: 1 silent",
        last_host="host-1", last_node="node-1", previous_explanation="host-1 0.25; then host-2 0.50",
        decisions=[registry_pb2.Decision(epoch=2, host="host-2", wall=NOW - 65, reason="LeaseExpired")],
    )  # fmt: skip
    lines = tenure("explain", "counter-1").stdout.splitlines()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines[:8])}
    assert fields["Where"] == "host-2 (node-2), epoch 2"
    assert fields["Since"].endswith("(65s ago)")
    assert fields["Because"] == "LeaseExpired"
    assert fields["Chosen"] == "host-2 0.25; rejected: 1 silent"
    assert fields["Before"] == "host-1 (node-1)"
    assert any(line.startswith("EPOCH") for line in lines)
    shown = json.loads(tenure("explain", "shop/counter-1", "-o", "json").stdout)
    assert (shown["lastHost"], shown["epoch"]) == ("host-1", "2")


def test_the_last_placements_of_a_host(tenure: Tenure, cluster: FakeCluster) -> None:
    made = [
        registry_pb2.Decision(
            id="shop/a", epoch=2, host="host-2", wall=NOW, reason="Draining", explanation="host-2 1.00"
        ),
        registry_pb2.Decision(id="shop/b", epoch=1, host="host-1", wall=NOW, reason="Scheduled"),
    ]
    cluster.explanation = registry_pb2.ExplainResponse(decisions=made)
    lines = tenure("placements", "--host", "host-2").stdout.splitlines()
    assert lines[0].split() == ["TIME", "AGENT", "EPOCH", "HOST", "REASON", "CHOSEN"]
    assert lines[1].split()[1:] == ["shop/a", "2", "host-2", "Draining", "host-2", "1.00"]
    assert len(lines) == 2
    assert json.loads(tenure("placements", "-o", "json").stdout)["kept"] == 2


def test_explain_tells_what_an_agent_waits_for(tenure: Tenure, cluster: FakeCluster) -> None:
    cluster.explanation = registry_pb2.ExplainResponse(
        id="shop/counter-1", summary="Waiting: no host has capability gpu", reason="CapabilityMissing",
        next_action="Give a pool that capability.", strategy="LoadBalanced", verdicts=[REJECTED], loads_known=True,
    )  # fmt: skip
    text = tenure("explain", "shop/counter-1").stdout
    assert "Where:      nowhere" in text
    assert "Next step:  Give a pool that capability." in text
    assert "without capability gpu" in text


def test_resources_by_node_and_in_all(tenure: Tenure, cluster: FakeCluster) -> None:
    """A node that cannot be reached is there, and says so."""
    room = registry_pb2.Room(
        cpu_capacity=4000, cpu_used=1500, cpu_reserved=500, cpu_free=2000, memory_capacity=4 << 30,
        memory_used=1 << 30, memory_reserved=0, memory_free=3 << 30, agents=7, capacity_known=True,
    )  # fmt: skip
    cluster.rooms = registry_pb2.ResourcesResponse(
        nodes=[
            registry_pb2.NodeRoom(node="node-1", available=True, hosts=1, room=room, load=0.5),
            registry_pb2.NodeRoom(node="node-2", available=False, why="host-2 ended (LeaseExpired)", load=-1),
        ],
        total=room,
        waiting=2,
        agents=9,
    )
    lines = tenure("resources").stdout.splitlines()
    assert [cell for cell in lines[1].split("  ") if cell.strip()][1].strip() == "Available"
    assert lines[1].split()[3:] == ["7", "4", "1500m", "500m", "2", "4Gi", "1Gi", "0Mi", "3Gi", "50%"]
    assert "Unavailable: host-2 ended (LeaseExpired)" in lines[2]
    assert lines[3].split()[0] == "TOTAL"
    assert lines[4] == "2 of 9 agents wait for a host."
    assert json.loads(tenure("resources", "-o", "json").stdout)["nodes"][1]["available"] is False


def test_quarantine_and_its_end(tenure: Tenure, cluster: FakeCluster) -> None:
    assert tenure("quarantine", "host-2", "--reason", "disk").stdout == (
        "host/host-2 is quarantined and takes nothing new; it keeps its 2 agents\n"
    )
    assert tenure("unquarantine", "host-2").stdout == "host/host-2 takes agents again\n"
    assert cluster.quarantined == [("host-2", "disk"), ("host-2", "")]
    cluster.add_host("host-2", quarantined="disk")
    assert "Quarantined: disk" in tenure("get", "hosts").stdout
