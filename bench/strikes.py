"""How a host of the local cluster is struck, and made whole again: the kinds of `bench.failover`."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench import netcut
from tenure_cli.dev.bring_up import wait_for_hosts
from tenure_cli.dev.cluster import DevCluster
from tenure_cli.dev.workers import children, daemon_pids, worker_pids
from tenure_cli.ports import Cluster

SETTLE_S = 90.0


@dataclass
class Stage:
    """A running cluster, with each host in a control group of its own where the kind needs it."""

    running: DevCluster
    cluster: Cluster
    names: list[str]
    cages: dict[str, netcut.Cage] = field(default_factory=dict)

    async def enclose(self, host: str) -> None:
        """Start a host anew within its group: sockets belong to the group in which they were made."""
        if host not in self.cages:
            self.cages[host] = netcut.Cage(host)
        process = self.running.process(host)
        self.cages[host].take(process.pid)
        for pid in children(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await wait_for_hosts(self.cluster, [each.name for each in self.running.plan.hosts], SETTLE_S)


Repair = Callable[[], Awaitable[None]]
Strike = Callable[[Stage, str, str], Repair]
"""Given the stage, the holder and the leader: strike at once; what makes the cluster whole again later."""


def sigstop(stage: Stage, holder: str, _leader: str) -> Repair:
    """Silence of one host."""
    return _freeze(stage, holder)


def leader_and_host(stage: Stage, holder: str, leader: str) -> Repair:
    """Silence of the holder's host and of the leader's server at once."""
    return _freeze(stage, holder, leader)


def most(stage: Stage, holder: str, _leader: str) -> Repair:
    """Silence of two hosts of three: held back until it is confirmed by time."""
    others = [host.name for host in stage.running.plan.hosts if host.name != holder]
    return _freeze(stage, holder, others[0])


def _freeze(stage: Stage, *names: str) -> Repair:
    victims = [stage.running.process(name) for name in names]
    for victim in victims:
        victim.freeze()

    async def repair() -> None:
        for victim in victims:
            await victim.kill(restart=True)

    return repair


def killed(stage: Stage, holder: str, _leader: str) -> Repair:
    """The daemon alone; its supervisor starts it again."""
    for pid in daemon_pids(stage.running.process(holder).pid):
        os.kill(pid, signal.SIGKILL)
    return _nothing


def tree(stage: Stage, holder: str, _leader: str) -> Repair:
    """The daemon, and PID 1 of the workers with all of them. The warm spare of the daemon lives."""
    supervisor = stage.running.process(holder).pid
    for pid in daemon_pids(supervisor) + [each for root in worker_pids(supervisor) for each in descendants(root)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return _nothing


def descendants(pid: int) -> list[int]:
    """A process and all below it."""
    return [pid, *(each for child in children(pid) for each in descendants(child))]


async def _nothing() -> None:
    """The supervisor has done it."""


def silent(stage: Stage, holder: str, _leader: str) -> Repair:
    """A power cut: no last word of any socket."""
    cage, process = stage.cages[holder], stage.running.process(holder)
    cage.cut()
    # It stays off: a machine does not come back within the second, and its start would take the processors here.
    dying = asyncio.create_task(process.kill(restart=False))

    async def repair() -> None:
        await dying
        cage.heal()
        await process.start()
        await stage.enclose(holder)

    return repair


def partition(stage: Stage, holder: str, _leader: str) -> Repair:
    """Cut off, and running on."""
    stage.cages[holder].cut()
    return _healed(stage, holder)


def deaf(stage: Stage, holder: str, _leader: str) -> Repair:
    """It hears everybody, and nobody hears it."""
    stage.cages[holder].cut(both_ways=False)
    return _healed(stage, holder)


def _healed(stage: Stage, holder: str) -> Repair:
    async def repair() -> None:
        await stage.running.process(holder).kill(restart=True)
        stage.cages[holder].heal()
        await stage.enclose(holder)

    return repair


KINDS: dict[str, tuple[str, Strike, bool]] = {
    "sigstop": ("host silent (group frozen)", sigstop, False),
    "silent": ("host silent (power cut)", silent, True),
    "partition": ("host cut off, both ways", partition, True),
    "deaf": ("host cut off, one way", deaf, True),
    "killed": ("daemon killed, supervisor alive", killed, False),
    "tree": ("daemon and workers killed, supervisor alive", tree, False),
    "leader-and-host": ("host and leader's server silent", leader_and_host, False),
    "most": ("two hosts of three silent", most, False),
}
"""Kind: what the line is called, how to strike, whether hosts must be caged."""
