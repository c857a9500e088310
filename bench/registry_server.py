"""A server of `bench.registry`, as a process of its own: consensus and the registry behind it, and what they cost.

    python -m bench.registry_server fill|restart DIRECTORY AGENTS

Prints one JSON object and waits to be killed.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from pathlib import Path

from tenured.core import commands as c
from tenured.core.agentspec import AgentSpec
from tenured.core.model import Pool
from tenured.raft import Applied, Consensus, RaftConfig, Role
from tenured.server.heap import settle
from tenured.server.process import VERSION
from tenured.server.replica import Replica

HOSTS = 100
BATCH = 500
EXPLANATION = "LoadBalanced chose host-17 (load 0.31); then host-3 (0.33), host-90 (0.35). Rejected: 0 " + "x" * 100
"""As long as those of a real placement."""
TICK_S = 0.001
LOAD_S = 0.005
LISTEN_S = 3.0
TIMEOUT_S = 60.0


class Alone:
    """PeerLink of a server without peers."""

    def send(self, peer: str, frame: bytes) -> bool:  # noqa: ARG002 - the protocol's names
        """Nobody is there."""
        return False


class Lateness:
    """How late a timer of TICK_S is, at worst."""

    def __init__(self) -> None:
        self.worst_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time()
        self._look()

    def _look(self) -> None:
        now = self._loop.time()
        self.worst_s = max(self.worst_s, now - self._due)
        self._due = now + TICK_S
        self._loop.call_at(self._due, self._look)

    def since(self) -> float:
        """The worst since the last time this was asked, in milliseconds."""
        worst, self.worst_s = self.worst_s, 0.0
        return worst * 1000


class Server:
    """Consensus and the registry behind it."""

    version = VERSION  # and with it everything that a server's process imports

    def __init__(self, directory: Path) -> None:
        self.replica = Replica(settle)
        self.consensus = Consensus(RaftConfig("bench-0", (), directory, 0.15, 0.3), self.replica, Alone())
        self.ready = asyncio.Event()
        self.consensus.on_role = self._role

    def _role(self, role: Role) -> None:
        if role.ready:
            self.ready.set()

    async def start(self) -> None:
        """Until it may answer: everything that was committed is applied."""
        await self.consensus.start()
        await asyncio.wait_for(self.ready.wait(), TIMEOUT_S)
        await self.consensus.barrier(TIMEOUT_S)

    async def do(self, command: c.Command) -> None:
        """Commit one command."""
        outcome = await self.consensus.propose(c.encode(command), TIMEOUT_S)
        if not isinstance(outcome, Applied):
            raise SystemExit(f"a command ended as {outcome}")

    async def fill(self, agents: int) -> None:
        """Hosts, agents, assignments, reports."""
        await self.do(c.ApplyPools(pools=(Pool(name="default"),)))
        for number in range(HOSTS):
            await self.do(
                c.RegisterHost(name=f"host-{number}", incarnation=f"i{number}", pool="default", node=f"node-{number}")
            )
        for start in range(0, agents, BATCH):
            specs = tuple(
                AgentSpec(id=f"bench/agent-{n}", class_name="Bench", cpu_milli=1, memory_bytes=1)
                for n in range(start, min(start + BATCH, agents))
            )
            await self.do(c.ApplyAgents(agents=specs, managed_by="API", command_id=f"apply-{start}"))
            uids = [self.replica.registry.by_id[spec.id] for spec in specs]
            incarnation = f"i{start // BATCH % HOSTS}"
            items = tuple(
                c.Assignment(uid=uid, epoch=0, incarnation=incarnation, reason="Scheduled", explanation=EXPLANATION)
                for uid in uids
            )
            await self.do(c.Assign(items=items))
            reports = tuple(c.AgentReport(uid=uid, epoch=1, ready=True) for uid in uids)
            await self.do(c.AgentReports(incarnation=incarnation, reports=reports))
        registry = self.replica.registry
        if sum(agent.ready for agent in registry.agents.values()) != agents:
            raise SystemExit("not all agents are Ready")

    async def written(self, index: int = 0) -> None:
        """Until no snapshot is being written, and one covers `index`."""
        while self.consensus.snapshots().writing or self.consensus.snapshots().index < index:  # noqa: ASYNC110 - it is not told
            await asyncio.sleep(0.02)

    async def load(self) -> None:
        """A tick every LOAD_S, until it is cancelled."""
        while True:
            await self.do(c.Tick(step_ns=1))
            await asyncio.sleep(LOAD_S)


def memory_mb(field: str = "VmRSS") -> float:
    """Of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"no {field}")


async def filled(directory: Path, agents: int) -> dict[str, float]:
    """Fill, write a snapshot under load, and say what it took."""
    server = Server(directory)
    await server.start()
    began = time.monotonic()
    await server.fill(agents)
    print(f"{agents} agents in {time.monotonic() - began:.1f} s", file=sys.stderr)
    await server.written()
    load = asyncio.create_task(server.load())
    late = Lateness()
    await asyncio.sleep(LISTEN_S)
    idle = late.since()
    began = time.monotonic()
    before = server.consensus.snapshots().index
    server.consensus.compact()
    await server.written(before + 1)
    stall, took = late.since(), time.monotonic() - began
    load.cancel()
    status = server.consensus.snapshots()
    return {
        "memory_mb": memory_mb(),
        "peak_mb": memory_mb("VmHWM"),
        "idle_ms": idle,
        "stall_ms": stall,
        "freeze_ms": status.freeze_s * 1000,
        "snapshot_s": took,
        "snapshot_mb": status.size / 1e6,
    }


async def restarted(directory: Path, agents: int) -> dict[str, float]:
    """Come back, and say how much memory it takes."""
    server = Server(directory)
    late = Lateness()
    await server.start()
    if len(server.replica.registry.agents) != agents:
        raise SystemExit("agents are missing")
    return {"memory_mb": memory_mb(), "stall_ms": late.since(), "cpu_s": time.process_time()}


def main() -> None:
    """Run one phase."""
    phase = {"fill": filled, "restart": restarted}[sys.argv[1]]
    print(json.dumps(asyncio.run(phase(Path(sys.argv[2]), int(sys.argv[3])))), flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
