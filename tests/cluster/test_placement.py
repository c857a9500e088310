"""Where agents go, through real processes and the command line: what is waited for, what is kept away, what is told."""

import json

import pytest

from tenure_proto.v1 import registry_pb2
from tests.cluster.cluster_local import BROKEN, GOOD, Local

pytestmark = pytest.mark.cluster


def pools(*capabilities: str) -> list[registry_pb2.PoolSpec]:
    """The pools of the shared cluster; the good one with these capabilities."""
    good, broken = (registry_pb2.PoolSpec(name=pool.name, modules=pool.modules) for pool in (GOOD, BROKEN))
    good.capabilities.extend(capabilities)
    return [good, broken]


async def test_an_agent_waits_for_a_capability_and_runs_as_soon_as_a_host_has_it(whole: Local) -> None:
    """DESIGN.md 10, TOPO-09: the sentence, the explanation, the dry run; then it runs."""
    name = await whole.create(requires=["gpu"])
    sentence = "Waiting: no host has capability gpu"
    row = await whole.until(name, lambda row: row.summary == sentence, sentence)
    assert (row.reason, row.host) == ("CapabilityMissing", "")
    explained = await whole.tenure("explain", name)
    assert explained.status == 0, explained.err
    assert sentence in explained.out
    assert "without capability gpu" in explained.out
    tried = await whole.tenure("place", "--dry-run", "--class", "Counter", "--requires", "gpu", "-o", "json")
    assert tried.status == 1
    assert json.loads(tried.out)["message"] == sentence
    try:
        await whole.cluster.apply_pools(pools("gpu"))
        await whole.until(name, lambda row: row.ready, "Ready")
        assert await whole.call(name, "increment") == 1
    finally:
        await whole.cluster.apply_pools(pools())
    assert await whole.call(name, "increment") == 2, "what runs stays where it is"


async def test_a_quarantined_host_keeps_its_agents_and_takes_no_new_ones(whole: Local) -> None:
    """And tells why; until it is lifted."""
    name = await whole.running_agent()
    before = await whole.until(name, lambda row: row.ready, "Ready")
    done = await whole.tenure("quarantine", before.host, "--reason", "disk errors")
    assert done.status == 0, done.err
    try:
        others = [await whole.running_agent() for _ in range(6)]
        hosts = {(await whole.until(other, lambda row: row.ready, "Ready")).host for other in others}
        assert before.host not in hosts
        shown = await whole.tenure("get", "hosts", before.host)
        assert "Quarantined: disk errors" in shown.out
        assert await whole.call(name, "increment") == 1
        after = await whole.until(name, lambda row: row.ready, "Ready")
        assert (after.host, after.epoch) == (before.host, before.epoch)
        tried = json.loads((await whole.tenure("place", "--dry-run", "--class", "Counter", "-o", "json")).out)
        verdicts = {verdict["host"]: verdict["rejected"] for verdict in tried["verdicts"]}
        assert verdicts[before.host] == "quarantine"
        assert tried["host"] in hosts
    finally:
        lifted = await whole.tenure("unquarantine", before.host)
    assert lifted.status == 0, lifted.err
    newcomers = {
        (await whole.until(await whole.running_agent(), lambda row: row.ready, "Ready")).host for _ in range(9)
    }
    assert before.host in newcomers


async def test_explain_and_resources_of_what_runs(local: Local) -> None:
    """Since when, chosen how; capacity by node: nobody told it here, so it is unknown and not nothing."""
    name = await local.running_agent()
    explained = json.loads((await local.tenure("explain", name, "-o", "json")).out)
    assert explained["sinceWall"] > 0
    assert explained["explanation"].startswith(explained["host"])
    assert explained["decisions"][0]["host"] == explained["host"]
    found = json.loads((await local.tenure("resources", "-o", "json")).out)
    nodes = {node["node"]: node for node in found["nodes"]}
    assert {host.node for host in local.running.plan.hosts} <= nodes.keys()
    assert all(node["available"] for node in nodes.values())
    assert found["total"]["agents"] >= 1
    assert not found["total"]["capacityKnown"]
