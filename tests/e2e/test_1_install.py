"""From nothing to an agent that answers: what the README promises, done in its order."""

import json
import re
from typing import Any

from e2e_kube import OPERATOR_NAMESPACE, Kube, ready


def test_the_chart_installs_an_operator_and_nothing_else(kube: Kube) -> None:
    deployments = kube.items("deployments", OPERATOR_NAMESPACE)
    assert [ready_replicas(deployment) for deployment in deployments] == [1]
    assert not kube.items("statefulsets", OPERATOR_NAMESPACE)
    assert not kube.items("daemonsets", OPERATOR_NAMESPACE)
    served = kube.kubectl("api-resources", "--api-group=tenure.dev", "-o", "name").split()
    assert sorted(served) == ["agentclusters.tenure.dev", "agents.tenure.dev"]


def test_every_agent_is_running_and_kubectl_says_so_in_a_sentence(shop: Kube) -> None:
    lines = shop.kubectl("get", "agents", "-n", "shop").splitlines()
    header, rows = lines[0], lines[1:]
    assert header.split() == ["NAME", "READY", "STATUS", "NODE", "EPOCH", "RESTARTS", "AGE"]
    assert rows
    for row in rows:
        assert re.search(r"^\S+\s+True\s+Running on node-\d\s+node-\d\s+\d+\s+0\s", row), row


def test_the_cluster_says_that_it_is_whole(shop: Kube) -> None:
    status = shop.items("agentclusters.tenure.dev")[0]["status"]
    assert ready(status)
    assert status["quorum"] == "3/3"
    assert status["hosts"] == "3/3"
    assert status["leader"]
    assert {member["role"] for member in status["members"]} == {"leader", "follower"}
    assert "Counter" in status["pools"][0]["classes"]


def test_a_call_through_the_port_forward_of_the_command_line(shop: Kube) -> None:
    before = shop.call("shop/counter-1", "value")
    assert shop.call("shop/counter-1", "increment", "--by", "2") == before + 2
    assert shop.call("shop/counter-1", "value") == before + 2


def test_the_command_line_lists_agents_and_hosts(shop: Kube) -> None:
    _, out, _ = shop.tenure("get", "agents")
    assert "counter-1" in out
    _, out, _ = shop.tenure("get", "hosts")
    assert len([line for line in out.splitlines() if "-host-" in line]) == 3


def test_every_pod_passes_pod_security_restricted(shop: Kube) -> None:
    """The namespace enforces it, so that pods of another kind could not exist; the operator's is asked for here."""
    labels = shop.get("namespace", "shop")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert len(shop.ready_pods("app.kubernetes.io/component=server")) == 3
    assert len(shop.ready_pods("app.kubernetes.io/component=host")) == 3
    said = shop.run(
        *("kubectl", "label", "--dry-run=server", "--overwrite", "namespace", OPERATOR_NAMESPACE),
        "pod-security.kubernetes.io/enforce=restricted",
    )
    assert "violate" not in said[2], said[2]


def test_nothing_is_restarting(shop: Kube) -> None:
    for pod in shop.items("pods") + shop.items("pods", OPERATOR_NAMESPACE):
        states = pod["status"]["containerStatuses"] + pod["status"].get("initContainerStatuses", [])
        restarts = {state["name"]: state["restartCount"] for state in states}
        assert set(restarts.values()) == {0}, (pod["metadata"]["name"], json.dumps(restarts))


def ready_replicas(deployment: dict[str, Any]) -> int:
    return deployment["status"].get("readyReplicas", 0)
