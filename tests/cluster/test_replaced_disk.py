"""A server's volume is lost and replaced while agents work, and then another server is killed: nothing is lost."""

import asyncio
import os
import shutil
import signal

import pytest

from tenure_cli.dev.workers import daemon_pids
from tests.cluster.cluster_local import DEADLINE_S, Local

pytestmark = pytest.mark.cluster


async def work(local: Local, name: str, stop: asyncio.Event) -> int:
    """Calls one after the other, each answered; how many there were."""
    calls = 0
    while not stop.is_set():
        await local.call(name, "increment")
        calls += 1
    return calls


async def joined(local: Local, name: str, since: int) -> None:
    """Wait until that server has said, after line `since` of the log, that its store is open; the others know."""
    async with asyncio.timeout(DEADLINE_S):
        while not any(who == name and "the state store is open" in line for who, line in local.log[since:]):  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # a process of its own
        while (status := await local.cluster.status()).servers:
            if {server.name: server.store for server in status.servers}[name] == "ready":
                return
            await asyncio.sleep(0.1)  # the status is no stream


async def test_a_replaced_disk_counts_again_when_the_next_server_dies(whole: Local) -> None:
    """Protocol 2, rejoin: under load no call fails, and a majority of the new disk and one other holds every record."""
    names = [await whole.running_agent() for _ in range(6)]
    stop = asyncio.Event()
    calling = [asyncio.create_task(work(whole, name, stop)) for name in names]
    leader = (await whole.cluster.status()).leader
    lost, other = [server for server in whole.running.servers if server.name != leader]
    await lost.kill(restart=False)
    shutil.rmtree(whole.running.plan.directory / lost.name / "data")
    since = len(whole.log)
    await lost.start()
    await joined(whole, lost.name, since)
    stop.set()
    counts = await asyncio.gather(*calling)
    await other.kill(restart=False)
    for host in whole.running.hosts:  # every record is sealed and read anew, on what is left: the new disk and one more
        for pid in daemon_pids(host.pid):
            os.kill(pid, signal.SIGKILL)
    for name, count in zip(names, counts, strict=True):
        assert count > 0
        assert await whole.call(name, "value") == count
        assert await whole.call(name, "increment") == count + 1
    await other.start()
