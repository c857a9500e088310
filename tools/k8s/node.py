"""A node, seen from the machine: a process tree in namespaces of its own, started, killed, frozen and entered."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from tools.k8s import cgroups, network, nodeconfig
from tools.k8s.daemons import Daemon
from tools.k8s.images import import_into
from tools.k8s.pki import Pki
from tools.k8s.shell import Argument, run, wait_for

_PROJECT = Path(__file__).resolve().parents[2]


class Node:
    """Node `number`. Its disk (`home/var`) is kept when it is killed; all else of it lives in its namespaces."""

    def __init__(self, state: Path, binaries: Path, number: int) -> None:
        self.state, self.bin, self.number = state, binaries, number
        self.name, self.home = f"node-{number}", state / "nodes" / str(number)
        self.cgroup = f"{network.NAME}/{self.name}"
        self.daemon = Daemon(state, self.name)

    @property
    def init_pid(self) -> int | None:
        """PID of the node's init: the only child of its `unshare`. None when the node is dead."""
        if pid := self.daemon.pid:
            with contextlib.suppress(OSError):
                return next(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()), None)
        return None

    def start(self, pause: Path, grace_s: int) -> None:
        """Boot it, or thaw it. Returns when containerd answers and has the pause image."""
        if self.init_pid:
            cgroups.thaw(self.cgroup)
            return
        self._write_configuration(grace_s)
        cgroups.make(f"{self.cgroup}/system")
        self.daemon.start(
            *("unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child=KILL"),
            *("--propagation", "private", sys.executable, "-m", "tools.k8s.nodeinit"),
            *(self.number, self.home, self.state / "pki", self.bin),
            env={"PYTHONPATH": str(_PROJECT), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        wait_for(f"the init of {self.name}", lambda: self.init_pid, 10, 0.01)
        network.attach(self.number, self.init_pid or 0)
        wait_for(f"containerd of {self.name}", lambda: self.run("ctr", "version", check=False), 60)
        self.load([pause])

    def kill(self) -> None:
        """Cut the power: SIGKILL to the init, and the kernel ends all in the namespaces. Peers see silence."""
        if init := self.init_pid:
            os.kill(init, signal.SIGKILL)
        cgroups.thaw(self.cgroup)  # a frozen process does not take even SIGKILL
        wait_for(f"the processes of {self.name} to end", lambda: not list(cgroups.pids(self.cgroup)), 20, 0.02)
        self.daemon.stop()
        network.detach(self.number)
        cgroups.remove(self.cgroup)

    def enter(self) -> list[str]:
        """The words that run a program inside the node."""
        return ["nsenter", "-t", str(self.init_pid), "-m", "-n", "-p", "-u", "-i"]

    def run(self, *arguments: Argument, check: bool = True, stdin: IO[bytes] | None = None) -> str:
        return run(*self.enter(), *arguments, check=check, stdin=stdin)

    def load(self, archives: Iterable[Path]) -> None:
        """Import image archives, those that this disk does not have yet."""
        for archive in archives:
            import_into(
                self.home / "images",
                archive,
                lambda file: self.run("ctr", "-n", "k8s.io", "images", "import", "-", stdin=file),
            )

    def _write_configuration(self, grace_s: int) -> None:
        n, pki = self.number, self.state / "pki"
        for part in ("etc", "cni", "var/lib/kubelet", "var/lib/containerd", "var/log"):
            (self.home / part).mkdir(parents=True, exist_ok=True)
        Pki(self.state).node(n)
        files = {
            "etc/resolv.conf": f"nameserver {network.HOST}\n",
            "etc/hosts": f"127.0.0.1 localhost\n{network.node_ip(n)} {self.name}\n",
            "etc/hostname": f"{self.name}\n",
            "containerd.toml": nodeconfig.containerd(self.home),
            "cni/pods.conflist": json.dumps(nodeconfig.cni(n)),
            "kubelet.json": json.dumps(nodeconfig.kubelet(n, pki, grace_s)),
            "kube-proxy.json": json.dumps(nodeconfig.kube_proxy(n, pki)),
        }
        for name, content in files.items():
            (self.home / name).write_text(content)
