"""Looking at a cluster and waiting for it, with a deadline; what was seen last is told when the deadline passes."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tools.k8s.backend import Backend
from tools.k8s.project import ROOT
from tools.k8s.standstill import Standstills

T = TypeVar("T")
OPERATOR_NAMESPACE = "tenure-system"
LOGS = ROOT / "build" / "e2e"
OURS = "app.kubernetes.io/name=tenure"
POLL_S = 0.25


class NotSeen(AssertionError):
    """What a test waited for did not come. The message has the state of the cluster."""


class Kube:
    """kubectl, helm and the project's CLI against one cluster, and waits that explain themselves."""

    def __init__(self, backend: Backend, standstills: Standstills) -> None:
        self.backend, self.standstills = backend, standstills
        self.environment = {
            **os.environ,
            "KUBECONFIG": str(backend.kubeconfig),
            "PATH": f"{backend.program('kubectl').parent}{os.pathsep}{os.environ['PATH']}",
        }
        self.environment.pop("TENURE_URL", None)

    def run(self, *words: object, check: bool = True, stdin: str = "", timeout: float = 120) -> tuple[int, str, str]:
        """Run a program: exit status, output, errors. With `check`, a failure is an AssertionError with all of it."""
        command = [str(word) for word in words]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, timeout=timeout, env=self.environment
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.returncode, done.stdout, done.stderr

    def kubectl(self, *words: object, stdin: str = "") -> str:
        return self.run("kubectl", *words, stdin=stdin)[1]

    def refused(self, *words: object, stdin: str = "") -> str:
        """What kubectl said when it was refused; an AssertionError when it was not."""
        status, out, err = self.run("kubectl", *words, check=False, stdin=stdin)
        assert status, f"expected a refusal, got: {out}"
        return err

    def tenure(self, *words: object, check: bool = True, timeout: float = 90) -> tuple[int, str, str]:
        """The project's own CLI, with its own port-forward."""
        return self.run(ROOT / ".venv" / "bin" / "tenure", *words, check=check, timeout=timeout)

    def call(self, agent: str, action: str, *words: object) -> Any:
        """`tenure call`, its reply decoded."""
        return json.loads(self.tenure("call", agent, action, *words)[1])

    def get(self, kind: str, name: str = "", namespace: str = "shop") -> dict[str, Any]:
        """An object, or a list of them; empty when it does not exist or nothing answers."""
        words = ["get", kind, *([name] if name else []), "-n", namespace, "-o", "json", "--ignore-not-found"]
        status, out, _ = self.run("kubectl", *words, check=False)
        return json.loads(out) if not status and out else {}

    def items(self, kind: str, namespace: str = "shop", selector: str = "") -> list[dict[str, Any]]:
        words = ["get", kind, "-n", namespace, "-o", "json", *(["-l", selector] if selector else [])]
        status, out, _ = self.run("kubectl", *words, check=False)
        return json.loads(out)["items"] if not status else []

    def wait(self, what: str, seconds: float, look: Callable[[], T], until: Callable[[T], bool]) -> T:
        """Look until `until` holds. After `seconds`, a NotSeen with what was seen last and the state."""
        deadline = time.monotonic() + seconds
        while True:
            seen = look()
            if until(seen):
                return seen
            if time.monotonic() > deadline:
                text = seen if isinstance(seen, str) else json.dumps(seen, indent=1, default=str)
                raise NotSeen(f"{seconds:.0f} s passed without: {what}. Seen last:\n{text[:6000]}\n{self.state()}")
            time.sleep(POLL_S)  # kubectl runs on the processors that the cluster under test needs

    def status(self, name: str, kind: str = "agents.tenure.dev", namespace: str = "shop") -> dict[str, Any]:
        return self.get(kind, name, namespace).get("status", {})

    def wait_status(
        self, name: str, seconds: float, until: Callable[[dict[str, Any]], bool], what: str
    ) -> dict[str, Any]:
        """Wait for an agent's status."""
        return self.wait(
            f"agent {name} {what}", seconds, lambda: self.status(name), lambda seen: bool(seen) and until(seen)
        )

    def wait_running(self, name: str, seconds: float = 60) -> dict[str, Any]:
        return self.wait_status(
            name, seconds, lambda seen: seen.get("phase") == "Running" and ready(seen), "is Running"
        )

    def wait_steady(self, seconds: float) -> None:
        """Wait until the AgentCluster is Ready and whole, and Kubernetes says the same of every node and pod.

        The two differ for a while: a kubelet looks every second, and Kubernetes calls every pod of a node not Ready
        whose kubelet was silent for some seconds, as after a standstill of the machine.
        """
        self.wait("everything is Ready", seconds, self.not_ready, lambda missing: not missing)

    def not_ready(self) -> list[str]:
        """What is not Ready, or not there: of an outage of the API server everything is told to be absent."""
        found = {
            "AgentCluster": self.items("agentclusters.tenure.dev"),
            "node": self.items("nodes"),
            "operator": self.items("pods", OPERATOR_NAMESPACE, OURS),
            "server": self.items("pods", selector="app.kubernetes.io/component=server"),
            "host": self.items("pods", selector="app.kubernetes.io/component=host"),
        }
        absent = [f"any {kind}" for kind, items in found.items() if not items]
        unready = [f"{kind} {name_of(item)}" for kind, items in found.items() for item in items if not serving(item)]
        parted = [f"all of {name_of(item)}" for item in found["AgentCluster"] if not whole(item.get("status", {}))]
        return absent + unready + parted

    def ready_pods(self, selector: str, namespace: str = "shop") -> list[str]:
        return sorted(name_of(pod) for pod in self.items("pods", namespace, selector) if serving(pod))

    def state(self) -> str:
        """What a person would look at first; every pod's log goes to files beside it."""
        parts = [
            ("agents", "get", "agents,agentclusters,persistentvolumeclaims", "-A", "-o", "wide"),
            ("pods", "get", "pods,nodes", "-A", "-o", "wide"),
            ("events", "get", "events", "-A", "--sort-by=.lastTimestamp"),
            ("operator", "logs", "-n", OPERATOR_NAMESPACE, "-l", "app.kubernetes.io/name=tenure", "--tail=40"),
        ]
        texts = []
        for title, *words in parts:
            _, out, err = self.run("kubectl", "--request-timeout=10s", *words, check=False)
            texts.append(f"--- {title}\n" + "\n".join((out + err).splitlines()[-40:]))
        self.save_logs()
        return "\n".join([*texts, f"--- {self.standstills}", f"--- every pod's log: {LOGS}"])

    def save_logs(self) -> None:
        LOGS.mkdir(parents=True, exist_ok=True)
        for namespace in (OPERATOR_NAMESPACE, "shop"):
            for pod in self.items("pods", namespace):
                name, containers = pod["metadata"]["name"], ("--all-containers", "--prefix", "--tail=5000")
                for previous in ("", "-previous"):
                    words = ["logs", "-n", namespace, name, *containers, *(["-p"] if previous else [])]
                    _, out, err = self.run("kubectl", "--request-timeout=10s", *words, check=False)
                    Path(LOGS, f"{namespace}-{name}{previous}.log").write_text(out + err)
            _, out, _ = self.run("kubectl", "--request-timeout=10s", "describe", "pods", "-n", namespace, check=False)
            Path(LOGS, f"{namespace}-pods.txt").write_text(out)


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    """One of the conditions of a status; empty when there is none."""
    return next((entry for entry in status.get("conditions", []) if entry["type"] == kind), {})


def ready(status: dict[str, Any]) -> bool:
    return condition(status, "Ready").get("status") == "True"


def name_of(item: dict[str, Any]) -> str:
    return item["metadata"]["name"]


def serving(item: dict[str, Any]) -> bool:
    """Ready, and not on its way out."""
    return ready(item.get("status", {})) and "deletionTimestamp" not in item["metadata"]


def whole(status: dict[str, Any]) -> bool:
    """Whether all servers and all hosts of an AgentCluster are there: `3/3` and `3/3`."""
    pairs = [status.get(field, "").split("/") for field in ("quorum", "hosts")]
    return all(len(pair) == 2 and pair[0] == pair[1] != "0" for pair in pairs)
