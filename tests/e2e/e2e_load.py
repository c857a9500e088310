"""Traffic: a pod that increments agents, and what its log proves. All nodes share the machine's wall clock."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e_kube import Kube

from tools.k8s.project import TENURED

NAME = "load"
SCRIPT = Path(__file__).with_name("client_pod.py")


@dataclass(frozen=True)
class Call:
    """One increment: wall times, and the count that was replied or the error."""

    agent: str
    began: float
    ended: float
    count: int | None = None
    error: str = ""


class Load:
    """The pod, in namespace shop, as the cluster's client ServiceAccount."""

    def __init__(self, kube: Kube) -> None:
        self.kube = kube

    def start(self, *agents: str, node: str) -> None:
        """Start incrementing `agents` from `node`, and return once each has replied."""
        cluster = self.kube.items("agentclusters.tenure.dev")[0]["metadata"]["name"]
        self.kube.kubectl("apply", "-n", "shop", "-f", "-", stdin=json.dumps(_objects(cluster, agents, node)))
        self.kube.wait("the load has replies from every agent", 60, self._agents_seen, lambda seen: seen >= set(agents))

    def calls(self) -> list[Call]:
        """Every call so far, in the order of their ends."""
        _, out, _ = self.kube.run("kubectl", "logs", "-n", "shop", NAME, check=False)
        complete = out[: out.rfind("\n") + 1]
        return [Call(**json.loads(line)) for line in complete.splitlines() if line.startswith("{")]

    def first_reply_after(self, moment: float, agent: str, seconds: float = 40) -> Call:
        """The first acknowledged increment of `agent` that began or ended after `moment` (wall time, seconds)."""

        def look() -> list[Call]:
            return [
                call for call in self.calls() if call.agent == agent and call.count is not None and call.ended > moment
            ]

        return self.kube.wait(f"{agent} answers again", seconds, look, bool)[0]

    def stop(self) -> None:
        self.kube.run(
            "kubectl", "delete", "pod,configmap", NAME, "-n", "shop", "--ignore-not-found", "--now", check=False
        )

    def _agents_seen(self) -> set[str]:
        return {call.agent for call in self.calls() if call.count is not None}

    def finish(self) -> None:
        """Let every agent's last call end, and the pod."""
        self.kube.kubectl("exec", "-n", "shop", NAME, "--", "touch", "/tmp/stop")
        self.kube.wait(
            "the load ends",
            90,
            lambda: self.kube.get("pod", NAME).get("status", {}).get("phase"),
            lambda phase: phase == "Succeeded",
        )

    def check(self, agent: str, before: int) -> dict[str, int]:
        """Prove from the log, after `finish`, that nothing was lost or doubled since the counter stood at `before`.

        This pod is the only writer of the counter. Replies must rise by one, except for calls whose outcome was not
        known: each of those may have counted once.
        """
        calls = [call for call in self.calls() if call.agent == agent]
        last, open_calls, lost, doubled = before, 0, 0, 0
        for call in calls:
            if call.count is None:
                open_calls += "NotApplied" not in call.error
                continue
            step = call.count - last
            lost += max(0, 1 - step)
            doubled += max(0, step - 1 - open_calls)
            last, open_calls = call.count, 0
        final = self.kube.call(f"shop/{agent}", "value")
        lost += max(0, last - final)
        doubled += max(0, final - last - open_calls)
        acknowledged = sum(call.count is not None for call in calls)
        return {"acknowledged": acknowledged, "lost": lost, "doubled": doubled, "final": final}


def _objects(cluster: str, agents: tuple[str, ...], node: str) -> dict[str, Any]:
    metadata = {"name": NAME, "namespace": "shop"}
    script = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"load.py": SCRIPT.read_text()}}
    token = {
        "serviceAccountToken": {"audience": f"tenure.dev/shop/{cluster}", "expirationSeconds": 3600, "path": "token"}
    }
    authority = {"configMap": {"name": f"{cluster}-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}
    servers = [f"{cluster}-server-{number}.{cluster}-peers.shop" for number in range(3)]
    container = {
        "name": "load",
        "image": TENURED.name,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "/load/load.py", *agents],
        "env": [
            {"name": "TENURE_URL", "value": f"tenure://{','.join(servers)}/shop/{cluster}"},
            {"name": "TENURE_TOKEN_FILE", "value": "/enrolment/token"},
            {"name": "TENURE_CA", "value": "/enrolment/ca.crt"},
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "script", "mountPath": "/load"},
            {"name": "enrolment", "mountPath": "/enrolment"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    spec = {
        "nodeName": node,
        "restartPolicy": "Never",
        "serviceAccountName": f"{cluster}-client",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [
            {"name": "script", "configMap": {"name": NAME}},
            {"name": "enrolment", "projected": {"sources": [token, authority]}},
            {"name": "tmp", "emptyDir": {}},
        ],
        "containers": [container],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    return {"apiVersion": "v1", "kind": "List", "items": [script, pod]}


def now() -> float:
    """Wall time in seconds, as the pod prints it."""
    return time.time()
