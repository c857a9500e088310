"""One local cluster of real processes, as the tests use it."""

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tenure_cli.dev.bring_up import wait_for_hosts, wait_for_leader
from tenure_cli.dev.cluster import DevCluster
from tenure_cli.dev.plan import PoolPlan
from tenure_cli.dev.workers import daemon_pids, worker_pids
from tenure_cli.ports import Cluster, Rows
from tenure_cli.remote import RemoteCluster
from tenure_proto.v1 import registry_pb2
from tenured.core.profile import BALANCED, NS
from tools.k8s.standstill import Standstills

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent.parent / "examples" / "payments"
NAMESPACE = "shop"
DEADLINE_S = 60.0
LAPSES_S = (BALANCED.ttl_ns - 2 * BALANCED.tick_ns) / NS
"""A lease without the ticks in which its next renewal may have been under way."""
MODULES = (
    "cluster_agents",
    "cluster_operating",
    "cluster_clock",
    "cluster_signals",
    "cluster_deployed",
    "payments",
    "tenure.testing._conformance_agents",
)
GOOD = PoolPlan(name="default", modules=MODULES)
BROKEN = PoolPlan(name="broken", modules=("cluster_broken",), replicas=1)


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    status: int
    out: str
    err: str


@dataclass
class Local:
    """The cluster, a client, and the command line as a user types it."""

    running: DevCluster
    cluster: Cluster
    environment: dict[str, str]
    log: list[tuple[str, str]]
    code: Path
    """Where the module is that a test deploys."""
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def remote(self) -> RemoteCluster:
        """The client with all that it can."""
        assert isinstance(self.cluster, RemoteCluster)
        return self.cluster

    def name(self) -> str:
        """A name that no other test uses."""
        return f"{NAMESPACE}/agent-{next(self.numbers)}"

    async def create(self, class_: str = "Counter", **fields: Any) -> str:
        """Ask for an agent; its name. `fields` go into its row."""
        values = {"id": self.name(), "pool": "default", "critical": True, "strategy": "LoadBalanced"} | fields
        state, config = values.pop("state", {}), values.pop("config", {})
        spec = registry_pb2.AgentSpec(
            **values, state=msgspec.msgpack.encode(state), config=msgspec.msgpack.encode(config)
        )
        setattr(spec, "class", class_)
        for result in await self.cluster.apply_agents([spec]):
            assert result.outcome == "created", result
        return spec.id

    async def running_agent(self, **fields: Any) -> str:
        """An agent that is Ready; its name."""
        name = await self.create(**fields)
        await self.until(name, lambda row: row.ready, "Ready")
        return name

    async def until(
        self, name: str, holds: Callable[[registry_pb2.AgentRow], object], what: str
    ) -> registry_pb2.AgentRow:
        """The agent's row once it is so."""

        def found(rows: Rows) -> registry_pb2.AgentRow | None:
            row = rows.agent(name)
            return row if row is not None and holds(row) else None

        result = await self.until_rows(found, f"{name} is {what}")
        assert isinstance(result, registry_pb2.AgentRow)
        return result

    async def until_rows(self, found: Callable[[Rows], object], what: str) -> object:
        """What `found` finds in the registry, once it finds something."""
        rows = Rows()
        try:
            async with asyncio.timeout(DEADLINE_S):
                async for rows in self.cluster.watch():
                    if result := found(rows):
                        return result
        except TimeoutError:
            pass
        raise AssertionError(f"not within {DEADLINE_S:g} s: {what}; agents: {list(rows.agents.values())}")

    async def call(self, name: str, method: str, **arguments: Any) -> Any:
        """The value of a reply."""
        return (await self.cluster.call(name, method, arguments, DEADLINE_S)).value

    async def on(self, node: int, **fields: Any) -> str:
        """An agent that is Ready, on the node of that number unless that has no place; its name."""
        return await self.running_agent(strategy="LocalPreferred", near=f"node-{node}", **fields)

    async def until_answer(self, name: str, query: str, holds: Callable[[Any], object], what: str) -> Any:
        """What a query says once it is so."""
        found: Any = None
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not holds(found := await self.call(name, query)):  # noqa: ASYNC110 - of other processes
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"not within {DEADLINE_S:g} s: {query} of {name} is {what}; it is {found}") from None
        return found

    def spared(self, before: int, after: int, standstills: Standstills) -> bool:
        """Whether no worker was ended for what a test does: the agent is in the same process, or in another one since
        the machine was seen to stand still for so long that leases lapsed, which ends workers (protocol additions 4).
        """
        lapsed = any(f"worker {before} ended: lease lapsed" in line for _, line in self.log)
        return before == after or (lapsed and standstills.longest_s >= LAPSES_S)

    async def host_of(self, name: str) -> str:
        """Who holds it now."""
        return (await self.until(name, lambda row: row.host, "held")).host

    def kill_worker(self, host: str) -> None:
        """`kill -9` of PID 1 of the host's worker container, and of all workers with it."""
        self._kill(worker_pids(self.running.process(host).pid))

    def kill_host(self, host: str) -> None:
        """`kill -9` of the daemon and its workers; the supervisor starts them again."""
        supervisor = self.running.process(host).pid
        self._kill(daemon_pids(supervisor) + worker_pids(supervisor))

    def _kill(self, pids: list[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def tenure(self, *words: str, stdin: str = "", **environment: str) -> Finished:
        """Run the command line."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "tenure_cli.main", *words,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=self.environment | environment,
        )  # fmt: skip
        async with asyncio.timeout(DEADLINE_S):
            out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return Finished(process.returncode, out.decode(), err.decode())

    async def whole(self) -> None:
        """All servers caught up and all good hosts ready: what a test that broke something leaves behind.

        One that failed may have left frozen processes.
        """
        for process in (*self.running.servers, *self.running.hosts):
            process.thaw()
        async with asyncio.timeout(DEADLINE_S):
            while (status := await wait_for_leader(self.cluster)).quorum_ready < len(status.servers):  # noqa: ASYNC110
                await asyncio.sleep(0.1)  # the status is no stream
        await wait_for_hosts(self.cluster, good_hosts(self.running))


def good_hosts(running: DevCluster) -> list[str]:
    """Hosts whose modules load."""
    return [host.name for host in running.plan.hosts if host.pool.name == GOOD.name]


def deploy(code: Path, second: str) -> None:
    """Write the module `cluster_deployed`, whose agent has a second step of this name."""
    text = (HERE / "cluster_deployed.txt").read_text()
    (code / "cluster_deployed.py").write_text(text.replace("SECOND", second))
