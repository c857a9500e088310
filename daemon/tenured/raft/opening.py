"""What a server finds on its disk: the log, the snapshots, and whether they fit together. Blocking: run it in a thread.

The state is the newest snapshot and the log behind it. When that snapshot is damaged or gone, the one before it and the
log give the same state, because the log is kept that far back; or the log alone does. Nothing else is tried: a server
that may have lost what it acknowledged refuses to start (**LogCorrupt**), and comes back by the road of an empty disk.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tenured.raft.files import TEMPORARY, Files
from tenured.raft.frames import Damaged
from tenured.raft.interface import LogForeign, StateMachine
from tenured.raft.records import LogState
from tenured.raft.snapfiles import (
    DAMAGED,
    KEPT,
    Kept,
    SnapshotFile,
    crc_of,
    place_of,
    snapshot_name,
    verify,
)
from tenured.raft.wal import MANIFEST, Log, corrupt, open_log

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """The state of the log (entries from the snapshot's predecessor on), the log, and the snapshots, newest first."""

    state: LogState
    log: Log
    kept: list[Kept]


def open_storage(files: Files, name: str, new_id: Callable[[], int] | None = None) -> Found:
    """Open the directory of server `name`. Raises LogCorrupt, LogForeign and OSError."""
    state, log = open_log(files, name, new_id)
    try:
        for leftover in [n for n in files.names() if n.startswith("snapshot-") and n.endswith(TEMPORARY)]:
            files.remove(leftover)
        return Found(state, log, _fitting(files, state))
    except BaseException:
        log.close()
        raise


def restoring(files: Files, found: Found, machine: StateMachine) -> Iterator[None]:
    """Give the machine the state of the newest snapshot, piece by piece. Raises LogForeign, LogCorrupt, OSError."""
    if not found.kept:
        return
    name = snapshot_name(found.kept[0].at)
    file, restore = files.open(name), machine.restore()
    try:
        for chunk in SnapshotFile(file).chunks():
            restore.feed(chunk)
            yield
        restore.finish()
    except Damaged as damage:
        raise corrupt(files, name, damage.at, str(damage)) from damage
    except ValueError as error:
        raise LogForeign(f"{files.where(name)}: {error}; run the version that wrote it") from error
    finally:
        file.close()


def _fitting(files: Files, state: LogState) -> list[Kept]:
    """The snapshots to use, the newest checked to its last byte; and the log's entries cut to what belongs to it."""
    places = sorted((at for at in map(place_of, files.names()) if at is not None), reverse=True)
    damages: list[tuple[str, Damaged]] = []
    kept: list[Kept] = []
    for at in places:
        try:
            kept.append(_checked(files, at) if not kept else _glanced_at(files, at))
        except Damaged as damage:
            damages.append((snapshot_name(at), damage))
        if len(kept) == KEPT:
            break
    _must_fit(files, state, kept, damages)
    for name, found in damages:
        where = files.where(name)
        logger.error("%s is damaged at offset %d: %s. What is before it gives the same state", where, found.at, found)
        files.rename(name, name + DAMAGED)
    state.forget_below(min(state.first, kept[0].head.previous.index) if kept else 0)
    return kept


def _must_fit(files: Files, state: LogState, kept: list[Kept], damages: list[tuple[str, Damaged]]) -> None:
    """Whether the newest good snapshot and the log are all that this server ever had. Raises LogCorrupt.

    A log that ends within the snapshot adds nothing: that is so after a crash between the two steps of an
    installation, and nothing of a snapshot is acknowledged before both are done.
    """
    covered = kept[0].head.previous.index if kept else 1
    ends_within = bool(kept) and state.end - 1 <= kept[0].at[0]
    if state.oldest <= covered or ends_within:
        return
    if damages:
        name, damage = damages[0]
        raise corrupt(files, name, damage.at, f"{damage}, and the log no longer reaches back to what is before it")
    why = f"the log starts at entry {state.oldest}, and no snapshot reaches up to there"
    raise corrupt(files, MANIFEST, 0, why)


def _checked(files: Files, at: tuple[int, int]) -> Kept:
    """A snapshot whose every byte was read. Raises Damaged."""
    file = files.open(snapshot_name(at))
    try:
        for _ in verify(file):
            pass
        snapshot = SnapshotFile(file)
        if snapshot.at != at:
            raise Damaged(0, f"it is the snapshot of entry {snapshot.at[0]}")
        return Kept(at, *crc_of(file), snapshot.head)
    finally:
        file.close()


def _glanced_at(files: Files, at: tuple[int, int]) -> Kept:
    """The one before the newest: only its head is read now. Raises Damaged."""
    file = files.open(snapshot_name(at))
    try:
        return Kept(at, 0, 0, SnapshotFile(file).head)
    finally:
        file.close()
