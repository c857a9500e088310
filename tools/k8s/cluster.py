"""The cluster as a whole: everything that the command line and the tests do with it."""

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.k8s import cgroups, images, network, volumes
from tools.k8s.controlplane import COMPONENTS, ControlPlane
from tools.k8s.node import Node
from tools.k8s.pki import Pki
from tools.k8s.shell import Argument, HarnessError, Steps, run, wait_for


def default_state() -> Path:
    """State lies in memory by default: on a disk, importing images and removing them takes minutes."""
    return Path(os.environ.get("TENURE_K8S_STATE", f"/dev/shm/{network.NAME}-k8s"))


class Cluster:
    """A cluster with its state at `state` and its programs at `binaries`. A machine has one at a time."""

    def __init__(self, state: Path, binaries: Path) -> None:
        self.state, self.bin = state.resolve(), binaries.resolve()
        if self.state.is_relative_to("/run") or self.state.is_relative_to("/var/lib"):
            raise HarnessError(
                f"{self.state}: nodes mount their own /run and /var/lib; choose another place for the state."
            )

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def control_plane(self) -> ControlPlane:
        return ControlPlane(self.state, self.bin, self._grace_s)

    @property
    def partitions(self) -> network.Partitions:
        return network.Partitions(self.state)

    @property
    def _grace_s(self) -> int:
        file = self.state / "grace"
        return int(file.read_text()) if file.exists() else 8

    def node(self, number: int) -> Node:
        if not 1 <= number <= network.MAX_NODES:
            raise HarnessError(f"There is no node {number}: nodes are 1 to {network.MAX_NODES}.")
        return Node(self.state, self.bin, number)

    def nodes(self) -> list[Node]:
        """Every node that was ever started here, dead ones too."""
        found = sorted(int(path.name) for path in (self.state / "nodes").glob("*")) if self.state.exists() else []
        return [self.node(number) for number in found]

    def kubectl(self, *arguments: Argument, check: bool = True, stdin: str | None = None) -> str:
        return run(self.bin / "kubectl", "--kubeconfig", self.kubeconfig, *arguments, check=check, stdin=stdin)

    def up(self, count: int, archives: Iterable[Path], grace_s: int, step: Steps) -> None:
        """Start what does not run: control plane, nodes 1 to `count`, images, volumes. Waits for Ready nodes."""
        cgroups.require()
        for part in ("run", "log", "pki", "nodes"):
            (self.state / part).mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.state / "grace").write_text(str(grace_s))
        network.make_bridge()
        Pki(self.state).control_plane()
        step("network, certificates")
        self.control_plane.start()
        step("control plane")
        numbers = range(1, count + 1)
        pause = images.pause_archive(self.state, self.bin)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: self.node(number).start(pause, grace_s), numbers))
        step("containerd and kubelet of each node")
        self.load(archives, [self.node(number) for number in numbers])
        self._wait_ready(numbers)
        self.make_volumes()
        step(f"{count} nodes are Ready: export KUBECONFIG={self.kubeconfig}")

    def _wait_ready(self, numbers: Iterable[int]) -> None:
        names = [f"node/node-{number}" for number in numbers]
        # `kubectl wait --for=create` of several names fails at once: poll.
        wait_for("the nodes", lambda: self.kubectl("get", *names, check=False).count("node-") == len(names), 60, 0.3)
        self.kubectl("wait", "--for=condition=Ready", "--timeout=60s", *names)
        wait_for("the default service account", lambda: self.kubectl("get", "sa", "default", check=False))

    def down(self) -> None:
        """Stop and remove everything: processes, mounts, interfaces, control groups, firewall table, state."""
        for node in self.nodes():
            node.kill()
        self.control_plane.stop()
        network.remove()
        cgroups.remove(network.NAME)
        shutil.rmtree(self.state, ignore_errors=True)

    def start_node(self, number: int) -> None:
        """Boot a dead node, with the disk that it had, or thaw a frozen one."""
        self.node(number).start(images.pause_archive(self.state, self.bin), self._grace_s)

    def load(self, archives: Iterable[Path], nodes: list[Node] | None = None) -> None:
        """Import image archives into `nodes`, by default all that live."""
        live = nodes if nodes is not None else [node for node in self.nodes() if node.init_pid]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda job: job[0].load([job[1]]), itertools.product(live, archives)))

    def make_volumes(self) -> None:
        """Make the volumes that are missing, and make those again whose claim was deleted, empty."""
        nodes = self.nodes()
        known = json.loads(self.kubectl("get", "persistentvolumes", "-o", "json"))["items"]
        phases = {item["metadata"]["name"]: item["status"].get("phase") for item in known}
        for node, slot in itertools.product(nodes, range(volumes.PER_NODE)):
            if phases.get(name := volumes.name(node.number, slot)) in ("Released", "Failed"):
                self.kubectl("delete", "persistentvolume", name, "--wait=true")
                volumes.empty(node.home, slot)
        for node in nodes:
            volumes.make_directories(node.home)
        self.kubectl("apply", "-f", "-", stdin=volumes.manifest(node.number for node in nodes))

    def status(self) -> str:
        """What runs, and its memory."""
        lines = []
        for name in COMPONENTS:
            pid = self.control_plane.daemon(name).pid
            lines.append(f"{name:24} {f'pid {pid}, {_resident_mib([pid])} MiB' if pid else 'not running'}")
        for node in self.nodes():
            pids = list(cgroups.pids(node.cgroup))
            condition = cgroups.state(node.cgroup).lower() if node.init_pid else "dead"
            memory, system = _resident_mib(pids), _resident_mib(cgroups.pids(f"{node.cgroup}/system"))
            lines.append(f"{node.name:24} {condition}, {len(pids)} processes, {memory} MiB, {system} outside of pods")
        lines.append(f"partitions: {sorted(self.partitions.pairs())}")
        return "\n".join(lines)


def _resident_mib(pids: Iterable[int]) -> int:
    """Proportional memory: pages that several processes share are counted once."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total // 1024
