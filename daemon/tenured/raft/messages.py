"""What servers say to each other: typed msgpack, checked when it is decoded. Nothing from the network is unpickled.

A frame is a list of messages: all that one loop turn had for one peer. The decoder accepts exactly these shapes; what a
type cannot say (entries without a gap, a known kind of command) `decode_frame` checks too. Every message carries the
sender's term (K3: an ack of an earlier reign must be known as such).
"""

from itertools import pairwise
from typing import Annotated, Literal

import msgspec

from tenured.raft.records import Entry

Index = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
Term = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
Stamp = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]

REGULAR = 0
"""First byte of a command that goes to the state machine."""
NO_OP = 1
"""First byte of an entry that only marks a place: a leader's first entry, a barrier."""

FRAME_LIMIT = 8 << 20
"""Longest frame that is decoded, in bytes. The engine sends far shorter ones."""


class BadFrame(ValueError):
    """A peer sent bytes that are no list of messages."""


class Message(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Base: `term` is the sender's current term, or the term the message is about."""

    term: Term


class AppendEntries(Message, frozen=True, array_like=True, tag=1, kw_only=True):
    """Leader to follower, also as heartbeat. `previous` is None when the leader's log starts later.

    `quiet`: nothing but a commit index is news. Who agrees need not say so (ADR 0013).
    """

    commit_index: Index
    previous: tuple[Index, Term] | None
    entries: list[Entry]
    quiet: bool = False


class SnapshotPart(msgspec.Struct, frozen=True, array_like=True):
    """A piece of a snapshot at (index, term), with length and checksum of the whole (N5)."""

    at: tuple[Index, Term]
    size: Index
    crc: Index
    position: Index
    data: bytes


class InstallSnapshot(Message, frozen=True, array_like=True, tag=2, kw_only=True):
    """Leader to a follower whose next entry is no longer in the leader's log."""

    commit_index: Index
    part: SnapshotPart


class Ack(Message, frozen=True, array_like=True, tag=3, kw_only=True):
    """Follower to leader. Success: everything below `next_index` was proved equal to the leader's log. Else: try there.

    `born` is the birth stamp of the follower's disk.
    """

    next_index: Index
    success: bool
    born: Stamp


class RequestVote(Message, frozen=True, array_like=True, tag=4, kw_only=True):
    """Candidate to voters."""

    last_index: Index
    last_term: Term


class Vote(Message, frozen=True, array_like=True, tag=5, kw_only=True):
    """A vote for the receiver in `term`."""


class RequestPreVote(Message, frozen=True, array_like=True, tag=6, kw_only=True):
    """Would you vote for me in `term`? Promises nothing, changes nothing (K10)."""

    last_index: Index
    last_term: Term


class PreVote(Message, frozen=True, array_like=True, tag=7, kw_only=True):
    """Yes, in `term`, as things stand."""


class Hint(Message, frozen=True, array_like=True, tag=8, kw_only=True):
    """Your term is over, mine is `term`: what a stale leader never learned (K10)."""


class TimeoutNow(Message, frozen=True, array_like=True, tag=9, kw_only=True):
    """Leader to a follower that has everything: stand for election at once."""


class Rejoin(Message, frozen=True, array_like=True, tag=10, kw_only=True):
    """From a disk without a vote to all others. `nonce` binds the answers to this life of the process."""

    nonce: Stamp
    born: Stamp


class RejoinReply(Message, frozen=True, array_like=True, tag=11, kw_only=True):
    """`last_index`: end of the log. `leads`: leads `term`. `born`: newest stamp known of the asker's disks, or 0."""

    nonce: Stamp
    last_index: Index
    leads: bool
    born: Stamp
    standing: Literal["member", "virgin", "empty"]


class Forward(Message, frozen=True, array_like=True, tag=12, kw_only=True):
    """A command on its way to the leader."""

    request_id: Stamp
    command: bytes


class ForwardReply(Message, frozen=True, array_like=True, tag=13, kw_only=True):
    """Where the command stands in the leader's log, or why it is not there (then it never will be)."""

    request_id: Stamp
    placed: tuple[Index, Term] | None
    refusal: str


class SnapshotAck(Message, frozen=True, array_like=True, tag=14, kw_only=True):
    """Follower to leader: `position` bytes of the snapshot at (index, term) with that checksum are written here."""

    at: tuple[Index, Term]
    crc: Index
    position: Index
    born: Stamp


AnyMessage = (
    AppendEntries
    | InstallSnapshot
    | Ack
    | RequestVote
    | Vote
    | RequestPreVote
    | PreVote
    | Hint
    | TimeoutNow
    | Rejoin
    | RejoinReply
    | Forward
    | ForwardReply
    | SnapshotAck
)

encode_frame = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(list[AnyMessage])


def decode_frame(frame: bytes) -> list[AnyMessage]:
    """The messages of a frame. Raises BadFrame, and nothing else, on anything that is not a frame."""
    if len(frame) > FRAME_LIMIT:
        raise BadFrame(f"{len(frame)} bytes, at most {FRAME_LIMIT}")
    try:
        messages = _decoder.decode(frame)
    except msgspec.DecodeError as error:
        raise BadFrame(str(error)) from error
    for message in messages:
        _check(message)
    return messages


def _check(message: AnyMessage) -> None:
    match message:
        case AppendEntries(entries=entries, previous=previous):
            if entries and previous is None:
                raise BadFrame("entries without their predecessor")
            before = Entry(b"", *previous) if previous is not None else None
            chain = entries if before is None else [before, *entries]
            if any(b.index != a.index + 1 or not a.term <= b.term <= message.term for a, b in pairwise(chain)):
                raise BadFrame("entries do not follow each other")
            for entry in entries:
                _check_command(entry.command)
        case InstallSnapshot(part=part):
            if part.position + len(part.data) > part.size:
                raise BadFrame("a piece beyond the end of its snapshot")
        case Forward(command=command):
            _check_command(command)
        case Ack(next_index=0):
            raise BadFrame("an ack below the first entry")
        case _:
            pass


def _check_command(command: bytes) -> None:
    if command[:1] not in (b"\x00", b"\x01"):
        raise BadFrame("a command of an unknown kind")
