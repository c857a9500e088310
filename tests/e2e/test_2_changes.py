"""Changes that a user makes to a running cluster: pools, specs, nodes, agents."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from e2e_kube import Kube, condition, name_of

CLUSTERS = "agentclusters.tenure.dev"
AGENTS = "agents.tenure.dev"
Apply = Callable[..., str]


def cluster_name(kube: Kube) -> str:
    return kube.items(CLUSTERS)[0]["metadata"]["name"]


def patch_pool(kube: Kube, **fields: object) -> None:
    """Change fields of the first pool; None removes one."""
    spec = kube.items(CLUSTERS)[0]["spec"]
    pool = {name: value for name, value in {**spec["pools"][0], **fields}.items() if value is not None}
    change = json.dumps({"spec": {"pools": [pool, *spec["pools"][1:]]}})
    kube.kubectl("patch", CLUSTERS, cluster_name(kube), "-n", "shop", "--type=merge", "-p", change)


def agent(name: str, **spec: object) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop"}
    return {
        "apiVersion": "tenure.dev/v1alpha1",
        "kind": "Agent",
        "metadata": metadata,
        "spec": {"class": "Counter", **spec},
    }


@pytest.fixture
def spare(shop: Kube) -> Iterator[Apply]:
    """Agents made by a test, removed after it."""
    made = []

    def apply(name: str, **spec: object) -> str:
        shop.kubectl("apply", "-f", "-", stdin=json.dumps(agent(name, **spec)))
        made.append(name)
        return name

    yield apply
    for name in made:
        shop.kubectl("delete", AGENTS, name, "-n", "shop", "--ignore-not-found", "--timeout=60s")


def counted(cluster: Kube) -> dict[str, Any]:
    """Each agent, and what it has counted to."""
    names = [name_of(item) for item in cluster.items(AGENTS)]
    return {name: cluster.call(f"shop/{name}", "value") for name in names}


def test_a_pool_shrinks_and_grows_and_its_agents_stay(steady: Kube) -> None:
    counts = counted(steady)
    patch_pool(steady, replicas=2)
    steady.wait(
        "two hosts are left",
        150,
        lambda: steady.ready_pods("app.kubernetes.io/component=host"),
        lambda pods: len(pods) == 2,
    )
    steady.wait_steady(60)
    for name, count in counts.items():
        # Two pods may be ready before the two that stay are, and a host serves before the kubelet calls its pod ready.
        steady.wait(
            f"{name} runs in a pod that is ready",
            60,
            lambda name=name: (
                steady.wait_running(name)["host"],
                steady.ready_pods("app.kubernetes.io/component=host"),
            ),
            lambda seen: seen[0] in seen[1] and len(seen[1]) == 2,
        )
        assert steady.call(f"shop/{name}", "value") == count
    patch_pool(steady, replicas=None)
    steady.wait(
        "a host on every node",
        120,
        lambda: steady.ready_pods("app.kubernetes.io/component=host"),
        lambda pods: len(pods) == 3,
    )


def test_an_edit_of_an_agent_takes_effect(shop: Kube, spare: Apply) -> None:
    name = spare("edited")
    shop.wait_running(name)
    shop.kubectl("patch", AGENTS, name, "-n", "shop", "--type=merge", "-p", '{"spec": {"critical": false}}')
    generation = shop.get(AGENTS, name)["metadata"]["generation"]
    status = shop.wait_status(name, 20, lambda seen: seen.get("observedGeneration") == generation, "has seen the edit")
    assert status["phase"] == "Running"
    _, out, _ = shop.tenure("get", "agents", "-o", "json")
    row = next(entry for entry in json.loads(out)["items"] if entry["spec"]["id"] == f"shop/{name}")
    assert row["spec"]["critical"] is False


def test_an_edit_of_a_pool_reaches_its_workers(steady: Kube) -> None:
    counts = counted(steady)
    patch_pool(steady, env=[{"name": "SHOP_GREETING", "value": "hello"}])
    daemonset = f"{cluster_name(steady)}-host-{steady.items(CLUSTERS)[0]['spec']['pools'][0]['name']}"

    def rolled() -> dict[str, Any]:
        found = steady.get("daemonset", daemonset)
        containers = found["spec"]["template"]["spec"]["containers"]
        named = any(entry["name"] == "SHOP_GREETING" for entry in containers[0].get("env", []))
        status = found["status"]
        new = (
            status.get("updatedNumberScheduled", 0) == status["desiredNumberScheduled"] == status.get("numberReady", 0)
        )
        return {"named": named, "status": status, "done": named and new}

    steady.wait("every worker has the new environment", 240, rolled, lambda seen: seen["done"])
    steady.wait_steady(60)
    for pod in steady.ready_pods("app.kubernetes.io/component=host"):
        look = "import os; print(os.environ['SHOP_GREETING'])"
        assert steady.kubectl("exec", "-n", "shop", pod, "--", "python", "-c", look).strip() == "hello"
    for name, count in counts.items():
        steady.wait_running(name)
        assert steady.call(f"shop/{name}", "value") == count


def closed_nodes(cluster: Kube) -> set[str]:
    """The nodes whose hosts take no new agents, as the cluster says."""
    _, out, _ = cluster.tenure("get", "hosts", "-o", "json")
    return {row["node"] for row in json.loads(out)["items"] if not row["schedulable"]}


def test_a_cordoned_node_receives_nothing_new(steady: Kube, spare: Apply) -> None:
    """What runs there stays until the node is drained: cordoning alone moves nothing."""
    before = steady.status("counter-1")
    node = before["nodeName"]
    steady.kubectl("cordon", node)
    try:
        # Two watches of the operator bring the node and the agents: none of them says what the other has brought.
        steady.wait("its host takes no new agents", 20, lambda: closed_nodes(steady), lambda nodes: nodes == {node})
        names = [f"new-{number}" for number in range(6)]
        for name in names:
            spare(name)
        assert node not in {steady.wait_running(name)["nodeName"] for name in names}
        after = steady.status("counter-1")
        assert (after["nodeName"], after["epoch"]) == (node, before["epoch"])
    finally:
        steady.kubectl("uncordon", node)


def test_a_deleted_agent_is_stopped_and_gone(shop: Kube, spare: Apply) -> None:
    name = spare("short-lived")
    shop.wait_running(name)
    assert shop.call(f"shop/{name}", "increment", "--by", "5") == 5
    shop.kubectl("delete", AGENTS, name, "-n", "shop", "--timeout=30s")
    _, out, _ = shop.tenure("get", "agents")
    assert name not in out
    status, _, err = shop.tenure("call", f"shop/{name}", "value", check=False)
    assert status
    assert name in err
    spare(name)  # a new one of the same name begins anew
    shop.wait_running(name)
    assert shop.call(f"shop/{name}", "value") == 0


def test_an_edit_of_the_initial_state_changes_nothing_and_says_so(shop: Kube, spare: Apply) -> None:
    name = spare("initial", state={"count": 7})
    shop.wait_running(name)
    assert shop.call(f"shop/{name}", "value") == 7
    shop.kubectl("patch", AGENTS, name, "-n", "shop", "--type=merge", "-p", '{"spec": {"state": {"count": 100}}}')
    generation = shop.get(AGENTS, name)["metadata"]["generation"]
    status = shop.wait_status(name, 20, lambda seen: seen.get("observedGeneration") == generation, "has seen the edit")
    said = json.dumps(status["conditions"])
    assert "initial" in said or "state" in said, said
    assert shop.call(f"shop/{name}", "value") == 7
    assert condition(status, "Ready")["status"] == "True"
