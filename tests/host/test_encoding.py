"""Records that are compressed and encrypted on their way to a store: what stores see, rotation, missing keys, order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from postgres_server import PostgresServer
from store_places import Place, postgresql, servers

from tenured.core.frames import MAX_RECORD, Adopted
from tenured.host import encoding
from tenured.host.encoding import EncodedStore
from tenured.host.stores import Record, RecordFenced, RecordUnreadable
from tenured.storage.keys import KeyFile, Keyring

pytestmark = pytest.mark.timeout(60)

K1, K2 = bytes(range(32)), bytes(range(32, 64))
ONE = Keyring("k1", {"k1": K1}, "/etc/keys")
BOTH = Keyring("k2", {"k2": K2, "k1": K1}, "/etc/keys")
TWO = Keyring("k2", {"k2": K2}, "/etc/keys")
STATE = {"s": b"\x81 the secret of the agent " * 100, "c": b"\x01", "w": b"\xcb" + bytes(8), "r/a/1": b"\x92 secret"}


@pytest.fixture(params=["servers", "postgresql"])
async def place(request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer) -> AsyncIterator[Place]:
    async with servers(tmp_path) if request.param == "servers" else postgresql(postgres) as made:
        yield made


async def opened(place: Place, epoch: int, keyring: Keyring | None, uid: str = "7") -> Record:
    """By a host with these keys."""
    place.keyring = keyring
    record = (await place.host()).store.open(uid, epoch, expect_state=epoch > 1)
    await record.adopted()
    return record


def keys_of(raw: dict[str, bytes]) -> dict[str, str]:
    """Name -> id of the key that the stored entry is under; empty: none."""
    return {
        name: data[3 : 3 + data[2]].decode() if data[:1] == b"\xc1" and data[1] & 0x10 else ""
        for name, data in raw.items()
    }


async def test_a_store_sees_ciphertext_only(place: Place) -> None:
    """But for the time at which the agent wants to wake."""
    record = await opened(place, 1, ONE)
    await record.write(0, STATE)
    raw = await place.raw("7")
    assert keys_of(raw) == {"s": "k1", "c": "k1", "w": "", "r/a/1": "k1"}
    assert not any(b"secret" in data for data in raw.values())
    assert len(raw["s"]) < 200, "compressed before it was encrypted"
    assert raw["w"] == STATE["w"]
    assert record.owner.entries == STATE


async def test_plain_records_are_read_and_become_encrypted(place: Place) -> None:
    """With the first write of a holder that has a key, all of them."""
    await (await opened(place, 1, None)).write(0, STATE)
    record = await opened(place, 2, ONE)
    assert (await record.adopted()).entries == STATE
    assert keys_of(await place.raw("7")) == dict.fromkeys(STATE, "")
    await record.write(0, {"c": b"\x02"}, ["r/a/1"])
    assert keys_of(await place.raw("7")) == {"s": "k1", "c": "k1", "w": ""}
    expected = {name: data for name, data in STATE.items() if name != "r/a/1"} | {"c": b"\x02"}
    assert (await (await opened(place, 4, ONE)).adopted()).entries == expected


async def test_rotation(place: Place) -> None:
    """A key in front; records go over with their next write; then the old one may go."""
    await (await opened(place, 1, ONE)).write(0, STATE)
    await (await opened(place, 2, BOTH)).write(0, {"c": b"\x02"})
    assert set(keys_of(await place.raw("7")).values()) == {"k2", ""}
    assert (await (await opened(place, 3, TWO)).adopted()).entries == {**STATE, "c": b"\x02"}


async def test_a_key_that_is_missing_keeps_the_agent_down(place: Place) -> None:
    """Never empty, and nothing is written over it; with the key everything is there."""
    await (await opened(place, 1, ONE)).write(0, STATE)
    before = await place.raw("7")
    for epoch, keyring in ((2, TWO), (3, Keyring())):
        place.keyring = keyring
        record = (await place.host()).store.open("7", epoch, expect_state=True)
        with pytest.raises(RecordUnreadable, match="encrypted with key 'k1', which this host does not have"):
            await record.adopted()
        assert isinstance(record.lost, RecordUnreadable)
        with pytest.raises(RecordUnreadable):
            record.write(0, {"s": b"empty"})
    assert await place.raw("7") == before
    assert (await (await opened(place, 4, BOTH)).adopted()).entries == STATE


@pytest.mark.parametrize("garbage", [b"\xc1", b"\xc1\x11\x02k1" + bytes(40), b"\xc1\x01garbage", b"\xc1\x77"])
async def test_garbage_keeps_the_agent_down(place: Place, garbage: bytes) -> None:
    await (await opened(place, 1, None)).write(0, {"s": b"\x80", "c": garbage})
    with pytest.raises(RecordUnreadable, match="entry 'c' is "):
        await opened(place, 2, ONE)


async def test_entries_of_another_record_or_key_are_refused(place: Place) -> None:
    """Whoever can write to the store can take state away, not exchange it."""
    await (await opened(place, 1, ONE, "7")).write(0, {"s": b"of 7", "c": b"clock of 7"})
    raw = await place.raw("7")
    await (await opened(place, 1, None, "8")).write(0, raw)
    await (await opened(place, 2, None, "7")).write(0, {"s": raw["c"], "c": raw["s"]})
    for uid in ("7", "8"):
        with pytest.raises(RecordUnreadable, match="is not of this record"):
            await opened(place, 3, ONE, uid)


async def test_a_changed_key_file_counts_for_open_records(place: Place, tmp_path: Path) -> None:
    """Without a restart; one that cannot be used changes nothing."""
    path = tmp_path / "keys"
    path.write_text("k1 AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")
    inner = (await place.host()).store
    store = EncodedStore(inner, compress=True, keys=KeyFile(path))
    record = store.open("7", 1, expect_state=False)
    await record.adopted()
    await record.write(0, STATE)
    path.write_text("nonsense")
    store.read_keys()
    await record.write(0, {"c": b"\x02"})
    assert set(keys_of(await place.raw("7")).values()) == {"k1", ""}
    path.write_text(
        "k2 ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=\nk1 AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
    )
    store.read_keys()
    await record.write(0, {"c": b"\x03"})
    assert set(keys_of(await place.raw("7")).values()) == {"k2", ""}


async def test_a_record_goes_over_to_a_new_key_in_bounded_pieces(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a delta stays small."""
    monkeypatch.setattr(encoding, "REWRITE_BYTES", 250)
    entries = {f"k/{n}": bytes((n,)) * 100 for n in range(6)}
    await (await opened(place, 1, ONE)).write(0, entries)
    record = await opened(place, 2, BOTH)
    for over in (2, 4, 6, 6):
        await record.write(0, {"c": b"\x02"})
        assert list(keys_of(await place.raw("7")).values()).count("k2") == over + 1


async def test_large_entries_are_encoded_beside_the_loop_in_order(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows waits for them, and a successor reads them beside the loop too."""
    monkeypatch.setattr(encoding, "INLINE_BYTES", 1000)
    record = await opened(place, 1, ONE)
    ended: list[int] = []
    writes = []
    for number in range(20):
        size = 5000 if number % 3 == 0 else 10
        done = record.write(0, {"s": bytes((number,)) * size, f"k/{number}": b"x"}, [f"k/{number - 1}"])
        done.add_done_callback(lambda _, number=number: ended.append(number))
        writes.append(done)
    await asyncio.gather(*writes)
    await asyncio.sleep(0)
    assert ended == list(range(20))
    expected = {"s": b"\x13" * 10, "k/19": b"x"}
    assert record.owner.entries == expected == await place.stored("7")
    await record.write(0, {"t": b"y" * 5000})
    assert (await (await opened(place, 2, ONE)).adopted()).entries == {**expected, "t": b"y" * 5000}


async def test_fenced_while_a_large_entry_is_being_encoded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its future says so; nothing of it arrives."""
    monkeypatch.setattr(encoding, "INLINE_BYTES", 1000)
    record: Any = await opened(place, 1, ONE)
    await record.write(0, {"c": b"\x01"})
    go = threading.Event()
    encode = record._encoded
    monkeypatch.setattr(type(record), "_encoded", lambda _, entries: (go.wait(10), encode(entries))[1])
    large, small = record.write(0, {"s": b"x" * 5000}), record.write(0, {"c": b"\x02"})
    second = await opened(place, 2, ONE)
    go.set()
    for done in (large, small):
        with pytest.raises(RecordFenced):
            await done
    assert (await second.adopted()).entries == {"c": b"\x01"}


async def test_the_limit_counts_plain_bytes(place: Place) -> None:
    """However well they compress, and however much encryption adds to many small entries."""
    record = await opened(place, 1, ONE)
    with pytest.raises(ValueError, match=f"would take {MAX_RECORD + 1} bytes; the limit is {MAX_RECORD}"):
        record.write(0, {"s": bytes(MAX_RECORD + 1)})
    with pytest.raises(ValueError, match="the limit is"):
        record.write(0, {f"k/{n}": b"" for n in range(100_000)} | {"s": bytes(MAX_RECORD)})
    await record.write(0, {"s": b"x"})
    assert await place.stored("7") == {"s": b"x"}


async def test_a_record_that_is_closed_before_it_is_adopted_leaves_nothing_behind(place: Place) -> None:
    place.keyring = ONE
    host = await place.host()
    record = host.store.open("7", 1, expect_state=False)
    waiting: asyncio.Future[Adopted] = asyncio.ensure_future(record.adopted())
    await asyncio.sleep(0)
    host.store.close(record)
    with pytest.raises(asyncio.CancelledError):
        await waiting
