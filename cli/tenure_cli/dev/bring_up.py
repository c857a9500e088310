"""From processes that exist to a cluster that serves: a leader, the pools, the hosts, the agents."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from tenure.errors import Transient
from tenure_cli import contexts
from tenure_cli.dev import state
from tenure_cli.dev.cluster import DevCluster, Options
from tenure_cli.dev.setup import Setup
from tenure_cli.errors import CliError, Unreachable
from tenure_cli.ports import Cluster
from tenure_cli.ready import wait_until_ready
from tenure_cli.render.tables import host_status
from tenure_proto.v1 import registry_pb2

LEADER_S = 30.0
HOSTS_S = 60.0
AGENTS_S = 60.0
ASK_AGAIN_S = 0.1

Progress = Callable[[str], None]
Connect = Callable[[contexts.Context, str], AbstractAsyncContextManager[Cluster]]


def context_of(cluster: DevCluster) -> contexts.DevContext:
    """How to reach a cluster of this process."""
    directory = cluster.options.directory
    return contexts.DevContext(directory.name, directory / state.CLUSTER_FILE, "it was just started")


async def wait_for_leader(cluster: Cluster, timeout_s: float = LEADER_S) -> registry_pb2.StatusResponse:
    """The status once a server leads with a majority caught up. Raises CliError after `timeout_s` seconds."""
    last = "no server answers"
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    status = await cluster.status()
                except Transient as error:
                    last = error.message
                except Unreachable as error:
                    last = error.sentence
                else:
                    if status.leader and status.quorum_ready * 2 > len(status.servers):
                        return status
                    last = f"{status.quorum_ready} of {len(status.servers)} servers are caught up, no leader"
                await asyncio.sleep(ASK_AGAIN_S)
    except TimeoutError:
        sentence = f"The servers did not agree on a leader within {timeout_s:g} s: {last}."
        raise CliError(sentence, "Look at their logs.") from None


async def wait_for_hosts(cluster: Cluster, names: Sequence[str], timeout_s: float = HOSTS_S) -> None:
    """Until each of `names` holds a lease and has a worker.

    Raises CliError when a host says that its worker cannot serve, or after `timeout_s` seconds.
    """
    waiting = sorted(names)
    live: dict[str, registry_pb2.HostRow] = {}
    try:
        async with asyncio.timeout(timeout_s):
            async for rows in cluster.watch():
                live = {row.name: row for row in rows.live_hosts()}
                broken = [row for name in names if (row := live.get(name)) is not None and row.worker_error]
                if broken:
                    raise CliError(
                        f"The modules of the pool {broken[0].pool!r} do not load: {broken[0].worker_error}",
                        "Correct them; `--reload` tries again at each change.",
                    )
                waiting = sorted(name for name in names if name not in live or not live[name].ready)
                if not waiting:
                    return
    except TimeoutError:
        pass
    state_ = ", ".join(f"{name}: {host_status(live[name]) if name in live else 'not registered'}" for name in waiting)
    raise CliError(f"Not all hosts were ready within {timeout_s:g} s ({state_}).", "Look at their logs.")


async def apply_setup(cluster: Cluster, setup: Setup) -> None:
    """Declare the pools and write the agents' rows. Raises CliError when a row is refused."""
    await cluster.apply_pools(setup.pool_rows)
    await _apply_agents(cluster, setup)


async def _apply_agents(cluster: Cluster, setup: Setup) -> None:
    if not setup.agents:
        return
    for result in await cluster.apply_agents(setup.agents):
        if result.outcome == "refused":
            raise CliError(f"{result.id}: {result.error.message}", result.error.next_step)


async def bring_up(running: DevCluster, cluster: Cluster, setup: Setup, progress: Progress) -> None:
    """All of it, in order. Raises CliError with the first thing that does not come."""
    status = await wait_for_leader(cluster)
    progress(f"{status.leader} leads {len(status.servers)} servers")
    await cluster.apply_pools(setup.pool_rows)
    await wait_for_hosts(cluster, [host.name for host in running.plan.hosts])
    progress(f"{len(running.plan.hosts)} hosts are ready")
    await _apply_agents(cluster, setup)  # earlier, the first host that is ready would get all of them
    if setup.agents:
        await wait_until_ready(cluster, [agent.id for agent in setup.agents], AGENTS_S)
        progress(f"{len(setup.agents)} agents are Ready")


@asynccontextmanager
async def started(
    options: Options, setup: Setup, connect: Connect, sink: Callable[[str, str], None], progress: Progress
) -> AsyncGenerator[tuple[DevCluster, Cluster]]:
    """A cluster that serves, stopped at the end: for tests, benches and the demo."""
    async with DevCluster(options, sink) as running, connect(context_of(running), "") as cluster:
        await bring_up(running, cluster, setup, progress)
        yield running, cluster
