"""Clusters: what the operator makes of what it sees. The agents' part: test_policies.py."""

from typing import Any

import pytest
from operator_views import CLAIM, NOW, of, old, pod, row, view

from tenure_api.agentcluster import AgentClusterSpec
from tenure_operator.policies import clusters, rolls
from tenure_operator.policies.clusters import ClusterView
from tenure_operator.registry.values import ClusterState, HostRow


def daemonset(desired: int = 3, updated: int = 3, seen: int = 1) -> dict[str, Any]:
    status = {"desiredNumberScheduled": desired, "updatedNumberScheduled": updated, "observedGeneration": seen}
    metadata = {"name": "demo-host-default", "generation": 1, "labels": {"tenure.dev/pool": "default"}}
    return {"kind": "DaemonSet", "metadata": metadata, "spec": {}, "status": status}


def statefulset(seen: int = 1) -> dict[str, Any]:
    status = {"updateRevision": "new", "observedGeneration": seen}
    return {"metadata": {"generation": 1}, "spec": {"replicas": 3}, "status": status}


def healthy(**fields: Any) -> ClusterView:
    """Three servers, three hosts, nothing amiss."""
    pool = {"name": "default", "image": "i", "modules": ["m"]}
    given: dict[str, Any] = {
        "namespace": "shop",
        "name": "demo",
        "generation": 1,
        "deleting": False,
        "finalized": True,
        "annotations": {},
        "status": {"agents": 1},
        "spec": AgentClusterSpec.model_validate({"pools": [pool]}),
        "statefulset": statefulset(),
        "server_pods": tuple(pod(f"demo-server-{n}") for n in range(3)),
        "host_sets": (daemonset(),),
        "reachable": True,
        "state": ClusterState(leader="demo-server-1", term=4, quorum_ready=3),
        "hosts": tuple(HostRow(name=f"h{n}", incarnation=f"i{n}", pool="default", ready=True) for n in range(3)),
    }
    return ClusterView(**{**given, **fields})


def ephemeral() -> AgentClusterSpec:
    pool = {"name": "default", "image": "i", "modules": ["m"]}
    return AgentClusterSpec.model_validate({"pools": [pool], "servers": {"storage": {"type": "Ephemeral"}}})


BROKEN = HostRow(
    name="h",
    incarnation="i",
    pool="default",
    node="node-a",
    worker_error="ModuleNotFoundError: agents",
    worker_reason="ImportFailed",
)
SAID = {
    "all is well": (healthy(), "Running", "True", "Running: 3 servers, 3 hosts, 0 agents"),
    "a host is missing": (
        healthy(hosts=healthy().hosts[:1]),
        "Degraded",
        "True",
        "Running: Pool default: 1 of 3 hosts are ready.",
    ),
    "user code cannot be imported": (
        healthy(hosts=(BROKEN,)),
        "Degraded",
        "False",
        "Waiting: Pool default: 0 of 3 hosts are ready; no worker on node-a: ModuleNotFoundError: agents",
    ),
    "no node fits": (
        healthy(host_sets=(daemonset(0, 0),)),
        "Degraded",
        "False",
        "Waiting: Pool default: no node takes its hosts. Check nodeSelector, affinity and tolerations.",
    ),
    "one server lags": (
        healthy(state=ClusterState(leader="demo-server-1", term=4, quorum_ready=2)),
        "Degraded",
        "True",
        "Running: 2 of 3 servers are caught up, demo-server-1 leads (term 4).",
    ),
    "no majority": (
        healthy(state=ClusterState(quorum_ready=1)),
        "Degraded",
        "False",
        "No quorum: 1 of 3 servers are caught up, none leads.",
    ),
    "the servers went silent": (
        healthy(reachable=False, problem="unavailable"),
        "Degraded",
        "False",
        "No quorum: No server answers: unavailable.",
    ),
    "servers start": (
        healthy(status={}, reachable=False, server_pods=(pod("demo-server-0"),)),
        "Creating",
        "False",
        "Starting: 1 of 3 servers are ready",
    ),
    "a claim waits": (
        healthy(status={}, reachable=False, claims=(CLAIM,), storage_classes=()),
        "Creating",
        "False",
        (
            "Waiting: Claim data-demo-server-0 waits: no default StorageClass. Make a default StorageClass, "
            "name one in servers.storage, or use storage.type Ephemeral for a trial."
        ),
    ),
    "a spec that cannot be read": (
        healthy(spec=None, invalid="spec.pools is missing"),
        "Pending",
        "True",
        "Not accepted: spec.pools is missing",
    ),
    "agents are left": (
        healthy(deleting=True, rows=(row(view()),)),
        "Terminating",
        "True",
        (
            "Deletion blocked: 1 agent. Delete the agents first, or annotate the cluster with "
            'tenure.dev/delete-agents: "true".'
        ),
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_a_cluster_says_how_it_is_in_a_sentence(case: str) -> None:
    seen, phase, ready, summary = SAID[case]
    status = clusters.status(seen, NOW)
    assert (status["summary"], status["phase"], of(status, "Ready")[0]) == (summary, phase, ready)


DEGRADED = {
    "EphemeralStorage": healthy(spec=ephemeral()),
    "ImportFailed": healthy(hosts=(BROKEN,)),
    "ClaimWaiting": healthy(claims=(CLAIM,), storage_classes=()),
    "ObjectRefused": healthy(refused="DaemonSet x: no"),
    "DeletionBlocked": healthy(deleting=True, rows=(row(view()),)),
}


@pytest.mark.parametrize("reason", DEGRADED)
def test_what_degrades_a_cluster_is_a_condition(reason: str) -> None:
    assert of(clusters.status(DEGRADED[reason], NOW), "Degraded") == ("True", reason)


MAY_GO = {
    "nobody left": (healthy(), True),
    "a row left": (healthy(rows=(row(view()),)), False),
    "asked to": (healthy(rows=(row(view()),), annotations={clusters.DELETE_AGENTS: "true"}), True),
    "namespace ends": (healthy(rows=(row(view()),), namespace_going=True), True),
    "silent, one known": (healthy(reachable=False), False),
    "silent, none known": (healthy(reachable=False, status={"agents": 0}), True),
    "never answered": (healthy(reachable=False, status={}), True),
    "never answered, but objects have run": (healthy(reachable=False, status={}, object_agents=1), False),
}


@pytest.mark.parametrize("case", MAY_GO)
def test_a_cluster_goes_only_without_agents(case: str) -> None:
    seen, expected = MAY_GO[case]
    assert clusters.may_go(seen) is expected


S0, S1, S2 = (f"demo-server-{n}" for n in range(3))
ROLLS = {
    "nothing outdated": (old(), "x", 3, 1, None),
    "highest first": (old(S0, S1, S2), S0, 3, 1, S2),
    "the leader is passed over": (old(S0, S1, S2), S2, 3, 1, S1),
    "the leader goes last": (old(S1), S1, 3, 1, S1),
    "not while one catches up": (old(S0, S1), S2, 2, 1, None),
    "not without a leader": (old(S0), "", 3, 1, None),
    "not while one is missing": (old(S0, S1)[:2], S1, 3, 1, None),
    "not while one goes": ((*old(S0)[:2], pod(S2, going=True)), S1, 3, 1, None),
    "not while a new one starts": ((*old(S0)[:2], pod(S2, ready=False)), S1, 3, 1, None),
    "a broken outdated one first": ((pod(S0, ready=False, revision="old"), *old(S1)[1:]), "", 0, 1, S0),
    "not before the controller has looked": (old(S0), S1, 3, 0, None),
}


@pytest.mark.parametrize("case", ROLLS)
def test_servers_are_replaced_one_at_a_time_the_leader_last(case: str) -> None:
    found, leader, caught_up, seen, expected = ROLLS[case]
    servers = rolls.Servers(statefulset=statefulset(seen), pods=found, leader=leader, caught_up=caught_up)
    assert rolls.next_server(servers) == expected
