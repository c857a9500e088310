"""The adapters of `tenure.storage`: the contract of all, and how each fails closed."""

import asyncio
import itertools
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tenure.storage import (
    FileStorage,
    MemoryStorage,
    SQLiteStorage,
    Storage,
    StorageBusy,
    StorageError,
    StorageUnreadable,
)
from tenure.testing import StorageContract


class TestMemory(StorageContract):
    durable = False

    async def make(self) -> Storage:
        return MemoryStorage()


class TestFile(StorageContract):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "kept"

    async def make(self) -> Storage:
        return FileStorage(self.path)


class TestSQLite(StorageContract):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "deep" / "kept.db"

    async def make(self) -> Storage:
        return SQLiteStorage(self.path)


MAKERS = [lambda path: FileStorage(path / "files"), lambda path: SQLiteStorage(path / "kept.db")]
each = pytest.mark.parametrize("make", MAKERS, ids=["file", "sqlite"])
Maker = Callable[[Path], FileStorage | SQLiteStorage]


@each
async def test_one_process_at_a_time(tmp_path: Path, make: Maker) -> None:
    """Two writers that do not know of each other would both believe their revisions."""
    async with make(tmp_path) as first:
        await first.put("a", b"1")
        with pytest.raises(StorageBusy, match="another process"):
            await make(tmp_path).get("a")
    async with make(tmp_path) as second:
        assert await second.get("a") is not None


@each
async def test_what_was_returned_survives_the_power_button(tmp_path: Path, make: Maker) -> None:
    """A process that is killed right after a write was answered."""
    name = type(make(tmp_path)).__name__
    place = {"FileStorage": "files", "SQLiteStorage": "kept.db"}[name]
    program = (
        "import asyncio, os, signal, sys, tenure.storage as s\n"
        f"kept = s.{name}(sys.argv[1])\n"
        "async def main():\n"
        "    await kept.put('a', b'state')\n"
        "    await kept.append('a', [b'one', b'two'])\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    ended = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(tmp_path / place))
    async with asyncio.timeout(60):
        assert await ended.wait() == -9
    async with make(tmp_path) as kept:
        assert (await kept.get("a")) is not None
        assert (await kept.load("a")).entries == (b"one", b"two")


@each
async def test_a_caller_that_gives_up_leaves_no_half_change(tmp_path: Path, make: Maker) -> None:
    """A thread cannot be stopped: what comes next waits for it, and sees all or nothing."""
    async with make(tmp_path) as kept:
        for number in range(20):
            task = asyncio.create_task(kept.put("a", b"%d" % number))
            for _ in range(number % 4):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            checkpoint = await kept.get("a")
            if checkpoint is not None:
                assert await kept.put("a", b"mine", expected=checkpoint.revision) == checkpoint.revision + 1


@each
async def test_a_place_that_cannot_be_is_told(tmp_path: Path, make: Maker) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((StorageError, OSError), match="file"):
        await make(tmp_path / "file" / "below").get("a")


# --- files ------------------------------------------------------------------------------------------------------------


def the_file(path: Path, kind: str) -> Path:
    (found,) = (path / "files" / kind).rglob("*.data")
    return found


async def damaged(path: Path, kind: str, change: Callable[[bytes], bytes]) -> FileStorage:
    """A storage in which somebody changed the one file of that kind."""
    async with FileStorage(path / "files") as kept:
        await kept.put("a", b"state")
        for entry in (b"one", b"two", b"three"):
            await kept.append("a", [entry])
    file = the_file(path, kind)
    file.write_bytes(change(file.read_bytes()))
    return FileStorage(path / "files")


async def test_every_flipped_bit_of_a_checkpoint_is_seen(tmp_path: Path) -> None:
    """An unreadable checkpoint never reads as none, and is never written over."""
    async with await damaged(tmp_path, "checkpoints", lambda content: content) as kept:
        file = the_file(tmp_path, "checkpoints")
        good = file.read_bytes()
        for at in range(len(good)):
            file.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            with pytest.raises(StorageUnreadable):
                await kept.get("a")
            with pytest.raises(StorageUnreadable):
                await kept.put("a", b"new")
        for size in range(len(good)):
            file.write_bytes(good[:size])
            with pytest.raises(StorageUnreadable):
                await kept.get("a")
        file.write_bytes(good)
        assert (await kept.get("a")) is not None


async def test_every_flipped_bit_of_a_journal_is_seen(tmp_path: Path) -> None:
    """Also one in a length, which must not pass for a torn end."""
    async with await damaged(tmp_path, "journals", lambda content: content) as kept:
        file = the_file(tmp_path, "journals")
        good = file.read_bytes()
        for at, bit in itertools.product(range(len(good)), (1, 0x80)):
            file.write_bytes(good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :])
            with pytest.raises(StorageUnreadable):
                await kept.load("a")


async def test_a_torn_end_of_a_journal_is_cut(tmp_path: Path) -> None:
    """A power cut in the middle of an append: nobody was told that it is there. Also when the file had grown before."""
    async with await damaged(tmp_path, "journals", lambda content: content) as kept:
        file = the_file(tmp_path, "journals")
        good = file.read_bytes()
        await kept.append("a", [b"four", b"five"])
        longer = file.read_bytes()
        for size in range(len(good), len(longer)):
            for tail in (b"", b"\0" * (len(longer) - size)) if size == len(good) else (b"",):
                file.write_bytes(longer[:size] + tail)
                assert (await kept.load("a")).entries == (b"one", b"two", b"three")
        assert await kept.append("a", [b"again"], expected=3) == 4
        assert (await kept.load("a", after=3)).entries == (b"again",)


async def test_a_checkpoint_that_was_being_written_is_not_the_checkpoint(tmp_path: Path) -> None:
    """A power cut between writing and renaming."""
    async with await damaged(tmp_path, "checkpoints", lambda content: content) as kept:
        the_file(tmp_path, "checkpoints").with_suffix(".new").write_bytes(b"half")
        assert (await kept.get("a")) is not None
        assert await kept.put("a", b"new", expected=1) == 2
        assert await kept.keys() == ["a"]


# --- SQLite -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"x" * 4096])
async def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "kept.db"
    path.write_bytes(content)
    with pytest.raises(StorageError):
        await SQLiteStorage(path).get("a")
    with pytest.raises(StorageError):
        await SQLiteStorage(path).put("a", b"new")
    assert path.read_bytes() == content


async def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "kept.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE theirs (x)")
    database.commit()
    database.close()
    with pytest.raises(StorageUnreadable, match="something else"):
        await SQLiteStorage(path).get("a")


async def test_a_journal_with_a_gap_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "kept.db"
    async with SQLiteStorage(path) as kept:
        await kept.append("a", [b"one", b"two", b"three"])
    database = sqlite3.connect(path)
    database.execute("DELETE FROM journal WHERE number = 2")
    database.commit()
    database.close()
    async with SQLiteStorage(path) as kept:
        with pytest.raises(StorageUnreadable, match="gaps"):
            await kept.load("a")
