"""What happens to an agent and its calls when what holds it dies."""

import asyncio
import os
import signal

import pytest

from tenure_cli.dev.workers import daemon_pids, worker_pids
from tenure_cli.ports import Rows
from tests.cluster.cluster_local import Local, good_hosts

pytestmark = pytest.mark.cluster


async def count_on(local: Local, name: str, calls: int) -> None:
    """Calls one after the other; each must be answered."""
    for _ in range(calls):
        await local.call(name, "increment")


async def test_an_agent_outlives_the_silence_of_its_host(whole: Local) -> None:
    """Frozen: no socket is closed. Elsewhere under a higher epoch, nothing lost, nothing doubled; invariants 1 to 4."""
    name = await whole.running_agent()
    await count_on(whole, name, 10)
    before = await whole.until(name, lambda row: row.ready, "Ready")
    victim = whole.running.process(before.host)
    calling = asyncio.create_task(count_on(whole, name, 30))
    victim.freeze()
    await calling
    after = await whole.until(name, lambda row: row.ready and row.epoch > before.epoch, "Ready elsewhere")
    assert after.host != before.host
    assert after.last_failover.reason == "LeaseExpired"
    assert after.last_failover.duration_ms > 0
    assert after.restarts == 1
    assert await whole.call(name, "value") == 40
    await victim.kill(restart=True)


async def test_an_agent_is_told_that_it_begins_elsewhere(whole: Local) -> None:
    """FAIL-07: the hook sees `ctx.recovered`, under the same id; FAIL-08: the row names the lost host."""
    name = await whole.running_agent(class_="Mounted")
    assert await whole.call(name, "value") == 100
    before = await whole.until(name, lambda row: row.ready, "Ready")
    victim = whole.running.process(before.host)
    victim.freeze()
    after = await whole.until(name, lambda row: row.ready and row.epoch > before.epoch, "Ready elsewhere")
    assert after.last_failover.from_host == before.host
    assert await whole.call(name, "value") == 1100
    await victim.kill(restart=True)


async def test_a_host_that_thaws_after_its_lease_serves_nothing_it_lost(whole: Local) -> None:
    """The frozen host wakes up when the agent is elsewhere: it has fenced itself, and its late turn changes nothing."""
    name = await whole.running_agent()
    await count_on(whole, name, 3)
    before = await whole.until(name, lambda row: row.ready, "Ready")
    victim = whole.running.process(before.host)
    victim.freeze()
    await count_on(whole, name, 3)
    victim.thaw()
    await count_on(whole, name, 20)
    after = await whole.until(name, lambda row: row.ready, "Ready")
    assert after.epoch > before.epoch
    assert await whole.call(name, "value") == 26


async def test_a_killed_daemon_comes_back_and_its_agents_with_it(whole: Local) -> None:
    """The supervisor restarts it at once; proof of death spares the wait for the lease."""
    name = await whole.running_agent()
    await count_on(whole, name, 5)
    before = await whole.until(name, lambda row: row.ready, "Ready")
    calling = asyncio.create_task(count_on(whole, name, 20))
    for pid in daemon_pids(whole.running.process(before.host).pid):
        os.kill(pid, signal.SIGKILL)
    await calling
    after = await whole.until(name, lambda row: row.ready and row.epoch > before.epoch, "Ready again")
    assert after.restarts == 1
    assert await whole.call(name, "value") == 25


async def test_a_killed_process_tree_comes_back_with_its_agents(whole: Local) -> None:
    """Daemon and all workers at once; the supervisor lives. Proof of death needs every lock of the dead to be free."""
    name = await whole.running_agent()
    await count_on(whole, name, 5)
    before = await whole.until(name, lambda row: row.ready, "Ready")
    calling = asyncio.create_task(count_on(whole, name, 20))
    supervisor = whole.running.process(before.host).pid
    for pid in daemon_pids(supervisor) + worker_pids(supervisor):
        os.kill(pid, signal.SIGKILL)
    await calling
    after = await whole.until(name, lambda row: row.ready and row.epoch > before.epoch, "Ready again")
    assert after.last_failover.duration_ms > 0
    assert await whole.call(name, "value") == 25


async def test_silence_is_shown_before_the_failover_and_recorded_after_it(whole: Local) -> None:
    """Suspicion, then the end of the lease, then the failover: each is a sentence; `tenure failovers` keeps it."""
    name = await whole.running_agent()
    before = await whole.until(name, lambda row: row.ready, "Ready")
    said: list[str] = []

    def moved(rows: Rows) -> bool:
        row = rows.agent(name)
        assert row is not None
        if not said or said[-1] != row.summary:
            said.append(row.summary)
        return row.ready and row.epoch > before.epoch

    watching = asyncio.create_task(whole.until_rows(moved, f"{name} is Ready elsewhere"))
    victim = whole.running.process(before.host)
    victim.freeze()
    await watching
    node = before.node
    assert said[0] == f"Running on {node}"
    assert said[1] == f"Running on {node} (its host is silent)"
    # The last of them may be one row: a watch tells what changed within 20 ms together.
    assert all(text.startswith((f"Failing over from {node}", "Starting on ")) for text in said[2:-1]), said
    after = await whole.until(name, lambda row: row.ready, "Ready")
    assert after.recovered_from == f"{before.host}/{node}"
    shown = await whole.tenure("failovers", "-o", "wide")
    last = shown.out.splitlines()[-1]
    assert before.host in last
    assert "LeaseExpired" in last
    assert f"{name} -> {after.host}" in last
    await victim.kill(restart=True)


async def test_hosts_that_fall_silent_together_are_waited_for(whole: Local) -> None:
    """A switch is restarted: most hosts are gone at once, and are back before that was confirmed. Nothing moved.

    On a machine that is busy enough the thaw comes after that time: then the leader has said so of the host first.
    """
    names = [await whole.running_agent() for _ in range(3)]
    for name in names:
        await count_on(whole, name, 2)
    rows = [await whole.until(name, lambda row: row.ready, "Ready") for name in names]
    first = len(whole.log)
    victims = [whole.running.process(host) for host in good_hosts(whole.running)]
    for victim in victims:
        victim.freeze()
    for name in names:
        await whole.until(name, lambda row: row.reason == "FailoverHeld", "held back")
    for victim in victims:  # at once: what is held back is confirmed by three more ends of a lease
        victim.thaw()
    for name, before in zip(names, rows, strict=True):
        row = await whole.until(name, lambda row: row.ready and row.reason == "Running", "Running again")
        confirmed = any(f"host {before.host} is expired" in line for _, line in whole.log[first:])
        assert row.epoch == before.epoch or confirmed
        assert await whole.call(name, "value") == 2


async def test_an_operator_may_confirm_that_they_are_gone(whole: Local) -> None:
    """`tenure failover confirm HOST`: that one is ended at once, the others wait on."""
    name = await whole.running_agent()
    before = await whole.until(name, lambda row: row.ready, "Ready")
    assert (await whole.tenure("failover", "confirm")).status == 1
    victims = [whole.running.process(host) for host in good_hosts(whole.running)]
    for victim in victims:
        victim.freeze()
    await whole.until(name, lambda row: row.reason == "FailoverHeld", "held back")
    doctor, confirmed = await asyncio.gather(whole.tenure("doctor"), whole.tenure("failover", "confirm", before.host))
    assert "✗ failover: held back; " in doctor.out
    assert f"confirmed: {before.host}" in confirmed.out
    await whole.until(name, lambda row: not row.host, "taken from its host")
    for victim in victims:
        if victim.name != before.host:
            victim.thaw()
    after = await whole.until(name, lambda row: row.ready, "Ready elsewhere")
    assert after.host != before.host
    await whole.running.process(before.host).kill(restart=True)


async def test_a_killed_worker_keeps_its_agents_epoch(whole: Local) -> None:
    """Only the process with the user's code is new."""
    name = await whole.running_agent()
    await count_on(whole, name, 5)
    before = await whole.until(name, lambda row: row.ready, "Ready")
    for pid in worker_pids(whole.running.process(before.host).pid):
        os.kill(pid, signal.SIGKILL)
    await count_on(whole, name, 5)
    assert await whole.call(name, "value") == 10


async def test_leader_and_holder_fall_silent_together(whole: Local) -> None:
    """A majority of the servers is left: a new leader, a new holder, the same count."""
    name = await whole.running_agent()
    await count_on(whole, name, 5)
    before = await whole.until(name, lambda row: row.ready, "Ready")
    leader = (await whole.cluster.status()).leader
    victims = [whole.running.process(before.host), whole.running.process(leader)]
    for victim in victims:
        victim.freeze()
    await count_on(whole, name, 10)
    assert await whole.call(name, "value") == 15
    for victim in victims:
        await victim.kill(restart=True)


async def test_an_agent_that_is_not_critical_waits_for_its_node(whole: Local) -> None:
    """`critical: false`: marked Unavailable, not moved; it runs again when the host is back."""
    name = await whole.running_agent(critical=False)
    await count_on(whole, name, 2)
    before = await whole.until(name, lambda row: row.ready, "Ready")
    victim = whole.running.process(before.host)
    victim.freeze()
    row = await whole.until(name, lambda row: row.phase == "Unavailable", "Unavailable")
    assert row.reason == "NodeLost"
    await victim.kill(restart=True)
    await whole.until(name, lambda row: row.ready and row.node == before.node, "Ready again on its node")
    assert await whole.call(name, "value") == 2
