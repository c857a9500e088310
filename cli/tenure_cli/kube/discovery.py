"""Finds the AgentCluster and a server pod that answers: kubectl is asked, pure functions decide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenure_cli.errors import CliError
from tenure_cli.kube.kubectl import Kubectl

RESOURCE = "agentclusters.tenure.dev"


@dataclass(frozen=True)
class ClusterRef:
    """An AgentCluster."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


async def find_cluster(kubectl: Kubectl, namespace: str) -> ClusterRef:
    """The only AgentCluster of `namespace`; without one, of the context's namespace, else of all. Raises CliError."""
    if namespace:
        return choose(await kubectl.get(RESOURCE, "-n", namespace), f"Namespace {namespace}")
    here = await kubectl.get(RESOURCE)
    if here["items"]:
        return choose(here, "The namespace of the context")
    return choose(await kubectl.get(RESOURCE, "--all-namespaces"), "This Kubernetes cluster")


def choose(found: Mapping[str, Any], where: str) -> ClusterRef:
    """The only one of a list. Raises CliError for none and for several."""
    clusters = [ClusterRef(item["metadata"]["namespace"], item["metadata"]["name"]) for item in found["items"]]
    if not clusters:
        raise CliError(
            f"{where} has no AgentCluster.", "Create one, for example: kubectl apply -n shop -f examples/counter"
        )
    if len(clusters) > 1:
        names = ", ".join(str(cluster) for cluster in clusters)
        raise CliError(f"{where} has several AgentClusters: {names}.", "Choose a namespace with one by `--namespace`.")
    return clusters[0]


async def reachable_servers(kubectl: Kubectl, cluster: ClusterRef) -> list[str]:
    """Names of server pods to try, the best first. Raises CliError when none runs."""
    selector = f"tenure.dev/cluster={cluster.name},app.kubernetes.io/component=server"
    pods = await kubectl.get("pods", "-n", cluster.namespace, "-l", selector)
    names = reachable_pods(pods["items"])
    if not names:
        raise CliError(
            f"No server of {cluster} runs ({len(pods['items'])} pods).",
            f"`kubectl get pods -n {cluster.namespace} -l {selector}` and `kubectl describe agc -n"
            f" {cluster.namespace} {cluster.name}` say why.",
        )
    return names


def reachable_pods(pods: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of pods that run and are not on their way out, the Ready ones first. Pure.

    A pod that is not Ready may well answer: after an outage of the API server Kubernetes calls all of them so for a
    while, and a server that is not caught up says that itself.
    """
    ready: list[str] = []
    running: list[str] = []
    for pod in pods:
        status = pod.get("status", {})
        if pod["metadata"].get("deletionTimestamp") or status.get("phase") != "Running":
            continue
        good = any(found["type"] == "Ready" and found["status"] == "True" for found in status.get("conditions", []))
        (ready if good else running).append(pod["metadata"]["name"])
    return ready + running
