"""The store in PostgreSQL under faults: killed, frozen, cut off, taken over. What was acknowledged is kept, nothing is
called "not applied", and once it is there again everything goes on (protocol 2, owner 5).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
from local_servers import until
from postgres_server import PostgresServer
from store_places import PostgresHost, PostgresPlace, postgresql

from tenured.host import pgstore
from tenured.host.stores import Record, RecordFenced, RecordUnreadable
from tenured.storage import postgres as storage

pytestmark = pytest.mark.timeout(120)

RECORDS = 8


@pytest.fixture
async def server() -> AsyncIterator[PostgresServer]:
    """One that may be broken."""
    async with PostgresServer() as running:
        yield running


@pytest.fixture
async def place(server: PostgresServer) -> AsyncIterator[PostgresPlace]:
    async with postgresql(server) as found:
        yield found


@dataclass
class Writer:
    """Counts one record up."""

    record: Record
    sent: int = 0
    acknowledged: int = 0
    fenced: bool = False

    async def run(self) -> None:
        """Three writes under way at most, until fenced."""
        under_way: list[asyncio.Future[None]] = []
        try:
            while True:
                self.sent += 1
                puts = {"n": str(self.sent).encode(), f"k/{self.sent % 5}": str(self.sent).encode()}
                under_way.append(self.record.write(0, puts, [f"k/{(self.sent + 2) % 5}"]))
                if len(under_way) == 3:
                    await under_way.pop(0)
                    self.acknowledged = self.sent - 2
        except RecordFenced:
            self.sent -= len(under_way) == 0
            self.fenced = True


class Load:
    """Writers of many records of one host."""

    def __init__(self, writers: dict[str, Writer]) -> None:
        self.writers = writers
        self._tasks = [asyncio.ensure_future(writer.run()) for writer in writers.values()]

    @classmethod
    async def begin(cls, host: PostgresHost) -> Load:
        records = {str(n): host.store.open(str(n), 1, expect_state=False) for n in range(1, RECORDS + 1)}
        await asyncio.gather(*(record.adopted() for record in records.values()))
        return cls({uid: Writer(record) for uid, record in records.items()})

    async def progress(self, writes: int = 30) -> None:
        """Until each has acknowledged so many more."""
        wanted = {uid: writer.acknowledged + writes for uid, writer in self.writers.items()}
        async with asyncio.timeout(40):
            while any(writer.acknowledged < wanted[uid] for uid, writer in self.writers.items()):
                assert not any(task.done() for task in self._tasks), self._tasks
                await asyncio.sleep(0.01)

    async def taken_over(self, place: PostgresPlace, epoch: int = 2) -> None:
        """A second owner of each, in the middle of its writes: it has what was acknowledged, the first one stops."""
        host = await place.host()
        records = {uid: host.store.open(uid, epoch, expect_state=True) for uid in self.writers}
        async with asyncio.timeout(40):
            adopted = {uid: await record.adopted() for uid, record in records.items()}
            await asyncio.gather(*self._tasks)
        for uid, writer in self.writers.items():
            entries = adopted[uid].entries
            last = int(entries["n"])
            assert writer.fenced
            assert writer.acknowledged <= last <= writer.sent
            assert adopted[uid].version.seq == last, "a write was lost or applied twice"
            assert entries[f"k/{last % 5}"] == entries["n"], "changes of one write came apart"
            assert f"k/{(last + 2) % 5}" not in entries
            await records[uid].write(0, {"n": b"of the second"})
            assert (await place.stored(uid))["n"] == b"of the second"


async def begin(place: PostgresPlace) -> tuple[PostgresHost, Load]:
    host = await place.host()
    assert isinstance(host, PostgresHost)
    return host, await Load.begin(host)


async def test_killed_under_load(place: PostgresPlace, server: PostgresServer) -> None:
    """kill -9 of all its processes, twice."""
    _, load = await begin(place)
    for _ in range(2):
        await load.progress()
        await server.kill()
        await server.start()
    await load.progress()
    await load.taken_over(place)


async def test_it_is_dead_once_the_last_of_its_sessions_is(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the tests' server: one that waits for its disk ends later than the others, and as long as it lives PostgreSQL
    does not start on the same data.
    """
    kill, late = os.kill, server._pids()[-1]
    kill(late, signal.SIGSTOP)  # or it ends by itself, with its server

    def slowly(pid: int, number: int) -> None:
        if (pid, number) == (late, signal.SIGKILL):
            asyncio.get_running_loop().call_later(0.3, kill, pid, number)
        else:
            kill(pid, number)

    monkeypatch.setattr(os, "kill", slowly)
    await server.kill()
    await server.start()


async def test_taken_over_while_it_was_dead(place: PostgresPlace, server: PostgresServer) -> None:
    """Both owners wait for it; the higher epoch wins."""
    _, load = await begin(place)
    await load.progress()
    await server.kill()
    taking = asyncio.ensure_future(load.taken_over(place))
    await server.start()
    await taking


async def test_frozen(place: PostgresPlace, server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP: nothing is acknowledged, no connection breaks by itself; what the old ones still hold comes first or not
    at all.
    """
    monkeypatch.setattr(storage, "ANSWER_S", 0.2)
    monkeypatch.setattr(storage, "CONNECT_S", 0.2)
    monkeypatch.setattr(pgstore, "LONGEST_PAUSE_S", 0.1)
    host, load = await begin(place)
    for _ in range(3):
        await load.progress()
        server.freeze()
        await until(attempts_of(host, 2), 20)  # no answer came, nor to the next connection
        server.thaw()
    monkeypatch.setattr(storage, "CONNECT_S", 5.0)
    await load.progress()
    await load.taken_over(place)


async def test_cut_off_again_and_again(place: PostgresPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """With answers on the way and without."""
    monkeypatch.setattr(pgstore, "FIRST_PAUSE_S", 0.001)
    host, load = await begin(place)
    for _ in range(10):
        await load.progress(5)
        host.proxy.cut()
        await load.progress(5)
        host.lose_answers()
        await host.done_unheard()
        host.reconnect()
    await load.taken_over(place)


async def test_taken_over_by_one_that_is_cut_off_too(place: PostgresPlace) -> None:
    host, load = await begin(place)
    await load.progress()
    host.lose_answers()
    await host.done_unheard()
    taking = asyncio.ensure_future(load.taken_over(place))
    await asyncio.sleep(0)
    host.reconnect()
    await taking


async def test_records_of_deleted_agents_leave(place: PostgresPlace) -> None:
    """[uid_drop]: of the host that held them at once; of one that died, when any host looks."""
    first = await place.host()
    assert isinstance(first, PostgresHost)
    for uid in ("1", "2", "3"):
        record = first.store.open(uid, 1, expect_state=False)
        await record.adopted()
        await record.write(0, {"s": uid.encode()})
        first.store.close(record)
    first.store.deleted(["1", "not of this host"])
    await _until_left(place, ["2", "3"])
    second = PostgresHost(first.proxy, place.server.url_at(first.proxy.port, place.schema))
    second.deleted = {"3"}
    running = asyncio.ensure_future(second.store.keep_repeating())
    await _until_left(place, ["2"])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def _until_left(place: PostgresPlace, uids: list[str]) -> None:
    async def left() -> bool:
        return [row["uid"] for row in await place.sql("SELECT uid FROM tenure_record ORDER BY uid")] == uids

    await until(left, 10)
    assert [row["uid"] for row in await place.sql("SELECT DISTINCT uid FROM tenure_entry ORDER BY uid")] == uids


def attempts_of(host: PostgresHost, number: int) -> Callable[[], Awaitable[bool]]:
    """Whether so many attempts to connect were made from now on."""
    connect, made = host.database.connect, 0

    async def counted() -> None:
        nonlocal made
        made += 1
        await connect()

    async def enough() -> bool:
        return made >= number

    host.database.connect = counted  # type: ignore[method-assign]
    return enough


@pytest.mark.parametrize("whole", [False, True])
async def test_damage_keeps_the_agent_down(place: PostgresPlace, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """RecordUnreadable with the reason, also when the record is fetched apart; other agents go on."""
    if whole:
        monkeypatch.setattr(storage, "INLINE_LIMIT", 0)
    host = await place.host()
    for uid in ("6", "7"):
        await (await _adopted(host, uid, 1)).write(0, {"s": b"x"})
    await place.damage("7", "s", b"y", checksum=False)
    records = {uid: host.store.open(uid, 2, expect_state=True) for uid in ("6", "7")}
    with pytest.raises(RecordUnreadable, match="Record 7 in PostgreSQL: entry b's' is damaged"):
        await records["7"].adopted()
    assert (await records["6"].adopted()).entries == {"s": b"x"}


async def _adopted(host: object, uid: str, epoch: int) -> Record:
    assert isinstance(host, PostgresHost)
    record = host.store.open(uid, epoch, expect_state=False)
    await record.adopted()
    return record


async def test_a_large_record_is_fetched_apart(place: PostgresPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "INLINE_LIMIT", 100)
    host = await place.host()
    for uid in ("6", "7"):
        await (await _adopted(host, uid, 1)).write(0, {"s": uid.encode() * 1000})
    records = {uid: host.store.open(uid, 2, expect_state=True) for uid in ("6", "7")}
    for uid, record in records.items():
        assert (await record.adopted()).entries == {"s": uid.encode() * 1000}


async def test_the_state_of_an_earlier_cluster_of_that_name_is_not_taken(place: PostgresPlace) -> None:
    """[uid, epoch_once]: a registry founded anew numbers its agents from the beginning again."""
    await (await _adopted(await place.host(), "7", 1)).write(0, {"s": b"of the first life"})
    record = (await place.host()).store.open("7", 1, expect_state=False)
    with pytest.raises(RecordUnreadable, match="founded earlier"):
        await record.adopted()


async def test_trouble_is_told_once(
    place: PostgresPlace, server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Not at every attempt."""
    host, load = await begin(place)
    await load.progress()
    with caplog.at_level(logging.WARNING, logger="tenured.host.pgstore"):
        await server.kill()
        host.proxy.cut()
        await until(attempts_of(host, 6), 20)
        told = [record for record in caplog.records if record.name == "tenured.host.pgstore"]
        assert [record.getMessage().partition(":")[0] for record in told] == [
            "PostgreSQL does not answer",
            "PostgreSQL cannot be used",
        ]
        assert host.store.trouble.startswith("PostgreSQL cannot be used: ")
        await server.start()
    await load.progress()
    assert host.store.trouble == ""
    await load.taken_over(place)
