"""A real multi-node Kubernetes cluster on one Linux machine, without Docker, systemd or a registry.

The control plane runs on the machine. Each node is a process tree in its own network, mount, PID, UTS and IPC
namespaces: an init, containerd, kubelet and kube-proxy. Killing the init is a power cut.
"""

import argparse
import os
import sys
from pathlib import Path

from tools.k8s import baseimage, binaries, cache, cgroups, debian, deploy, images, project
from tools.k8s.cluster import Cluster, default_state
from tools.k8s.shell import HarnessError, Steps


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python3 -m tools.k8s", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument(
        "--state", type=Path, default=default_state(), help="where the cluster's state lies (default: %(default)s)"
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("binaries", help="build the programs if need be, and print their directory")
    up = commands.add_parser("up", help="start what is not running; safe to repeat")
    up.add_argument("--nodes", type=int, default=3)
    up.add_argument("--image", type=Path, action="append", default=[], help="archive to import into every node")
    up.add_argument("--grace", type=int, default=8, help="seconds without news after which a node is NotReady")
    commands.add_parser("down", help="stop and remove everything")
    commands.add_parser("images", help="build the project's images, and print their archives")
    commands.add_parser("status", help="what runs, and its memory")
    commands.add_parser("volumes", help="make missing and released volumes again")
    load = commands.add_parser("load-image", help="import image archives into every running node")
    load.add_argument("archives", type=Path, nargs="+")
    for name, text in (
        ("kill-node", "cut the power of a node"),
        ("start-node", "boot a node; its disk was kept"),
        ("pause-node", "freeze every process of a node"),
        ("resume-node", "thaw a node"),
    ):
        commands.add_parser(name, help=text).add_argument("node", type=int)
    partition = commands.add_parser(
        "partition", help="drop traffic between a node and all others, or only some (0: control plane)"
    )
    partition.add_argument("node", type=int)
    partition.add_argument("--from", dest="others", type=int, nargs="+", default=[])
    commands.add_parser("heal", help="undo the partitions of a node, or all").add_argument("node", type=int, nargs="?")
    inside = commands.add_parser("exec", help="run a command inside a node: exec N -- crictl ps")
    inside.add_argument("node", type=int)
    inside.add_argument("words", nargs=argparse.REMAINDER)
    commands.add_parser("deploy", help="`make k8s`: cluster (by kind where Docker works), images, chart")
    commands.add_parser("undeploy", help="`make k8s-down`")
    commands.add_parser("prepare", help="install and make everything that takes minutes, for later")
    commands.add_parser("clean", help="remove the caches: programs, base image, images")
    return top


def on_node(cluster: Cluster, options: argparse.Namespace) -> None:
    """The commands that take a node."""
    node = cluster.node(options.node)
    match options.command:
        case "kill-node":
            node.kill()
        case "start-node":
            cluster.start_node(options.node)
        case "pause-node":
            cgroups.freeze(node.cgroup)
        case "resume-node":
            cgroups.thaw(node.cgroup)
        case "partition":
            cluster.partitions.cut(options.node, options.others)
        case "exec":
            if not node.init_pid:
                raise HarnessError(f"{node.name} is not running.")
            words = options.words[1:] if options.words[:1] == ["--"] else options.words
            os.execvp("nsenter", [*node.enter(), *words])


def carry_out(options: argparse.Namespace) -> None:
    match options.command:
        case "deploy":
            deploy.deploy(options.state)
        case "undeploy":
            deploy.undeploy(options.state)
        case "images":
            step = Steps()
            debian.ensure(step)
            print("\n".join(str(path) for path in project.build(step)))
        case "prepare":
            step = Steps()
            debian.ensure(step)
            binaries.ensure(step)
            baseimage.ensure(step)
        case "clean":
            images.remove_storage()
            cache.remove()
        case _:
            on_harness(options, Steps())


def on_harness(options: argparse.Namespace, step: Steps) -> None:
    """The commands of the node harness."""
    if options.command == "up":
        debian.ensure(step)
    if options.command in ("binaries", "up"):
        binaries.ensure(step)
    cluster = Cluster(options.state, binaries.place())
    match options.command:
        case "binaries":
            print(cluster.bin)
        case "up":
            cluster.up(options.nodes, options.image, options.grace, step)
        case "down":
            cluster.down()
        case "status":
            print(cluster.status())
        case "volumes":
            cluster.make_volumes()
        case "load-image":
            cluster.load(options.archives)
        case "heal":
            cluster.partitions.heal(options.node)
        case _:
            on_node(cluster, options)


def main() -> None:
    try:
        carry_out(parser().parse_args())
    except HarnessError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
