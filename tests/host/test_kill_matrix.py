"""The process tree and its kill matrix (docs/processes.md): who dies or freezes, and what must follow.

Real processes: three servers, one or two hosts with their whole trees. Every story ends with the same check: what was
acknowledged is there, once. Limits are generous against a busy machine; the bench measures.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from local_hosts import LocalHost, alive, eventually
from local_servers import LocalServers

from tenure._remote import Remote, from_tls_directory
from tenure.errors import CallError
from tenure_proto.v1 import registry_pb2

pytestmark = pytest.mark.cluster

SOON_S = 10.0
"""What takes a second on a quiet machine."""
LEASE_S = 15.0
"""A lease of 2 s, its margin, and a new activation."""


@pytest.fixture(scope="module")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    """Three real servers for all stories.

    Without the guard of wide losses (ADR 0017): each story leaves dead hosts to the next, in which it would see most
    of the cluster die, and hold back what the story waits for. It has tests of its own.
    """
    options = ("--failover-guard", "1")
    async with LocalServers(tmp_path_factory.mktemp("matrix"), profile="Balanced", extra=options) as cluster:
        await cluster.ready(within_s=60)
        yield cluster


@pytest.fixture(scope="module")
async def remote(servers: LocalServers) -> AsyncIterator[Any]:
    """A client of the cluster."""
    files = servers.tls("client", "tester")
    api = tuple(server.api for server in servers.servers.values())
    async with Remote(from_tls_directory("shop/demo", api, files.directory)) as client:
        yield client


class Story:
    """One agent of a pool of its own, and the hosts that may hold it."""

    def __init__(self, remote: Remote, servers: LocalServers, name: str) -> None:
        self.remote = remote
        self.servers = servers
        self.pool = name
        self.agent = f"shop/{name}"
        self.hosts: dict[str, LocalHost] = {}
        self.acknowledged = 0
        self.epoch = 0
        self.held_by = ""

    async def host(self, *extra: str, modules: str = "matrix_agents", code: Path = Path(__file__).parent) -> LocalHost:
        name = f"{self.pool}-{len(self.hosts)}"
        host = LocalHost(self.servers, name, self.pool, code, modules, extra)
        self.hosts[name] = host
        await host.start()
        return host

    async def create(self, agent: str = "") -> None:
        empty = msgspec.msgpack.encode({})
        await self.remote.create(agent or self.agent, "Victim", pool=self.pool, state=empty, config=empty)

    async def call(
        self, method: str, *, agent: str = "", kind: str = "action", within_s: float = SOON_S, **arguments: Any
    ) -> Any:
        reply = await self.remote.call(
            agent or self.agent, kind, method, msgspec.msgpack.encode(arguments), timeout_s=within_s
        )
        self.epoch, self.held_by = reply.epoch, reply.host
        return msgspec.msgpack.decode(reply.value)

    async def count(self, within_s: float = SOON_S) -> None:
        """One acknowledged increment: the count says that none before it was lost or doubled."""
        self.acknowledged += 1
        assert await self.call("increment", within_s=within_s) == self.acknowledged

    async def worker(self) -> int:
        """PID of the process that runs the agent."""
        return await self.call("process", kind="query")

    @property
    def holder(self) -> LocalHost:
        return self.hosts[self.held_by]


@pytest.fixture
async def story(remote: Remote, servers: LocalServers, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """The story of this test; everything that it started ends with it."""
    name = request.node.name.removeprefix("test_").translate(str.maketrans("_[", "--", "]"))[:40].rstrip("-")
    told = Story(remote, servers, name)
    await servers.declare(name)
    yield told
    for host in told.hosts.values():
        await host.end()


async def begin(story: Story, hosts: int = 1, *extra: str) -> None:
    """The agent runs and has counted to two. `extra`: flags of the hosts."""
    for _ in range(hosts):
        await story.host(*extra)
    await story.create()
    await story.count(within_s=30)
    await story.count()
    assert story.epoch == 1


async def test_daemon_killed(story: Story) -> None:
    """The spare takes over; its exclusive lock proves the death; the agent answers here, under the next epoch."""
    await begin(story)
    host = story.holder
    os.kill(host.daemon(), signal.SIGKILL)
    await story.count()
    assert (story.held_by, story.epoch) == (host.name, 2)
    assert "proven dead: " in host.log


async def test_daemon_frozen(story: Story) -> None:
    """Its lease ends by time; PID 1 kills its workers when it does; another host takes over; thawed, it begins anew."""
    await begin(story, hosts=2)
    host, worker = story.holder, await story.worker()
    frozen = host.daemon()
    os.kill(frozen, signal.SIGSTOP)
    await eventually(lambda: not alive(worker), 5)
    await story.count(within_s=LEASE_S)
    assert (story.held_by != host.name, story.epoch) == (True, 2)
    os.kill(frozen, signal.SIGCONT)
    await eventually(lambda: "was declared dead: starting anew" in host.log and not alive(frozen))
    await story.count()


async def test_worker_killed(story: Story) -> None:
    """PID 1 reports the death and starts another; the agent goes on under the same epoch."""
    await begin(story)
    os.kill(await story.worker(), signal.SIGKILL)
    await story.count()
    assert story.epoch == 1


async def test_worker_frozen(story: Story) -> None:
    """No answer to five pings: killed; the same epoch goes on in another process."""
    await begin(story)
    frozen = await story.worker()
    os.kill(frozen, signal.SIGSTOP)
    await story.count(within_s=5 + SOON_S)
    assert story.epoch == 1
    assert not alive(frozen)


async def test_pid_1_of_the_workers_killed(story: Story) -> None:
    """Its workers die with it; the supervisor starts it again within the 2 s after which agents would be given up."""
    await begin(story)
    host, worker = story.holder, await story.worker()
    os.kill(host.pid_1(), signal.SIGKILL)
    await eventually(lambda: not alive(worker), 5)
    await story.count()
    await eventually(host.pid_1)
    assert story.held_by == host.name
    assert story.epoch == 1 or "giving up all agents" in host.log, "the epoch ends with a word, and not otherwise"


async def test_pid_1_of_the_workers_frozen(story: Story) -> None:
    """It could not kill workers at the end of the lease: they lose their sockets, and another host gets the agent."""
    await begin(story, hosts=2)
    host = story.holder
    os.kill(host.pid_1(), signal.SIGSTOP)
    await eventually(lambda: "PID 1 of the workers answered no ping for 5 s" in host.log)
    await story.count(within_s=LEASE_S)
    assert (story.held_by != host.name, story.epoch) == (True, 2)


async def test_supervisor_killed(story: Story) -> None:
    """As when PID 1 of a container dies: everything under it ends, and the lease ends by time."""
    await begin(story, hosts=2)
    host, tree = story.holder, [story.holder.daemon(), story.holder.pid_1(), await story.worker()]
    os.kill(host.supervisor, signal.SIGKILL)
    await eventually(lambda: not any(map(alive, tree)), 5)
    await story.count(within_s=LEASE_S)
    assert (story.held_by != host.name, story.epoch) == (True, 2)


async def test_supervisor_frozen(story: Story) -> None:
    """Nobody needs it while the daemon lives; a daemon that dies meanwhile is replaced by another host."""
    await begin(story, hosts=2)
    host = story.holder
    os.kill(host.supervisor, signal.SIGSTOP)
    await story.count()
    assert story.epoch == 1
    os.kill(host.daemon(), signal.SIGKILL)
    await story.count(within_s=LEASE_S)
    assert (story.held_by != host.name, story.epoch) == (True, 2)
    os.kill(host.supervisor, signal.SIGCONT)
    await eventually(host.daemon)


async def test_power_cut_and_return(story: Story) -> None:
    """The whole tree goes silent; the agent answers elsewhere; the tree that comes back holds nothing."""
    await begin(story, hosts=2)
    host, worker = story.holder, await story.worker()
    host.freeze()
    await story.count(within_s=LEASE_S)
    assert (story.held_by != host.name, story.epoch) == (True, 2)
    host.thaw()
    await eventually(lambda: "was declared dead: starting anew" in host.log, why=lambda: host.log)
    await eventually(lambda: not alive(worker))
    await story.count()
    assert story.epoch == 2


async def test_drain(story: Story) -> None:
    """SIGTERM: the running turn ends and is kept, the agent moves with its state, the host leaves with status 0."""
    await begin(story, hosts=2)
    host = story.holder
    slow = asyncio.ensure_future(story.call("slowly", seconds=4.0))  # longer than a lease, which is renewed meanwhile
    await eventually(lambda: True)
    os.kill(host.supervisor, signal.SIGTERM)
    story.acknowledged += 1
    assert await slow == story.acknowledged
    assert await asyncio.wait_for(host.process.wait(), SOON_S) == 0
    await story.count()
    assert (story.held_by != host.name, story.epoch) == (True, 2)


@pytest.mark.parametrize("asked", ["idle", "asked"])
async def test_drain_without_servers(story: Story, asked: str) -> None:
    """Nobody can keep what it writes, nor hear what it says: it ends soon after its lease, not with its pod's grace
    period. A call whose turn was on its way is made again by its client, and counts once.
    """
    await begin(story, 1, "--exit-deadline", "55")
    host, servers = story.holder, story.servers
    for name in servers.servers:
        servers.freeze(name)
    counting = asyncio.ensure_future(story.count(within_s=60)) if asked == "asked" else None
    await eventually(lambda: True)
    os.kill(host.supervisor, signal.SIGTERM)
    assert await asyncio.wait_for(host.process.wait(), LEASE_S) == 0
    for name in servers.servers:
        servers.thaw(name)
    await story.host()
    if counting is not None:
        await counting
    await story.count(within_s=30)


async def test_a_call_that_ends_its_worker(story: Story) -> None:
    """Tried once more alone, then WorkerCrashed, not applied; the agent backs off and says why; others go on."""
    await begin(story)
    neighbour = f"{story.agent}-neighbour"
    await story.create(neighbour)
    assert await story.call("increment", agent=neighbour) == 1
    with pytest.raises(CallError, match="ended its worker process") as caught:
        await story.call("crash", within_s=20)
    assert (caught.value.code, caught.value.outcome) == ("WorkerCrashed", "not_applied")
    assert await story.call("increment", agent=neighbour) == 2

    async def summary() -> str:
        return (await story.remote.resolve(story.agent)).summary

    async with asyncio.timeout(SOON_S):
        while "crash" not in (said := await summary()).lower():
            assert "Backing off" not in said or "attempt 1" in said
            await asyncio.sleep(0.05)
    await story.count(within_s=SOON_S)
    assert story.epoch == 1


async def test_a_turn_that_raises(story: Story) -> None:
    """ActionFailed, not applied: the change of the failed turn is gone, the agent goes on."""
    await begin(story)
    with pytest.raises(CallError, match="ValueError in refuse: not today") as caught:
        await story.call("refuse")
    assert (caught.value.code, caught.value.outcome) == ("ActionFailed", "not_applied")
    await story.count()


async def test_a_turn_that_blocks_its_worker(story: Story) -> None:
    """A frozen event loop is a frozen worker: killed after five pings, tried alone, then the caller is told."""
    await begin(story)
    with pytest.raises(CallError) as caught:
        await story.call("block", seconds=60.0, within_s=30)
    assert caught.value.outcome == "not_applied"
    await story.count(within_s=20)


async def test_modules_that_cannot_be_imported(story: Story, tmp_path: Path) -> None:
    """The host says ImportFailed with file and line and takes no agents; another host of the pool serves."""
    (tmp_path / "broken_agents.py").write_text("import tenure\n\nimport no_such_module\n")
    broken = await story.host(modules="broken_agents", code=tmp_path)
    await story.host()
    await story.create()
    await story.count(within_s=30)
    assert story.held_by != broken.name

    async def reported() -> Any:
        stream = story.servers.registry("client").Watch(registry_pb2.WatchRequest(kinds=["hosts"]))
        async for batch in stream:
            for row in batch.hosts:
                if row.name == broken.name and row.worker_reason:
                    stream.cancel()
                    return row
        raise AssertionError("the watch ended")

    async with asyncio.timeout(SOON_S):
        row = await reported()
    assert (row.worker_reason, row.ready) == ("ImportFailed", False)
    assert "no_such_module" in row.worker_error


async def test_one_durable_turn_with_a_server_down(story: Story) -> None:
    """Committed on a majority: a dead server costs nothing, and the next holder adopts the state from the others."""
    await begin(story)
    name = max(story.servers.servers)
    await story.servers.kill(name)
    try:
        await story.count()
        os.kill(story.holder.daemon(), signal.SIGKILL)
        await story.count(within_s=LEASE_S)
        assert story.epoch == 2
    finally:
        await story.servers.start(name)
        await story.servers.ready(name)


async def test_a_repeated_call_id_is_answered_from_the_record(story: Story) -> None:
    """The same call id, also at the next holder, returns the recorded reply and counts once."""
    await begin(story)
    await story.remote.call(story.agent, "action", "increment", msgspec.msgpack.encode({}), timeout_s=SOON_S)
    story.acknowledged += 1
    story.remote._ids.streams[story.agent].last -= 1  # as after a lost reply
    again = await story.remote.call(story.agent, "action", "increment", msgspec.msgpack.encode({}), timeout_s=SOON_S)
    assert (msgspec.msgpack.decode(again.value), again.recorded) == (story.acknowledged, True)
    os.kill(story.holder.daemon(), signal.SIGKILL)
    story.remote._ids.streams[story.agent].last -= 1
    again = await story.remote.call(story.agent, "action", "increment", msgspec.msgpack.encode({}), timeout_s=LEASE_S)
    assert (msgspec.msgpack.decode(again.value), again.recorded, again.epoch) == (story.acknowledged, True, 2)
