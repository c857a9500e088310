"""What a holder may rely on, whichever store it uses (protocol 2, owner): on three real registers, and in a real
PostgreSQL, plain, and compressed and encrypted.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from postgres_server import PostgresServer
from store_places import Place, postgresql, servers

from tenured.core.cells import NOTHING, Version
from tenured.core.frames import MAX_RECORD
from tenured.host.stores import Record, RecordFenced, RecordTooLarge, RecordUnreadable
from tenured.storage.keys import Keyring

pytestmark = pytest.mark.timeout(60)


KEYS = Keyring("k1", {"k1": bytes(range(32))}, "keys")


@pytest.fixture(params=["servers", "postgresql", "servers, encrypted", "postgresql, encrypted"])
async def place(request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer) -> AsyncIterator[Place]:
    """One store that nobody else uses."""
    name: str = request.param
    async with servers(tmp_path) if name.startswith("servers") else postgresql(postgres) as made:
        if name.endswith("encrypted"):
            made.keyring = KEYS
        yield made


async def opened(place: Place, epoch: int, *, expect_state: bool = True, uid: str = "7") -> Record:
    """By a host of its own; adopted."""
    record = (await place.host()).store.open(uid, epoch, expect_state=expect_state)
    await record.adopted()
    return record


async def test_nothing_was_there(place: Place) -> None:
    adopted = await (await opened(place, 1, expect_state=False)).adopted()
    assert (adopted.version, adopted.entries) == (NOTHING, {})


async def test_a_successor_sees_the_last_acknowledged_state(place: Place) -> None:
    """owner 2 [epoch_first]: changed keys only were written, and what was deleted stays so."""
    first = await opened(place, 1, expect_state=False)
    await first.write(0, {"s": b"one", "c": b"1", "r/a/1": b"yes"})
    await first.write(0, {"s": b"two"}, ["r/a/1"])
    second = await opened(place, 2)
    assert (await second.adopted()).entries == {"s": b"two", "c": b"1"}
    assert (await second.adopted()).version == Version(1, 2)
    await second.write(0, {"c": b"2"})
    third = await opened(place, 5)
    assert (await third.adopted()).entries == {"s": b"two", "c": b"2"}
    assert third.owner.entries == {"s": b"two", "c": b"2"}


async def test_a_higher_epoch_silences_a_lower_one(place: Place) -> None:
    """[seal]: the old holder does not know of the new one, and its write changes nothing."""
    first = await opened(place, 1, expect_state=False)
    await first.write(0, {"s": b"one"})
    second = await opened(place, 2)
    with pytest.raises(RecordFenced, match="epoch 2 is sealed, this one is 1"):
        await first.write(0, {"s": b"of the past"})
    assert isinstance(first.lost, RecordFenced)
    with pytest.raises(RecordFenced):  # it stops: nothing is sent any more
        await first.write(0, {"s": b"of the past"})
    await second.write(0, {"c": b"2"})
    assert await place.stored("7") == {"s": b"one", "c": b"2"}


async def test_an_epoch_below_the_sealed_one_is_never_opened(place: Place) -> None:
    """guard_seal"""
    await opened(place, 3, expect_state=False)
    with pytest.raises(RecordFenced, match="epoch 3 is sealed"):
        await opened(place, 2, expect_state=False)


async def test_a_take_over_in_the_middle_of_writes(place: Place) -> None:
    """Whatever was acknowledged to the old holder the new one has; of the rest it has a prefix."""
    first = await opened(place, 1, expect_state=False)
    await first.write(0, {"n": b"0"})
    acknowledged = 0

    async def write_on() -> None:
        nonlocal acknowledged
        for number in range(1, 10_000):
            await first.write(0, {"n": str(number).encode(), f"k/{number % 7}": b"x" * number})
            acknowledged = number
            if number == 20:
                halfway.set()

    halfway = asyncio.Event()
    writing = asyncio.ensure_future(write_on())
    await halfway.wait()
    second = await opened(place, 2)
    with pytest.raises(RecordFenced):
        await writing
    adopted = await second.adopted()
    last = int(adopted.entries["n"])
    assert last in (acknowledged, acknowledged + 1)
    assert len(adopted.entries[f"k/{last % 7}"]) == last, "changes of one write came apart"
    await second.write(0, {"n": b"-1"})
    assert (await place.stored("7"))["n"] == b"-1"


async def test_writes_under_way_keep_their_order(place: Place) -> None:
    """owner 4: several may be under way; each is acknowledged after those before it."""
    first = await opened(place, 1, expect_state=False)
    ended: list[int] = []
    writes = []
    for number in range(40):
        done = first.write(0, {"n": str(number).encode(), f"k/{number}": b""}, [f"k/{number - 1}"])
        done.add_done_callback(lambda _, number=number: ended.append(number))
        writes.append(done)
    await asyncio.gather(*writes)
    await asyncio.sleep(0)
    assert ended == list(range(40))
    assert await place.stored("7") == {"n": b"39", "k/39": b""}


async def test_many_records_at_once(place: Place) -> None:
    """Each on its own: one that is fenced does not hold up the others (SealMany, WriteMany)."""
    await opened(place, 9, expect_state=False, uid="3")
    host = await place.host()
    records = {uid: host.store.open(uid, 2, expect_state=False) for uid in ("1", "2", "3", "4")}
    await asyncio.gather(*(records[uid].adopted() for uid in ("1", "2", "4")))
    with pytest.raises(RecordFenced, match="epoch 9"):
        await records["3"].adopted()
    del records["3"]
    await asyncio.gather(*(record.write(0, {"s": uid.encode()}) for uid, record in records.items()))
    assert [await place.stored(uid) for uid in records] == [{"s": b"1"}, {"s": b"2"}, {"s": b"4"}]


async def test_those_that_sleep_say_when_they_must_be_awake(place: Place) -> None:
    """Protocol 2, bulk take-over: of many that are taken over at once, whatever they weigh together."""
    host, large = await place.host(), random.Random(1).randbytes(5 << 20)
    for uid in ("1", "2", "3"):
        record = await opened(place, 1, expect_state=False, uid=uid)
        await record.write(0, {"s": large, "w": uid.encode()})
    await (await opened(place, 1, expect_state=False, uid="4")).write(0, {"s": b"plans nothing"})
    uids = ("1", "2", "3", "4")
    asleep = [host.store.open(uid, 2, expect_state=True, bare=True) for uid in uids]
    assert await asyncio.gather(*(record.asleep() for record in asleep)) == [b"1", b"2", b"3", b""]
    with pytest.raises(RecordFenced):  # they are sealed
        await opened(place, 1, uid="1")


async def test_a_write_whose_answer_is_lost_is_repeated_until_it_is_known(place: Place) -> None:
    """owner 5: the same version and bytes; it has happened once, and is never called "not applied"."""
    host = await place.host()
    record = host.store.open("7", 1, expect_state=False)
    await record.adopted()
    await record.write(0, {"n": b"0"})
    host.lose_answers()
    lost = [record.write(0, {"n": b"1"}), record.write(0, {"n": b"2", "k": b"x"})]
    await host.done_unheard()
    assert not any(done.done() for done in lost)
    host.reconnect()
    await asyncio.gather(*lost)
    await record.write(0, {"m": b"3"}, ["k"])
    assert await place.stored("7") == {"n": b"2", "m": b"3"}
    assert (await (await opened(place, 2)).adopted()).version == Version(1, 4)


async def test_a_lost_answer_and_a_successor(place: Place) -> None:
    """The write may or may not be adopted: its owner is told that it is fenced, not that nothing happened."""
    host = await place.host()
    record = host.store.open("7", 1, expect_state=False)
    await record.adopted()
    await record.write(0, {"n": b"0"})
    host.lose_answers()
    lost = record.write(0, {"n": b"1"})
    await host.done_unheard()
    second = await opened(place, 2)
    host.reconnect()
    with pytest.raises(RecordFenced, match="epoch 2 is sealed"):
        await lost
    assert (await second.adopted()).entries["n"] in (b"0", b"1")


async def test_nothing_where_there_was_something_is_never_a_beginning(place: Place) -> None:
    """[nothing]"""
    with pytest.raises(RecordUnreadable, match="the state that an earlier epoch committed"):
        await opened(place, 2, expect_state=True)


async def test_what_is_too_large_is_refused_before_anything_is_sent(place: Place) -> None:
    """In one write, and in several; the record goes on."""
    record = await opened(place, 1, expect_state=False)
    half = bytes(MAX_RECORD // 2)
    await record.write(0, {"a": half})
    with pytest.raises(RecordTooLarge, match=f"would take {MAX_RECORD + 1} bytes; the limit is {MAX_RECORD}"):
        record.write(0, {"b": half, "c": b"1"})
    await record.write(0, {"b": half})
    with pytest.raises(RecordTooLarge):
        record.write(0, {"c": b"1"})
    await record.write(0, {"c": b"1"}, ["b"])
    adopted = await (await opened(place, 2)).adopted()
    assert {key: len(value) for key, value in adopted.entries.items()} == {"a": MAX_RECORD // 2, "c": 1}
    with pytest.raises(RecordTooLarge):
        (await opened(place, 3)).write(0, {"d": bytes(MAX_RECORD // 2)})


async def test_any_bytes_and_any_key_come_back(place: Place) -> None:
    """Clients choose their ids: they are part of keys."""
    record = await opened(place, 1, expect_state=False)
    entries = {"s": bytes(range(256)), "r/a\0b/1": b"", "m/Ω☃": b"\xc1\x00\xff", "w": b"\xcb" + bytes(8)}
    await record.write(0, entries)
    assert (await (await opened(place, 2)).adopted()).entries == entries


async def test_a_closed_record_is_forgotten(place: Place) -> None:
    """Its answers change nothing, and others go on."""
    host = await place.host()
    gone, kept = (host.store.open(uid, 1, expect_state=False) for uid in ("1", "2"))
    host.store.close(gone)
    await kept.adopted()
    await kept.write(0, {"s": b"2"})
    assert await place.stored("2") == {"s": b"2"}
