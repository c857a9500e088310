"""Agents with `durability: Volatile`: nothing is stored, calls are quick, signals leave at most once."""

import asyncio
import re
import urllib.request

import pytest

import tenure
from tenure import errors
from tests.cluster.cluster_agents import Counter
from tests.cluster.cluster_local import Local
from tests.cluster.test_operating import good

pytestmark = pytest.mark.cluster
VOLATILE = {"durability": "Volatile"}
CALLS = 20


async def test_its_state_is_gone_with_its_host_and_stays_with_its_worker(whole: Local) -> None:
    """It begins anew at the next holder; a worker that dies takes nothing along, for the host has the state."""
    name = await whole.on(1, class_="Counter", state={"count": 5}, **VOLATILE)
    assert await whole.call(name, "increment", by=2) == 7
    host = await whole.host_of(name)
    whole.kill_worker(host)
    assert await whole.call(name, "value") == 7
    before = await whole.until(name, lambda row: row.ready, "Ready")
    whole.kill_host(host)
    await whole.until(name, lambda row: row.ready and row.epoch > before.epoch, "Ready again")
    assert await whole.call(name, "value") == 5


async def test_a_call_of_it_writes_nothing(local: Local) -> None:
    """No server stores anything for it; a call of a durable agent is a write on a majority of them."""
    writes: list[int] = []
    for fields in (VOLATILE, {}):
        name = await local.running_agent(**fields)
        first = (await local.cluster.control(name, "state.get", {}, 30.0))["at"]
        before = stored(local)
        for number in range(CALLS):
            assert await local.call(name, "increment") == number + 1
        writes.append(stored(local) - before)
        state = await local.cluster.control(name, "state.get", {}, 30.0)
        assert (state["state"], state["at"] > first) == ({"count": CALLS}, True)
    volatile, durable = writes
    assert durable >= 2 * CALLS
    assert volatile < CALLS, "agents of other tests may write a little"


def stored(local: Local) -> int:
    """How often servers have synced their stores, in all."""
    found = 0.0
    for server in local.running.plan.servers:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        found += sum(map(float, re.findall(r"^tenure_store_commit_seconds_count (\S+)$", text, re.MULTILINE)))
    return int(found)


async def test_its_signals_arrive_once_or_never(whole: Local) -> None:
    """Protocol 3, volatile agents [vol_epoch, vol_highest, vol_once]: never twice, in order, whatever is killed."""
    mouth = await whole.on(1, class_="Mouth", **VOLATILE)
    ear = await whole.on(2, class_="Ear")
    for round_ in range(3):
        for number in range(5):
            await whole.call(mouth, "ask", to=ear, what=f"{round_}-{number}")
        row = await whole.until(mouth, lambda row: row.ready, "Ready")
        if round_ < 2:
            whole.kill_host(row.host)
            await whole.until(mouth, lambda row, old=row: row.ready and row.epoch > old.epoch, "Ready again")
    heard = await whole.until_answer(ear, "heard", lambda found: "2-4" in found, "told the last one")
    assert heard == sorted(set(heard))
    assert heard[-5:] == [f"2-{number}" for number in range(5)]


async def test_signals_to_it_are_taken_up_where_they_stand(whole: Local) -> None:
    """[vol_gap]: the next activation knows nothing of earlier ones, and the sender's stream goes on."""
    mouth = await whole.on(1, class_="Mouth")
    ear = await whole.on(2, class_="Ear", **VOLATILE)
    await whole.call(mouth, "ask", to=ear, what="before")
    await whole.until_answer(ear, "heard", lambda found: found == ["before"], "told")
    before = await whole.until(ear, lambda row: row.ready, "Ready")
    whole.kill_host(before.host)
    await whole.call(mouth, "ask", to=ear, what="after")
    await whole.until(ear, lambda row: row.ready and row.epoch > before.epoch, "Ready again")
    heard = await whole.until_answer(ear, "heard", lambda found: "after" in found, "told")
    assert heard[-1] == "after"


async def test_a_client_creates_one(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    """`client.create(durability="Volatile")`; the same again is no change, another durability is a conflict."""
    monkeypatch.setenv("XDG_STATE_HOME", local.environment["XDG_STATE_HOME"])
    name = local.name()
    async with tenure.connect() as client:
        counter = await client.create(Counter, name, durability="Volatile")
        values = await asyncio.gather(*(counter.increment() for _ in range(20)))
        assert sorted(values) == list(range(1, 21))
        await client.create(Counter, name, durability="Volatile")
        with pytest.raises(errors.Conflict, match="durability"):
            await client.create(Counter, name)
        assert await counter.value() == 20


async def test_a_manifest_creates_one(local: Local) -> None:
    """`tenure apply -f`, as kubectl would."""
    name = local.name()
    manifest = f"""
apiVersion: tenure.dev/v1alpha1
kind: Agent
metadata: {{namespace: {name.partition("/")[0]}, name: {name.partition("/")[2]}}}
spec: {{class: Counter, durability: Volatile, state: {{count: 3}}}}
"""
    applied = await local.tenure("apply", "-f", "-", stdin=manifest)
    assert applied.status == 0, applied.err
    row = await local.until(name, lambda row: row.ready, "Ready")
    assert row.spec.durability == "Volatile"
    assert "durability Volatile" in await good(local, "describe", "agent", name)
    assert await local.call(name, "increment") == 4
