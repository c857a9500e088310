"""Proof of death (protocol additions 1): an incarnation is dead when its exclusive lock can be had, and only then."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenured.host.locks import DeadLocks, OwnLock, new_incarnation

HOLD = """
import fcntl, os, signal
fcntl.flock(os.open({path!r}, os.O_RDONLY), fcntl.LOCK_SH)
print("held", flush=True)
signal.pause()
"""


@pytest.fixture
async def holder(spawn: Callable[..., Any], tmp_path: Path, eventually: Callable[..., Any]) -> Any:
    """holder(path): a process that holds the shared lock, as a worker does."""

    async def make(path: Path) -> Any:
        process = await spawn("-c", HOLD.format(path=str(path)), log_name=f"{path.name}.log")
        await eventually(lambda: "held" in process.log.read_text())
        return process

    return make


def test_incarnations_are_never_used_twice() -> None:
    """Random ids for each start."""
    assert len({new_incarnation() for _ in range(1000)}) == 1000


async def test_a_live_worker_is_no_proof(tmp_path: Path, holder: Any, eventually: Callable[..., Any]) -> None:
    """The daemon is dead but one of its workers lives: nothing may be claimed until it has ended."""
    path = tmp_path / "old.lock"
    path.touch()
    worker = await holder(path)
    locks = DeadLocks(tmp_path, "new")
    assert not locks.poll()
    assert (locks.dead, locks.waiting) == ((), ("old",))
    worker.kill()
    await worker.wait()
    await eventually(locks.poll, 2)
    assert (locks.dead, locks.waiting) == (("old",), ())


async def test_a_frozen_worker_is_no_proof(tmp_path: Path, holder: Any) -> None:
    """A stopped process keeps its lock: it may go on any moment."""
    path = tmp_path / "old.lock"
    path.touch()
    worker = await holder(path)
    worker.send_signal(signal.SIGSTOP)
    assert not DeadLocks(tmp_path, "new").poll()


def test_own_lock_is_not_taken_for_a_dead_one(tmp_path: Path) -> None:
    """Nor is it removed."""
    own = OwnLock(tmp_path, "mine")
    locks = DeadLocks(tmp_path, "mine")
    assert locks.poll()
    assert locks.dead == ()
    assert own.path.exists()


def test_the_lock_of_a_running_daemon_cannot_be_taken(tmp_path: Path) -> None:
    """Two daemons on one directory: the second claims nothing."""
    own = OwnLock(tmp_path, "first")
    locks = DeadLocks(tmp_path, "second")
    assert not locks.poll()
    assert locks.dead == ()
    assert own.path.exists()


def test_the_files_of_the_dead_go_once_their_end_is_committed(tmp_path: Path) -> None:
    """Then, and not before: a crash in between must be able to prove it again."""
    path = tmp_path / "old.lock"
    path.touch()
    locks = DeadLocks(tmp_path, "new")
    locks.poll()
    assert path.exists()
    locks.forget(locks.dead)
    assert not path.exists()
    assert locks.dead == ()


def test_an_unreadable_lock_is_no_proof(tmp_path: Path) -> None:
    """What cannot be locked is not claimed."""
    (tmp_path / "old.lock").mkdir()
    locks = DeadLocks(tmp_path, "new")
    assert not locks.poll()
    assert locks.dead == ()
