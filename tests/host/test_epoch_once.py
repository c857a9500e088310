"""An activation is opened once with its (uid, epoch), whatever the watch does (protocol 2, owner 1 [epoch_once])."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from tenure_proto.v1.registry_pb2 import AgentRow, AgentSpec, WatchBatch
from tenured.host import activations
from tenured.host.mirror import Mirror

ME = "inc-me"


def row(uid: str, epoch: int = 1) -> AgentRow:
    return AgentRow(uid=uid, epoch=epoch, incarnation=ME, host="me", spec=AgentSpec(id=f"shop/a{uid}"))


def unheld(uid: str) -> AgentRow:
    return AgentRow(uid=uid, epoch=0, spec=AgentSpec(id=f"shop/a{uid}"))


class Holder:
    """Notes that it was opened."""

    opened: list[tuple[str, int]] = []  # noqa: RUF012 - of the test, emptied by the fixture

    def __init__(self, site: object, row: AgentRow, **_: object) -> None:
        self.uid, self.epoch, self.failure = row.uid, row.epoch, None
        Holder.opened.append((row.uid, row.epoch))

    async def stop(self, *, finish_turn: bool) -> None:
        pass

    def abort(self) -> None:
        pass


@pytest.fixture
async def host(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    Holder.opened.clear()
    monkeypatch.setattr(activations, "Holder", Holder)
    said: list[tuple[str, int]] = []
    site: Any = SimpleNamespace(
        mirror=Mirror(ME),
        logs=SimpleNamespace(forget=lambda uid: None),
        reports=SimpleNamespace(
            released=lambda uid, epoch: said.append((uid, epoch)), stopped=lambda uid, epoch: said.append((uid, epoch))
        ),
    )
    runs = activations.Activations(site)
    task = asyncio.ensure_future(runs.run())

    async def take(batch: WatchBatch) -> None:
        runs.rows_changed(site.mirror.apply(batch))
        for _ in range(20):  # rounds of the loop: more than a reconciliation and an end take
            await asyncio.sleep(0)

    yield SimpleNamespace(take=take, runs=runs, said=said)
    task.cancel()


async def test_a_snapshot_in_two_chunks(host: Any) -> None:
    """What a snapshot has not brought yet is not gone: the history did not reach back, and 200 rows are a chunk."""
    await host.take(WatchBatch(revision=9, snapshot=True, synced=True, agents=[row("1"), row("2")]))
    await host.take(WatchBatch(snapshot=True, agents=[row("1")]))
    await host.take(WatchBatch(agents=[row("2")]))
    await host.take(WatchBatch(revision=12, synced=True))
    assert sorted(Holder.opened) == [("1", 1), ("2", 1)]


async def test_a_snapshot_of_a_server_that_is_behind(host: Any) -> None:
    """It shows the time before the assignment; the agent is stopped, and opened again under a new epoch only."""
    await host.take(WatchBatch(revision=9, snapshot=True, synced=True, agents=[row("1")]))
    await host.take(WatchBatch(revision=4, snapshot=True, synced=True, agents=[unheld("1")]))  # before the assignment
    await host.take(WatchBatch(revision=9, agents=[row("1")]))
    assert Holder.opened == [("1", 1)]


async def test_what_was_released_stays_released(host: Any) -> None:
    """Somebody else may hold it by now."""
    await host.take(WatchBatch(revision=9, snapshot=True, synced=True, agents=[row("1")]))
    host.runs.release_all(True)
    await host.take(WatchBatch(revision=9))
    assert host.said == [("1", 1)]
    host.runs.release_all(False)
    await host.take(WatchBatch(revision=4, snapshot=True, synced=True, agents=[unheld("1")]))
    await host.take(WatchBatch(revision=9, agents=[row("1")]))
    assert Holder.opened == [("1", 1)]
