"""PID 1 of a node: `python3 -m tools.k8s.nodeinit N HOME PKI BINARIES`, inside fresh namespaces.

What it mounts and configures exists only there; when it dies, the kernel takes all of it away.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from tools.k8s import cgroups
from tools.k8s.network import HOST, MAX_NODES, NAME, node_ip, pod_cidr
from tools.k8s.shell import run, wait_for


def mount(n: int, home: Path) -> None:
    """The node's own /proc, /run, /sys, /var/lib, /var/log and names."""
    run("mount", "--make-rshared", "/")  # kubelet wants to propagate mounts to pods; the machine sees none of it
    run("mount", "-t", "proc", "proc", "/proc")
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    for setting, value in (("vm/overcommit_memory", 1), ("kernel/panic", 10), ("kernel/panic_on_oops", 1)):
        fake = Path("/run/sysctl", setting)  # kubelet would set these for the whole machine: show it what it wants
        fake.parent.mkdir(parents=True, exist_ok=True)
        fake.write_text(f"{value}\n")
        run("mount", "--bind", fake, f"/proc/sys/{setting}")
    Path("/run/sys").mkdir()
    run("mount", "-t", "sysfs", "sysfs", "/run/sys")  # /sys/class/net of this network namespace ...
    run("mount", "--rbind", cgroups.ROOT, "/run/sys/fs/cgroup")  # ... with the machine's control groups
    run("mount", "--rbind", "/run/sys", "/sys")
    for part in ("var/lib", "var/log", "etc/resolv.conf", "etc/hosts", "etc/hostname"):
        run("mount", "--bind", home / part, f"/{part}")
    run("hostname", f"node-{n}")


def connect(n: int) -> None:
    """Addresses, and a static route to each other node's pods."""
    wait_for("eth0", lambda: run("ip", "link", "show", "eth0", check=False), 30, 0.02)
    run("ip", "link", "set", "lo", "up")
    run("ip", "addr", "add", f"{node_ip(n)}/24", "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")
    run("ip", "route", "add", "default", "via", HOST)
    others = (m for m in range(1, MAX_NODES + 1) if m != n)
    run("ip", "-batch", "-", stdin="".join(f"route add {pod_cidr(m)} via {node_ip(m)}\n" for m in others))
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Path("/proc/sys/net/bridge/bridge-nf-call-iptables").write_text("1")  # Services between pods of one node


def services(n: int, home: Path, pki: Path, binaries: Path) -> dict[str, list[str | Path]]:
    return {
        "containerd": ["containerd", "--config", home / "containerd.toml"],
        "kubelet": [
            *(binaries / "kubelet", "--config", home / "kubelet.json", f"--hostname-override=node-{n}"),
            *(f"--kubeconfig={pki}/node-{n}.conf", f"--node-ip={node_ip(n)}"),
            # A zone each: in a single one the controller stops evictions when 55 % of a small cluster are lost.
            f"--node-labels=topology.kubernetes.io/zone=zone-{n}",
        ],
        "kube-proxy": [binaries / "kube-proxy", "--config", home / "kube-proxy.json"],
    }


def start(name: str, command: list[str | Path]) -> int:
    with Path(f"/var/log/{name}.log").open("ab") as log:
        process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    return process.pid


def main() -> None:
    n, home, pki, binaries = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    cgroups.enter(f"{NAME}/node-{n}/system")
    mount(n, home)
    connect(n)
    commands = services(n, home, pki, binaries)
    running = {start("containerd", commands["containerd"]): "containerd"}
    wait_for("containerd", Path("/run/containerd/containerd.sock").exists, 30, 0.05)
    for name in ("kubelet", "kube-proxy"):
        running[start(name, commands[name])] = name
    while True:  # an init reaps orphans (shims), and restarts services
        pid, status = os.wait()
        if name := running.pop(pid, ""):
            print(f"{name} ended with status {status}; it starts again", flush=True)
            time.sleep(1)
            running[start(name, commands[name])] = name


if __name__ == "__main__":
    main()
