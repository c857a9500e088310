"""What stores are given in the place of plain entries (ADR 0025), and the file of keys."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenured.core import turns
from tenured.storage.codec import MARK, OVERHEAD, RecordCodec, Unreadable
from tenured.storage.errors import StoreForeign
from tenured.storage.keys import KeyFile, Keyring, parse

K1, K2 = bytes(range(32)), bytes(range(32, 64))
PLAIN = Keyring()
ONE = Keyring("k1", {"k1": K1}, "/etc/keys")
BOTH = Keyring("k2", {"k2": K2, "k1": K1}, "/etc/keys")

values = st.one_of(
    st.binary(max_size=2000),
    st.binary(max_size=40).map(lambda data: data * 60),
    st.just(b"\xc1\x00abc"),
    st.just(b"\xc1"),
)


def codec(keyring: Keyring = PLAIN, uid: str = "7", *, compress: bool = True) -> RecordCodec:
    return RecordCodec(uid, keyring, compress=compress)


@given(st.text(max_size=20), values, st.sampled_from([PLAIN, ONE, BOTH]), st.booleans())
def test_what_is_encoded_comes_back(name: str, value: bytes, keyring: Keyring, compress: bool) -> None:
    """Any bytes, and they grow by the overhead at most."""
    stored = codec(keyring, compress=compress).encode(name, value)
    assert codec(keyring).decode(name, stored) == value
    assert len(stored) <= len(value) + OVERHEAD


@given(st.binary(max_size=80).map(lambda data: b"\xc1" + data))
def test_garbage_is_told(stored: bytes) -> None:
    """Never another value, and never another exception."""
    if stored[1:2] == b"\x00":
        assert codec(ONE).decode("s", stored) == stored[2:]
    else:
        with pytest.raises(Unreadable, match="entry 's' is "):
            codec(ONE).decode("s", stored)


@pytest.mark.parametrize("keyring", [PLAIN, ONE])
def test_every_damage_of_an_encrypted_entry_is_seen(keyring: Keyring) -> None:
    """Each bit of it; a compressed one without encryption is not protected against all of them."""
    stored = codec(ONE).encode("s", b"value " * 200)
    for at in range(1, len(stored)):
        damaged = stored[:at] + bytes((stored[at] ^ 1,)) + stored[at + 1 :]
        with pytest.raises(Unreadable):
            codec(keyring).decode("s", damaged)
        with pytest.raises(Unreadable):
            codec(keyring).decode("s", stored[:at])


def test_what_versions_before_wrote_stays_readable() -> None:
    """Format 0: msgpack as it is, of every kind that a record has; msgpack uses every first byte but one."""
    draft = turns.Draft(turns.Book(), 4.5)
    draft.state(msgspec.msgpack.encode({"n": 1}))
    draft.call(("a", 1), 1.0, b"x" * 999)
    record = draft.turn().puts
    for name, value in record.items():
        assert codec(ONE).decode(name, value) == value
        assert codec(compress=False).encode(name, value) == value
        assert codec(ONE).stale(name, value)
        assert not codec().stale(name, value)
    with pytest.raises(msgspec.DecodeError):
        msgspec.msgpack.decode(bytes((MARK,)) + b"\x00" * 8)


def test_small_and_incompressible_entries_are_kept_as_they_are() -> None:
    small, large = b"\x81" + b"a" * 500, b"\x81" + b"a" * 5000
    assert codec().encode("s", small) == small
    assert len(codec().encode("s", large)) < 100
    assert codec(compress=False).encode("s", large) == large
    assert len(codec(ONE).encode("s", large)) < 200


def test_when_the_agent_wants_to_wake_stays_clear() -> None:
    """Servers read it (additions 6), and it says nothing of the state."""
    wake_at = msgspec.msgpack.encode(17.5)
    assert codec(ONE).encode("w", wake_at) == wake_at == codec(ONE).decode("w", wake_at)
    assert not codec(ONE).stale("w", wake_at)


def test_entries_cannot_be_exchanged() -> None:
    """Neither between keys of a record nor between records, by whoever writes to the store."""
    stored = codec(ONE).encode("s", b"value")
    assert codec(ONE).decode("s", stored) == b"value"
    for other, name in ((codec(ONE), "c"), (codec(ONE, "8"), "s"), (codec(Keyring("k1", {"k1": K2})), "s")):
        with pytest.raises(
            Unreadable, match="is damaged, is not of this record, or was encrypted with another key 'k1'"
        ):
            other.decode(name, stored)


def test_equal_values_look_different() -> None:
    """No two entries share a nonce."""
    numbers = count()
    made = RecordCodec("7", ONE, compress=True, nonce=lambda size: next(numbers).to_bytes(size, "big"))
    assert made.encode("s", b"value") != made.encode("s", b"value")
    assert len({codec(ONE).encode("s", b"value") for _ in range(100)}) == 100


def test_a_key_that_is_missing_is_named_with_the_way_out() -> None:
    stored = codec(ONE).encode("s", b"value")
    with pytest.raises(Unreadable, match="key 'k1', which this host does not have: add it to /etc/keys again"):
        codec(Keyring("k2", {"k2": K2}, "/etc/keys")).decode("s", stored)
    with pytest.raises(Unreadable, match=r"start the host with the file that has it \(--keys\)"):
        codec().decode("s", stored)


def test_rotation() -> None:
    """The first key writes, all read; what is under another one is stale."""
    old, new = codec(ONE), codec(BOTH)
    stored = old.encode("s", b"value")
    assert new.decode("s", stored) == b"value"
    assert new.stale("s", stored)
    again = new.encode("s", b"value")
    assert not new.stale("s", again)
    assert codec(Keyring("k2", {"k2": K2})).decode("s", again) == b"value"
    off = codec(Keyring(None, {"k1": K1}))
    assert off.stale("s", stored)
    assert off.encode("s", b"value") == b"value" == off.decode("s", stored)


# --- the file ---------------------------------------------------------------------------------------------------------

FIRST = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
SECOND = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="


def test_a_key_file() -> None:
    found = parse(f"# of November\nk2 {SECOND}\n\nk1\t{FIRST}\n", "keys")
    assert found == Keyring("k2", {"k2": K2, "k1": K1}, "keys")
    assert parse(f"none\nk1 {FIRST}", "keys") == Keyring(None, {"k1": K1}, "keys")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "keys has no key. Make one"),
        ("# nothing", "keys has no key"),
        ("k1", "keys, line 1: expected ID and 32 bytes"),
        (f"k1 {FIRST} more", "keys, line 1: expected ID"),
        (f"a/b {FIRST}", "keys, line 1: expected ID"),
        (f"k1 {FIRST}\nnone", "keys, line 2: expected ID"),
        (f"\nk1 {FIRST[:-8]}", "keys, line 2: the key is not 32 bytes as base64"),
        ("k1 !!!!", "keys, line 1: the key is not 32 bytes"),
        (f"k1 {FIRST}\nk1 {SECOND}", "keys, line 2: there are two keys k1"),
    ],
)
def test_a_key_file_that_makes_no_sense_is_told_in_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(StoreForeign, match=sentence) as caught:
        parse(text, "keys")
    assert FIRST[:8] not in str(caught.value)


def test_keys_are_not_printed() -> None:
    assert repr(BOTH) == "Keyring(writes='k2', ids=['k2', 'k1'], source='/etc/keys')"


def test_a_key_file_is_read_again_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"k1 {FIRST}\n")
    keys = KeyFile(path)
    assert keys.read() == Keyring("k1", {"k1": K1}, str(path))
    assert keys.read() is None
    (tmp_path / "new").write_text(f"k2 {SECOND}\nk1 {FIRST}\n")
    (tmp_path / "new").replace(path)
    found = keys.read()
    assert found is not None
    assert (found.writes, list(found.keys)) == ("k2", ["k2", "k1"])
    path.unlink()
    with pytest.raises(StoreForeign, match="The keys cannot be read: "):
        keys.read()
