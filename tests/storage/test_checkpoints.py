"""When the log of the state store is copied into the database, which costs syncs while writes wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tenured.core.cells import Cell, Version
from tenured.storage import database as module
from tenured.storage.database import Database

PAGES, MOST = 40, 160
PAGE = 4096


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a store whose log is small."""
    monkeypatch.setattr(module, "CHECKPOINT_PAGES", PAGES)
    monkeypatch.setattr(module, "CHECKPOINT_PAGES_MAX", MOST)
    return tmp_path / "state.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    """The open file."""
    opened = Database(path)
    yield opened
    opened.close()


def write(database: Database, seq: int, size: int = 100) -> None:
    """One synced write of one of 50 records."""
    uid = str(seq % 50)
    with database.transaction():
        database.put_cell(uid, Cell(1, Version(1, seq)))
        database.put_entries(uid, {"s": b"x" * size, "m": b"mark"}, (), whole=False)


def copied(database: Database, path: Path, *, idle: bool = True) -> bool:
    """Whether this moment was used."""
    before = path.read_bytes()
    database.tidy(idle=idle)
    return path.read_bytes() != before


def log_size(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size


def test_an_idle_moment_costs_nothing_soon_after_another(database: Database, path: Path) -> None:
    """The file of the log does not shrink when it is begun anew: its size says nothing of what is in it."""
    for seq in range(1, 200):
        write(database, seq)
    assert copied(database, path)
    assert log_size(path) > PAGES * PAGE
    for seq in range(200, 205):
        write(database, seq)
        assert not copied(database, path)


@pytest.mark.parametrize("size", [100, 3 * PAGE, 40 * PAGE])
def test_the_log_is_bounded(database: Database, path: Path, size: int) -> None:
    """With idle moments and without; large values count by their size."""
    times = 0
    for seq in range(1, 200):
        write(database, seq, size)
        times += copied(database, path, idle=False)
    assert times >= 2
    assert log_size(path) <= 2 * MOST * PAGE
    for seq in range(200, 400):
        write(database, seq, size)
        times += copied(database, path)
    assert times >= 6
    assert log_size(path) <= 2 * MOST * PAGE
