"""The same cluster by kind, where Docker works: a node is a container, and a power cut is `docker kill`."""

import json
import shutil
from pathlib import Path

from tools.k8s import project
from tools.k8s.shell import Argument, HarnessError, Steps, run, wait_for

_NAME = "tenure"
_CONTROL_PLANE = f"{_NAME}-control-plane"
# A node is NotReady after 8 s without news, as with the harness: the kubelet renews its lease every quarter of 8 s.
_PATCHES = """\
kind: ClusterConfiguration
controllerManager: {extraArgs: {node-monitor-grace-period: 8s, node-monitor-period: 1s}}
---
kind: KubeletConfiguration
nodeLeaseDurationSeconds: 8
nodeStatusUpdateFrequency: 2s
"""


def works() -> bool:
    """Whether a Docker daemon answers, and kind, kubectl and helm are on the PATH."""
    return all(shutil.which(name) for name in ("docker", "kind", "kubectl", "helm")) and bool(
        run("docker", "info", "--format", "{{.ServerVersion}}", check=False).strip()
    )


class KindCluster:
    """A cluster of containers, with the methods of `backend.Backend`."""

    def __init__(self, state: Path) -> None:
        self.state, self.kubeconfig = state, state / "kubeconfig"

    def program(self, name: str) -> Path:
        found = shutil.which(name)
        if not found:
            raise HarnessError(f"{name} is not on the PATH.")
        return Path(found)

    def kubectl(self, *arguments: Argument, check: bool = True) -> str:
        return run("kubectl", "--kubeconfig", self.kubeconfig, *arguments, check=check)

    def up(self, nodes: int, step: Steps) -> None:
        if _NAME not in run("kind", "get", "clusters", check=False).split():
            self.state.mkdir(parents=True, exist_ok=True)
            patches = {"kubeadmConfigPatches": _PATCHES.split("---\n")}
            roles = [{"role": "control-plane", **patches}, *({"role": "worker", **patches} for _ in range(nodes))]
            config = json.dumps({"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": roles})
            run("kind", "create", "cluster", "--name", _NAME, "--wait", "180s", "--config", "-", stdin=config)
        run("kind", "export", "kubeconfig", "--name", _NAME, "--kubeconfig", self.kubeconfig)
        step(f"kind cluster with {nodes} workers: export KUBECONFIG={self.kubeconfig}")

    def load_project(self, step: Steps) -> None:
        """Build the project's images with Docker and load them."""
        for image in project.ALL:
            base = ("--build-arg", f"BASE_IMAGE={image.base}") if image.base else ()
            target = ("--target", image.target) if image.target else ()
            run("docker", "build", "-q", "-t", image.name, *base, *target, image.context, env={"DOCKER_BUILDKIT": "1"})
            step(f"image {image.name}")
        run("kind", "load", "docker-image", "--name", _NAME, *(image.name for image in project.DEPLOYED))

    def down(self) -> None:
        run("kind", "delete", "cluster", "--name", _NAME)
        shutil.rmtree(self.state, ignore_errors=True)

    def node_names(self) -> list[str]:
        names = run("kind", "get", "nodes", "--name", _NAME).split()
        return sorted(name for name in names if name != _CONTROL_PLANE)

    def kill_node(self, name: str) -> None:
        run("docker", "kill", name)

    def start_node(self, name: str) -> None:
        run("docker", "start", name)

    def pause_node(self, name: str) -> None:
        run("docker", "pause", name)

    def resume_node(self, name: str) -> None:
        run("docker", "unpause", name)

    def stop_api_server(self) -> None:
        """Take the static pod's manifest away, and wait until nothing answers."""
        self._move_manifest("/etc/kubernetes/manifests", "/root")
        wait_for("the API server to end", lambda: not self._answers(), 60)

    def start_api_server(self) -> None:
        self._move_manifest("/root", "/etc/kubernetes/manifests")
        wait_for("the API server", self._answers, 120, 0.5)

    def _move_manifest(self, source: str, target: str) -> None:
        file = "kube-apiserver.yaml"
        run("docker", "exec", _CONTROL_PLANE, "mv", f"{source}/{file}", f"{target}/{file}")

    def _answers(self) -> bool:
        return self.kubectl("--request-timeout=2s", "get", "--raw", "/readyz", check=False) == "ok"
