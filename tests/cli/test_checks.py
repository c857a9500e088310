"""What the doctor finds, and when waiting for an agent is given up."""

from collections.abc import Callable

import pytest
from typer.testing import Result

from tenure_cli import checks, ready
from tenure_cli.errors import CliError
from tests.cli.cli_fake_cluster import NOW, FakeCluster

Tenure = Callable[..., Result]


def bad(cluster: FakeCluster) -> list[str]:
    """The checks that fail, as "name: detail"."""
    verdicts = checks.examine(cluster.answer, cluster.rows, NOW)
    assert [verdict.name for verdict in verdicts] == ["certificate", "servers", "quorum", "hosts", "workers", "agents"]
    assert all(verdict.next_step for verdict in verdicts if not verdict.good)
    return [f"{verdict.name}: {verdict.detail}" for verdict in verdicts if not verdict.good]


def test_a_healthy_cluster_gets_only_ticks(tenure: Tenure, cluster: FakeCluster) -> None:
    """Exit status 0."""
    assert bad(cluster) == []
    result = tenure("doctor")
    assert result.exit_code == 0
    assert [line[0] for line in result.stdout.splitlines()] == ["✓"] * 7


def test_a_lost_server_is_named(cluster: FakeCluster) -> None:
    """Two of three still make a quorum."""
    cluster.answer.servers[2].role = "unreachable"
    cluster.answer.quorum_ready = 2
    assert bad(cluster) == ["servers: 2 of 3 answer; not server-2"]


def test_a_server_that_cannot_write_a_snapshot_is_named(cluster: FakeCluster) -> None:
    """Its volume fills up until it stops."""
    cluster.answer.servers[1].snapshot_failure = "[Errno 28] No space left on device"
    assert bad(cluster) == ["servers: server-1 cannot write a snapshot: [Errno 28] No space left on device"]


def test_no_quorum(cluster: FakeCluster) -> None:
    """One of three is none."""
    cluster.answer.leader = ""
    assert bad(cluster) == ["quorum: no server leads"]
    cluster.answer.leader = "server-1"
    cluster.answer.quorum_ready = 1
    assert bad(cluster) == ["quorum: 1 of 3 are caught up"]


def test_a_certificate_that_ends(cluster: FakeCluster) -> None:
    """Before it has ended, too."""
    cluster.answer.certificate_expires_wall = NOW + 600
    assert bad(cluster) == ["certificate: ends in 10 min"]
    cluster.answer.certificate_expires_wall = NOW - 1
    assert bad(cluster) == ["certificate: the servers' certificate has ended"]


def test_a_pool_without_a_host_and_a_host_that_starts(cluster: FakeCluster) -> None:
    """The first is said of the pool, the second of the host."""
    cluster.add_host("host-9", ready=False)
    assert bad(cluster) == ["hosts: 1 of 2 ready; host-9: Starting"]
    cluster.rows.hosts.clear()
    assert bad(cluster)[0] == "hosts: the pool 'default' has no host"


def test_an_agent_that_waits_is_named_with_the_near_class(tenure: Tenure, cluster: FakeCluster) -> None:
    """Exit status 1, and what to do."""
    cluster.add_agent(
        "shop/lost", class_="Countr", ready=False, summary="Waiting: no such class", reason="ClassNotFound"
    )
    result = tenure("doctor")
    assert result.exit_code == 1
    assert "✗ agents: 1 of 2 Ready; shop/lost: Waiting: no such class" in result.stdout
    assert "next: Did you mean 'Counter'?" in result.stdout


ENDED = {"phase": "Ended", "summary": "Ended: done", "reason": "Ended", "ended": "done", "ready": False}


def test_an_agent_that_has_ended_is_no_trouble(tenure: Tenure, cluster: FakeCluster) -> None:
    """Its object stands, and it is not meant to be Ready."""
    cluster.add_agent("shop/over", **ENDED)
    assert tenure("doctor").exit_code == 0


async def test_nobody_waits_for_an_agent_that_has_ended(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever applies its object again hears at once what to do."""
    monkeypatch.setattr(ready, "SETTLED_S", 0.0)
    step = "Delete the Agent; apply it again to begin anew."
    cluster.add_agent("shop/over", **ENDED, next_action=step)
    cluster.changes = [lambda _: None] * 3
    with pytest.raises(CliError, match=r"shop/over is not Ready: Ended: done\. Delete the Agent"):
        await ready.wait_until_ready(cluster, ["shop/over"], 30)


def test_dead_letters_are_found(tenure: Tenure, cluster: FakeCluster) -> None:
    """With the agent that has the most."""
    cluster.add_agent("shop/few", dead_letters=1)
    result = tenure("doctor")
    assert (result.exit_code, "✗ dead letters: 1 in shop/few" in result.stdout) == (1, True)
    cluster.add_agent("shop/many", dead_letters=4)
    result = tenure("doctor")
    assert "✗ dead letters: 5 in 2 agents, most in shop/many" in result.stdout
    assert "next: `tenure dlq list shop/many`" in result.stdout


async def test_waiting_ends_when_all_are_ready(cluster: FakeCluster) -> None:
    """As soon as the watch says so."""
    row = cluster.add_agent("shop/slow", ready=False)

    def become_ready(_: object) -> None:
        row.ready = True

    cluster.changes = [become_ready]
    rows = await ready.wait_until_ready(cluster, ["shop/slow", "shop/counter-1"], 30)
    assert rows.agents[row.uid].ready


async def test_waiting_ends_early_when_it_is_hopeless(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that no host has does not appear by waiting; a short doubt is left for hosts that are still coming."""
    monkeypatch.setattr(ready, "SETTLED_S", 0.0)
    cluster.add_agent("shop/lost", class_="Countr", ready=False, summary="Waiting: no class", reason="ClassNotFound")
    cluster.changes = [lambda _: None] * 3
    with pytest.raises(CliError, match=r"shop/lost is not Ready: Waiting: no class\. Did you mean 'Counter'\?"):
        await ready.wait_until_ready(cluster, ["shop/lost"], 30)


async def test_waiting_has_an_end(cluster: FakeCluster) -> None:
    """After it, the first agent that is not Ready is named with its status."""
    cluster.add_agent("shop/slow", ready=False, summary="Starting on node-1")
    with pytest.raises(CliError, match=r"shop/slow is not Ready: Starting on node-1\."):
        await ready.wait_until_ready(cluster, ["shop/slow"], 0.05)
    with pytest.raises(CliError, match="shop/none did not appear in the registry"):
        await ready.wait_until_ready(cluster, ["shop/none"], 0.05)
