"""Snapshots and the log: when one is written, what is cut then, and how a follower takes the leader's.

The order of the steps is the rule: the log is cut only when the snapshot that covers the cut is on the disk under its
name, a segment is removed only when the record of the cut is. A crash between any two of them leaves more than is
needed, never less.
"""

import logging
from collections.abc import Iterator

from tenured.raft.commands import TURN_BUDGET_S, Commands
from tenured.raft.core import Peer
from tenured.raft.frames import Damaged
from tenured.raft.interface import Compaction, InvariantBroken, SnapshotStatus
from tenured.raft.messages import InstallSnapshot, SnapshotAck, SnapshotPart
from tenured.raft.records import Entry
from tenured.raft.snapfiles import Head, Kept, SnapshotFile

logger = logging.getLogger(__name__)

RETRY_MIN_S, RETRY_MAX_S = 1.0, 300.0
"""Between two attempts to write a snapshot that could not be written, doubling."""


class Compacting(Commands):
    """Rules K5, K7, N1, N2, N5, N6, N9, N11."""

    def prepare_compaction(self) -> None:
        """Set up before the parent's __init__."""
        self.limits: Compaction = self.config.compaction
        self.writing = False
        self.freeze_s = 0.0
        self.compact_now = False
        self.failures = 0
        self.failure = ""
        self.retry_at = float("-inf")
        self.restoration: tuple[Kept, Iterator[None]] | None = None

    # ---- own snapshots ---------------------------------------------------------------------------------------------

    def compact(self) -> None:
        """Once a tick: begin a snapshot when the log is long, unless one is written or the last attempt just failed."""
        if self.writing or self.restoration is not None or self.now() < self.retry_at:
            return
        if not (self.compact_now or self.log_is_long()):
            return
        self.compact_now = False
        previous, last = self.log.at(self.applied_index - 1), self.log.at(self.applied_index)
        if previous is not None and last is not None and last.index > self.covered:
            self.begin_snapshot(previous, last)

    def forceLogCompaction(self) -> None:  # noqa: N802  (the parent's name)
        """Begin a snapshot at the next tick."""
        self.compact_now = True

    @property
    def covered(self) -> int:
        """The last entry that a durable snapshot covers; 0 without one."""
        newest = self.snapshots.store.newest
        return 0 if newest is None else newest.at[0]

    def log_is_long(self) -> bool:
        """By entries since the last snapshot, or by bytes: those beyond the tail, and not less than a snapshot has."""
        limits, newest = self.limits, self.snapshots.store.newest
        size = 0 if newest is None else min(newest.size, 2 * limits.bytes)
        entries = self.applied_index - self.covered
        long = self.log.bytes - limits.keep_bytes >= max(limits.bytes, size)
        return entries >= limits.entries or (long and entries > 1)

    def begin_snapshot(self, previous: Entry, last: Entry) -> None:
        """Freeze the state now, on the loop; the rest is done beside it."""
        self.writing = True
        began = self.now()
        chunks = self.machine.snapshot()
        self.freeze_s = self.now() - began
        self.snapshots.store.write(previous, last, chunks, self.snapshot_ended)

    def snapshot_ended(self, error: Exception | None) -> None:
        """K7: only now, with the snapshot on the disk, the log is cut. One that failed leaves everything as it is."""
        self.enter()
        self.writing = False
        if error is None:
            self.failures, self.failure = 0, ""
            self.cut_below(self.covered)
            return
        self.failures += 1
        self.failure = str(error)
        wait = min(RETRY_MAX_S, RETRY_MIN_S * 2 ** (self.failures - 1))
        self.retry_at = self.now() + wait
        logger.error(
            "a snapshot could not be written (%s). Nothing is lost, the log goes on; next attempt in %g s", error, wait
        )

    def cut_below(self, index: int) -> None:
        """K7: never below the log, never all of it. N11: a tail stays, so that a slow follower needs no snapshot.

        Nor is cut, within bounds, what a follower needs that takes a snapshot now.
        """
        index = self.tail_before(index)
        sent = self.snapshots.oldest_sent()
        if sent is not None and index - sent < 4 * self.limits.entries and self.log.bytes < 2 * self.limits.bytes:
            index = min(index, sent)
        if self.log.first.index < index < self.log.last.index:
            self.log.deleteEntriesTo(index - self.log.first.index)
        self.log.release(self.snapshots.store.needed_from)

    def tail_before(self, index: int) -> int:
        """Where the log begins when the tail in front of `index` is kept, by entries and by bytes."""
        size, limits = 0, self.limits
        lowest = max(self.log.first.index, index - limits.keep_entries)
        while index > lowest and (entry := self.log.at(index - 1)) is not None:
            size += len(entry.command)
            if size > limits.keep_bytes:
                break
            index -= 1
        return index

    def snapshot_status(self) -> SnapshotStatus:
        """For status and metrics."""
        newest = self.snapshots.store.newest
        return SnapshotStatus(
            index=self.covered,
            size=0 if newest is None else newest.size,
            log_entries=len(self.log),
            log_bytes=self.log.bytes,
            writing=self.writing,
            freeze_s=self.freeze_s,
            failures=self.failures,
            failure=self.failure,
        )

    # ---- leader ----------------------------------------------------------------------------------------------------

    def send_part(self, peer: Peer) -> bool:
        """A piece of the newest snapshot. False: the peer must say something first, or there is nothing to send."""
        part = self.snapshots.next_part(peer.name, self.match_index[peer], self.now())
        if part is None:
            return False
        self.say(peer, InstallSnapshot(term=self.current_term, commit_index=self.commit_index, part=part))
        return bool(part.data)

    def on_snapshot_ack(self, peer: Peer, message: SnapshotAck) -> None:
        """K3: as every ack, it counts in its term and for its disk."""
        if not self.counts(peer, message.term, message.born):
            return
        self.heard_from[peer] = self.now()
        self.snapshots.acked(peer.name, message.at, message.crc, message.position, self.now())

    # ---- follower --------------------------------------------------------------------------------------------------

    def on_install_snapshot(self, peer: Peer, message: InstallSnapshot) -> None:
        """N1: a piece of a snapshot compares nothing, so it neither commits nor acknowledges an entry."""
        part = message.part
        if not self.follow(peer, message.term):
            return
        if not self.is_news(part.at[0]):  # N2: it would take back applied state, and entries that were acknowledged
            self.acknowledge(peer, part.at[0])
        elif self.restoration is not None or self.now() < self.retry_at:
            self.answer_part(part, part.size if self.restoration is not None else 0)
        else:
            written = self.snapshots.take(part, lambda: self.written(part), self.installed)
            self.answer_part(part, written)

    def is_news(self, index: int) -> bool:
        """N2: whether a snapshot up to `index` says more than is known to be committed here."""
        return index > self.commit_index

    def answer_part(self, part: SnapshotPart, position: int) -> None:
        """To whoever leads now: so much of it is written."""
        if self.leader is not None:
            ack = SnapshotAck(term=self.current_term, at=part.at, crc=part.crc, position=position, born=self.log.born)
            self.say(self.leader, ack)

    def written(self, part: SnapshotPart) -> None:
        """Another piece is written."""
        self.enter()
        self.answer_part(part, part.position + len(part.data))

    def installed(self, error: Exception | None) -> None:
        """N5: all of it is on the disk and its checksum is right; now its state is taken, piece by piece."""
        self.enter()
        self.snapshots.stop_receiving()
        if error is not None:
            logger.error("the leader's snapshot could not be kept: %s. It will be sent again", error)
            self.failures, self.failure = self.failures + 1, str(error)
            self.retry_at = self.now() + RETRY_MIN_S
            return
        self.failures, self.failure = 0, ""
        newest = self.snapshots.store.newest
        if newest is not None and self.is_news(newest.at[0]):
            self.restoration = newest, self.restoring(newest)

    def restoring(self, kept: Kept) -> Iterator[None]:
        """The state machine takes the state, and then the log begins with it."""
        file, restore = self.snapshots.store.open(kept), self.machine.restore()
        try:
            for chunk in SnapshotFile(file).chunks():
                restore.feed(chunk)
                yield
        except Damaged as damage:
            raise InvariantBroken(f"a snapshot that was just checked is damaged at offset {damage.at}") from damage
        finally:
            file.close()
        if self.is_news(kept.at[0]):
            restore.finish()
            self.take_over(kept.head)
            if self.leader is not None:
                self.acknowledge(self.leader, kept.at[0])

    def restore_some(self) -> None:
        """Once a tick, within a budget: nothing is applied meanwhile that the snapshot covers."""
        end = self.now() + TURN_BUDGET_S
        while self.restoration is not None:
            if next(self.restoration[1], self) is self:
                self.restoration = None
            elif self.now() > end:
                return

    def restore(self) -> None:
        """At the start: the machine has the newest snapshot's state already, if there is one."""
        newest = self.snapshots.store.newest
        if newest is not None:
            self.take_over(newest.head)
        elif self.log.first.index != 1:
            raise InvariantBroken(f"the log starts at {self.log.first.index} and there is no snapshot")

    def take_over(self, head: Head) -> None:
        """The state is that of a snapshot: let the log begin with it."""
        if not self.has_tail_of(head):
            self.log.replace([head.previous, head.last])
        self.applied_index = head.last.index
        self.commit_index = max(head.last.index, min(self.commit_index, self.log.last.index))
        self.log.setRaftCommitIndex(self.commit_index)
        self.forget_placed(head.last.index)

    def has_tail_of(self, head: Head) -> bool:
        """K5: entries after the snapshot are kept when the log agrees with it where they meet (N9: as entries)."""
        return (self.log.at(head.previous.index), self.log.at(head.last.index)) == (head.previous, head.last)

    # ---- defined in replication.py -----------------------------------------------------------------------------------

    def follow(self, peer: Peer, term: int) -> bool:
        """Accept `peer` as the leader of `term`."""
        raise NotImplementedError

    def acknowledge(self, peer: Peer, matched: int) -> None:
        """Everything up to `matched` is equal to the leader's log."""
        raise NotImplementedError

    def counts(self, peer: Peer, term: int, born: int) -> bool:
        """Whether an ack counts."""
        raise NotImplementedError
