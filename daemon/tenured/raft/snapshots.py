"""Snapshots on their way between servers: pieces with length and checksum of the whole, and acks for them.

Pieces are sent as far as a window reaches beyond what the follower has written, and from there again after a silence,
a reconnect or a restart of the follower: every ack names the position that it has got to. Nothing of a snapshot is
believed before the whole is on the follower's disk and its checksum right (N5).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from tenured.raft.files import ReadFile
from tenured.raft.messages import SnapshotPart
from tenured.raft.snapfiles import Done, Kept, SnapshotStore

logger = logging.getLogger(__name__)

PART_BYTES = 1 << 16
WINDOW_BYTES = 1 << 20
"""Sent to one peer and not written there yet."""
RESEND_S = 1.0
"""Silence after which pieces are sent again."""
SIZE_LIMIT = 1 << 32


@dataclass(slots=True)
class _Sending:
    kept: Kept
    file: ReadFile
    acked: int = 0
    sent: int = 0
    heard_at: float = 0.0


@dataclass(slots=True)
class _Receiving:
    part: SnapshotPart  # its first one: names the snapshot
    taken: int = 0  # handed to the disk
    written: int = 0


class Snapshots:
    """Sending to each peer, receiving one."""

    def __init__(self, store: SnapshotStore, part_bytes: int = PART_BYTES) -> None:
        self.store = store
        self._part_bytes = part_bytes
        self._sending: dict[str, _Sending] = {}
        self._receiving: _Receiving | None = None

    # ---- leader ----------------------------------------------------------------------------------------------------

    def next_part(self, peer: str, matched: int, now: float) -> SnapshotPart | None:
        """The next piece for `peer`, an empty one when the window is full; None when there is no snapshot (N6).

        `matched`: the peer has the log up to there. A snapshot that says no more is followed by the newest.
        """
        sending = self._sending.get(peer)
        if sending is not None and sending.kept.at[0] <= matched:
            self.stop_sending(peer)
            sending = None
        sending = sending or self._open(peer, now)
        if sending is None:
            return None
        if now - sending.heard_at > RESEND_S:
            sending.sent, sending.heard_at = sending.acked, now
        kept = sending.kept
        room = sending.sent - sending.acked < WINDOW_BYTES
        data = sending.file.read(sending.sent, self._part_bytes) if room else b""
        part = SnapshotPart(kept.at, kept.size, kept.crc, sending.sent, data)
        sending.sent += len(data)
        return part

    def oldest_sent(self) -> int | None:
        """The log from there on will be asked for soon."""
        return min((sending.kept.at[0] for sending in self._sending.values()), default=None)

    def has_room(self, peer: str) -> bool:
        """Whether a piece for `peer` can be sent now."""
        sending = self._sending.get(peer)
        if sending is None:
            return self.store.newest is not None
        return sending.sent < sending.kept.size and sending.sent - sending.acked < WINDOW_BYTES

    def acked(self, peer: str, at: tuple[int, int], crc: int, position: int, now: float) -> None:
        """`peer` has written so much of that snapshot."""
        sending = self._sending.get(peer)
        if sending is None or (sending.kept.at, sending.kept.crc) != (at, crc):
            return
        if position != sending.acked:
            sending.heard_at = now
        if position < sending.acked:  # it began anew: its process or its disk is another one
            sending.sent = position
        sending.acked, sending.sent = position, max(position, sending.sent)

    def stop_sending(self, peer: str) -> None:
        """The stream to `peer` is gone, or it needs no snapshot."""
        sending = self._sending.pop(peer, None)
        if sending is not None:
            sending.file.close()

    def stop_sending_all(self) -> None:
        """This server does not lead."""
        for peer in list(self._sending):
            self.stop_sending(peer)

    def _open(self, peer: str, now: float) -> _Sending | None:
        kept = self.store.newest
        if kept is None:
            return None
        sending = self._sending[peer] = _Sending(kept, self.store.open(kept), heard_at=now)
        return sending

    # ---- follower --------------------------------------------------------------------------------------------------

    def take(self, part: SnapshotPart, written: Callable[[], None], whole: Done) -> int:
        """Hand a piece to the disk, if it is the next one; returns how much of that snapshot is written.

        `written` is called when that has grown, `whole` when all of it is on the disk, or with what went wrong.
        """
        receiving = self._receiving
        if receiving is None or not _same(receiving.part, part):
            if part.position or part.size > SIZE_LIMIT:
                return 0
            receiving = self._receiving = _Receiving(part)
            self.store.begin()
        if part.position == receiving.taken and part.data:
            receiving.taken += len(part.data)
            self.store.receive(part.data, self._after(receiving, receiving.taken, written, whole))
        return receiving.written

    def stop_receiving(self) -> None:
        """Forget what came."""
        self._receiving = None

    def _after(
        self,
        receiving: _Receiving,
        position: int,
        written: Callable[[], None],
        whole: Callable[[Exception | None], None],
    ) -> Callable[[Exception | None], None]:
        def after(error: Exception | None) -> None:
            if self._receiving is not receiving:
                return
            if error is not None:
                whole(error)
                return
            receiving.written = position
            written()
            if position == receiving.part.size:
                self.store.install(receiving.part.size, receiving.part.crc, whole)

        return after


def _same(one: SnapshotPart, other: SnapshotPart) -> bool:
    return (one.at, one.size, one.crc) == (other.at, other.size, other.crc)
