"""What the deployment and the e2e tests need of a cluster: from kind where Docker works, else from the harness."""

from pathlib import Path
from typing import Protocol

from tools.k8s import binaries, cgroups, debian, kind, project
from tools.k8s.cluster import Cluster
from tools.k8s.shell import Argument, Steps


class Backend(Protocol):
    """A cluster of several nodes whose power can be cut. All methods raise HarnessError with a sentence."""

    kubeconfig: Path

    def program(self, name: str) -> Path: ...
    def kubectl(self, *arguments: Argument, check: bool = True) -> str: ...
    def up(self, nodes: int, step: Steps) -> None: ...
    def load_project(self, step: Steps) -> None: ...
    def down(self) -> None: ...
    def node_names(self) -> list[str]: ...
    def kill_node(self, name: str) -> None: ...
    def start_node(self, name: str) -> None: ...
    def pause_node(self, name: str) -> None: ...
    def resume_node(self, name: str) -> None: ...
    def stop_api_server(self) -> None: ...
    def start_api_server(self) -> None: ...


class HarnessCluster:
    """The project's own node harness as a Backend."""

    def __init__(self, state: Path) -> None:
        self.cluster = Cluster(state, binaries.place())
        self.kubeconfig = self.cluster.kubeconfig

    def program(self, name: str) -> Path:
        return self.cluster.bin / name

    def kubectl(self, *arguments: Argument, check: bool = True) -> str:
        return self.cluster.kubectl(*arguments, check=check)

    def up(self, nodes: int, step: Steps) -> None:
        debian.ensure(step)
        cgroups.require()
        binaries.ensure(step)
        self.cluster.up(nodes, [], 8, step)

    def load_project(self, step: Steps) -> None:
        self.cluster.load(project.build(step))
        step("images imported into every node")

    def down(self) -> None:
        self.cluster.down()

    def node_names(self) -> list[str]:
        return [node.name for node in self.cluster.nodes()]

    def kill_node(self, name: str) -> None:
        self.cluster.node(_number(name)).kill()

    def start_node(self, name: str) -> None:
        self.cluster.start_node(_number(name))

    def pause_node(self, name: str) -> None:
        cgroups.freeze(self.cluster.node(_number(name)).cgroup)

    def resume_node(self, name: str) -> None:
        cgroups.thaw(self.cluster.node(_number(name)).cgroup)

    def stop_api_server(self) -> None:
        self.cluster.control_plane.daemon("kube-apiserver").stop()

    def start_api_server(self) -> None:
        self.cluster.control_plane.start_api_server()


def choose(state: Path) -> Backend:
    """Kind where it works, else the harness."""
    return kind.KindCluster(state) if kind.works() else HarnessCluster(state)


def _number(name: str) -> int:
    return int(name.removeprefix("node-"))
