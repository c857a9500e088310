"""Nodes, servers, the operator and the API server die; agents go on, and nothing that was acknowledged is lost."""

import json
from typing import Any

from e2e_kube import OPERATOR_NAMESPACE, OURS, Kube, serving
from e2e_load import Load, now

from tools.k8s.backend import Backend

KILLS = 5
TARGET_S = 8.0
API_SERVER_DOWN_S = 60
AGENTS = "agents.tenure.dev"


def operator_pod(kube: Kube) -> dict[str, Any]:
    def look() -> list[dict[str, Any]]:
        return [pod for pod in kube.items("pods", OPERATOR_NAMESPACE, OURS) if serving(pod)]

    return kube.wait("the operator is Ready", 60, look, bool)[0]


def safe_node(kube: Kube) -> str:
    """The operator's node, which these tests spare: what it writes to statuses is looked at while another node dies."""
    return operator_pod(kube)["spec"]["nodeName"]


def on_another_node(kube: Kube, node: str) -> tuple[str, str]:
    """An agent of the example whose node is not `node`, and that node."""
    for item in kube.items(AGENTS):
        where = item.get("status", {}).get("nodeName")
        if where and where != node and item["metadata"]["name"].startswith("counter-"):
            return item["metadata"]["name"], where
    raise AssertionError(f"every agent is on {node}: {kube.kubectl('get', 'agents', '-n', 'shop')}")


def counters(kube: Kube) -> list[str]:
    return sorted(
        item["metadata"]["name"] for item in kube.items(AGENTS) if item["metadata"]["name"].startswith("counter-")
    )


def values(kube: Kube, names: list[str]) -> dict[str, int]:
    return {name: kube.call(f"shop/{name}", "value") for name in names}


def report(**figures: object) -> None:
    print(f"\ne2e-report {json.dumps(figures)}", flush=True)


def test_a_node_is_killed_and_its_agents_answer_elsewhere(machine: Backend, steady: Kube, load: Load) -> None:
    node = safe_node(steady)
    names = counters(steady)
    before = values(steady, names)
    load.start(*names, node=node)
    recoveries = []
    for _ in range(KILLS):
        victim, dying = on_another_node(steady, node)
        epoch = steady.status(victim)["epoch"]
        began = now()
        machine.kill_node(dying)
        dead = now()
        recoveries.append(load.first_reply_after(dead, victim).ended - began)
        status = steady.wait_status(
            victim, 30, lambda seen, e=epoch: seen.get("phase") == "Running" and seen["epoch"] > e, "is shown elsewhere"
        )
        assert status["nodeName"] != dying
        assert status["lastFailover"]["reason"] in ("HostLost", "LeaseExpired")
        machine.start_node(dying)
        steady.wait_steady(120)
    load.finish()
    results = {name: load.check(name, before[name]) for name in names}
    lost = sum(result["lost"] for result in results.values())
    doubled = sum(result["doubled"] for result in results.values())
    report(
        what="node killed -> agent answering elsewhere",
        seconds=[round(value, 2) for value in recoveries],
        worst=round(max(recoveries), 2),
        target=TARGET_S,
        acknowledged=sum(result["acknowledged"] for result in results.values()),
        lost=lost,
        doubled=doubled,
    )
    assert (lost, doubled) == (0, 0)
    assert max(recoveries) <= TARGET_S


def test_the_failover_is_told_while_it_happens(machine: Backend, steady: Kube) -> None:
    victim, dying = on_another_node(steady, safe_node(steady))
    machine.kill_node(dying)
    try:
        seen = steady.wait_status(
            victim, 30, lambda seen: seen["phase"] == "FailingOver" or seen["nodeName"] != dying, "fails over"
        )
        if seen["phase"] == "FailingOver":
            assert f"from {dying}" in seen["summary"]
        status = steady.wait_status(
            victim, 30, lambda seen: seen["phase"] == "Running" and seen["nodeName"] != dying, "is Running elsewhere"
        )
        assert status["summary"].startswith("Running on node-")
        assert status["lastFailover"]["from"]
        assert status["lastFailover"]["durationMs"] > 0
        assert status["restarts"] >= 1
    finally:
        machine.start_node(dying)


def test_the_leader_of_the_servers_is_killed(steady: Kube, load: Load) -> None:
    names = counters(steady)
    before = values(steady, names)
    load.start(*names, node=safe_node(steady))
    leader = steady.items("agentclusters.tenure.dev")[0]["status"]["leader"]
    began = now()
    steady.kubectl("delete", "pod", leader, "-n", "shop", "--force", "--grace-period=0")
    dead = now()
    pauses = [load.first_reply_after(dead + 0.5, name).ended - began for name in names]

    def another() -> dict[str, Any]:
        return steady.items("agentclusters.tenure.dev")[0]["status"]

    steady.wait(
        "another leader is shown", 60, another, lambda seen: bool(seen.get("leader")) and seen["leader"] != leader
    )
    steady.wait_steady(120)
    load.finish()
    results = [load.check(name, before[name]) for name in names]
    report(
        what="leader killed -> agents answering",
        seconds=[round(pause, 2) for pause in pauses],
        worst=round(max(pauses), 2),
    )
    assert sum(result["lost"] + result["doubled"] for result in results) == 0


def test_the_operator_is_killed_and_nobody_notices(steady: Kube, load: Load) -> None:
    names = counters(steady)
    before = values(steady, names)
    epochs = {name: steady.status(name)["epoch"] for name in names}
    load.start(*names, node=safe_node(steady))
    old = operator_pod(steady)["metadata"]["name"]
    steady.kubectl("delete", "pod", old, "-n", OPERATOR_NAMESPACE, "--force", "--grace-period=0")

    def successor() -> list[str]:
        return [name for name in steady.ready_pods(OURS, OPERATOR_NAMESPACE) if name != old]

    steady.wait("another operator is Ready", 90, successor, bool)
    probe = json.dumps(
        {
            "apiVersion": "tenure.dev/v1alpha1",
            "kind": "Agent",
            "metadata": {"name": "after-operator", "namespace": "shop"},
            "spec": {"class": "Counter"},
        }
    )
    steady.kubectl("apply", "-f", "-", stdin=probe)
    steady.wait_running("after-operator")
    steady.kubectl("delete", AGENTS, "after-operator", "-n", "shop", "--timeout=30s")
    load.finish()
    results = [load.check(name, before[name]) for name in names]
    assert sum(result["lost"] + result["doubled"] for result in results) == 0
    assert {name: steady.status(name)["epoch"] for name in names} == epochs


def test_the_api_server_is_down_for_a_minute_and_a_node_dies_meanwhile(
    machine: Backend, steady: Kube, load: Load
) -> None:
    node = safe_node(steady)
    names = counters(steady)
    before = values(steady, names)
    victim, dying = on_another_node(steady, node)
    load.start(*names, node=node)
    machine.stop_api_server()
    down = now()
    try:
        machine.kill_node(dying)
        dead = now()
        steady.wait(
            "a minute without API server", API_SERVER_DOWN_S + 5, now, lambda moment: moment >= down + API_SERVER_DOWN_S
        )
    finally:
        up = now()
        machine.start_api_server()
    machine.start_node(dying)
    steady.wait("the load's log can be read again", 60, load.calls, bool)
    recovery = load.first_reply_after(dead, victim).ended - dead
    during = [call for call in load.calls() if down < call.ended < up and call.count is not None]
    assert {call.agent for call in during} == set(names), "an agent did not answer without API server"
    steady.wait_steady(180)
    status = steady.wait_running(victim)
    load.finish()
    results = [load.check(name, before[name]) for name in names]
    report(
        what="API server down, node killed -> agent answering elsewhere",
        seconds=round(recovery, 2),
        answered=len(during),
    )
    assert sum(result["lost"] + result["doubled"] for result in results) == 0
    assert status["epoch"] >= 2
    assert recovery <= TARGET_S
