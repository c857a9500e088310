"""Addresses, the bridge between the nodes, and partitions."""

import ipaddress
import json
from collections.abc import Callable
from pathlib import Path

from tools.k8s.shell import run

NAME = "tenure"  # prefix of the bridge, the interfaces, the firewall table and the control groups
HOST = "10.200.0.1"  # the bridge's address: the API server and DNS, as seen from nodes and pods
NODE_NET, POD_NET, SERVICE_NET = "10.200.0.0/24", "10.244.0.0/16", "10.96.0.0/16"
API = f"https://{HOST}:6443"
MAX_NODES = 32

Pairs = set[tuple[int, int]]


def node_ip(n: int) -> str:
    return str(ipaddress.ip_network(NODE_NET)[10 + n])


def pod_cidr(n: int) -> str:
    return f"10.244.{n}.0/24"


def service_ip() -> str:
    """Address of the Service `kubernetes`."""
    return str(ipaddress.ip_network(SERVICE_NET)[1])


def make_bridge() -> None:
    if not Path(f"/sys/class/net/{NAME}0").exists():
        run("ip", "link", "add", f"{NAME}0", "type", "bridge")
        run("ip", "addr", "add", f"{HOST}/24", "dev", f"{NAME}0")
        run("ip", "link", "set", f"{NAME}0", "up")


def attach(n: int, pid: int) -> None:
    """Plug the network namespace of `pid` into the bridge, as eth0, and route node N's pods to it."""
    run("ip", "link", "add", f"{NAME}{n}", "type", "veth", "peer", "name", "eth0", "netns", pid)
    run("ip", "link", "set", f"{NAME}{n}", "master", f"{NAME}0", "up")
    run("ip", "route", "replace", pod_cidr(n), "via", node_ip(n))


def detach(n: int) -> None:
    run("ip", "link", "del", f"{NAME}{n}", check=False)  # the kernel would remove it, too, a little later


def remove() -> None:
    """Remove the bridge, with its routes, and the firewall table."""
    run("nft", "delete", "table", "bridge", NAME, check=False)
    run("ip", "link", "del", f"{NAME}0", check=False)


class Partitions:
    """Pairs of nodes (0: the control plane) that are cut. Frames are dropped on the bridge, links stay up."""

    def __init__(self, state: Path) -> None:
        self.file = state / "partitions.json"

    def pairs(self) -> Pairs:
        return {(a, b) for a, b in json.loads(self.file.read_text())} if self.file.exists() else set()

    def cut(self, n: int, others: list[int]) -> None:
        """Cut node `n` from `others`; from everything when there are none."""
        others = others or [m for m in range(MAX_NODES + 1) if m != n]
        self._change(lambda pairs: pairs | {(min(n, m), max(n, m)) for m in others})

    def heal(self, n: int | None) -> None:
        """Undo the partitions of node `n`, or all."""
        self._change(lambda pairs: {pair for pair in pairs if n is not None and n not in pair})

    def _change(self, change: Callable[[Pairs], Pairs]) -> None:
        pairs = change(self.pairs())
        self.file.write_text(json.dumps(sorted(pairs)))
        run("nft", "-f", "-", stdin=rules(pairs))


def rules(pairs: Pairs) -> str:
    """The firewall table that drops what passes between each pair, for `nft -f`."""
    both = [pair for a, b in pairs if a and b for pair in ((a, b), (b, a))]
    cut = [f'"{NAME}{b}"' for a, b in pairs if not a]
    lines = [f"table bridge {NAME}", f"delete table bridge {NAME}", f"table bridge {NAME} {{"]
    for chain, hook, match, members in (
        ("between", "forward", "iifname . oifname", [f'"{NAME}{a}" . "{NAME}{b}"' for a, b in both]),
        ("inwards", "input", "iifname", cut),
        ("outwards", "output", "oifname", cut),
    ):
        rule = f"{match} {{ {', '.join(members)} }} drop" if members else ""
        lines += [f"chain {chain} {{", f"type filter hook {hook} priority 0", rule, "}"]
    return "\n".join([*lines, "}", ""])
