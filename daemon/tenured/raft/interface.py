"""What the rest of the daemon sees of consensus: values, protocols, configuration and errors. No behaviour.

RaftError                 base of everything raised here
├── EngineUnsupported     another pysyncobj than the one our rules were written against
├── LogCorrupt            the log on disk is damaged before its tail: refuse to start
├── LogForeign            the log belongs to another server, another format, or another process holds it
└── InvariantBroken       a rule of Raft does not hold on this server: stop the process, repair nothing
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

COMMAND_LIMIT = 1 << 20
"""Largest command in bytes. Payloads never enter the log; a command is rows of the registry."""

MAX_SERVERS = 7


class RaftError(Exception):
    """Base of the errors that this package raises."""


class EngineUnsupported(RaftError):
    """The installed pysyncobj is not the pinned one; its private members may have moved."""


class LogCorrupt(RaftError):
    """Synced records of the log are damaged. The message names the file, the offset and the next step."""


class LogForeign(RaftError):
    """The log is not this server's, or is in a format that this version does not read, or is in use."""


class InvariantBroken(RaftError):
    """A rule of Raft does not hold here. Going on would spread the damage: the process must stop."""


class StateMachine(Protocol):
    """The replicated state. Called on the event loop, entry after entry, the same on every server."""

    def apply(self, index: int, command: bytes) -> bytes:
        """Apply the committed command at `index`. Deterministic, and must not raise: a refusal is a result."""
        ...

    def snapshot(self) -> Iterator[bytes]:
        """The state as it is now, frozen: entries that are applied later do not show in it. At most some milliseconds.

        The chunks are asked for in another thread; each should take a few milliseconds at most.
        """
        ...

    def restore(self) -> "Restore":
        """Begin to take a state that `snapshot` gave on any server. The present one stays until `finish`."""
        ...


class Restore(Protocol):
    """A state in the making."""

    def feed(self, chunk: bytes) -> None:
        """The next chunk, in order. Raises ValueError when this version cannot read it."""
        ...

    def finish(self) -> None:
        """All chunks were fed: this is the state from now on."""
        ...


class PeerLink(Protocol):
    """What the engine needs of a transport: per peer a FIFO stream, at most once, emptied on reconnect."""

    def send(self, peer: str, frame: bytes) -> bool:
        """Queue a frame for `peer`. False: not connected, and this frame will never arrive."""
        ...


@dataclass(frozen=True, slots=True)
class Applied:
    """Committed at `index` and applied on the answering server; `result` is what the state machine returned."""

    index: int
    result: bytes


@dataclass(frozen=True, slots=True)
class NotApplied:
    """The command was not applied and never will be. It may be repeated."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The command may have been applied, or may be later. Repeat it only with an idempotency id."""

    reason: str


Outcome = Applied | NotApplied | Unknown


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """What this server knows of another voter. `lag` in entries, known to the leader only, else None."""

    connected: bool
    lag: int | None


@dataclass(frozen=True, slots=True)
class Role:
    """A server's view of the cluster now. A hint, never a permission: only a committed entry decides.

    `ready`: it votes, knows a leader and has applied what that leader had committed. `lag`: entries known to be
    committed and not yet applied here. `voter` is False while an empty disk has neither founded nor rejoined.
    """

    name: str
    term: int
    leader: str | None
    is_leader: bool
    ready: bool
    commit_index: int
    applied_index: int
    lag: int
    voter: bool
    peers: Mapping[str, PeerStatus] = field(default_factory=dict[str, PeerStatus])


@dataclass(frozen=True, slots=True)
class SnapshotStatus:
    """How the log is kept short. `failure` is empty unless the last attempt failed; `failures` count since then."""

    index: int
    """The last entry that the newest snapshot covers; 0 without one."""
    size: int
    """Bytes of its file."""
    log_entries: int
    log_bytes: int
    writing: bool
    freeze_s: float
    """How long the loop stood still for the last one that was begun."""
    failures: int
    failure: str


@dataclass(frozen=True, slots=True)
class Compaction:
    """When a snapshot is written, and how much of the log stays in memory in front of it for slow followers.

    Reasons for the numbers: docs/adr/0012.
    """

    entries: int = 50_000
    bytes: int = 32 << 20
    keep_entries: int = 10_000
    keep_bytes: int = 8 << 20


@dataclass(frozen=True, slots=True)
class RaftConfig:
    """`peers` are the names of the other voters; `directory` holds the log. Times in seconds.

    `tick_s` is how often the engine looks at its clock when nothing happens: elections and heartbeats are late by up
    to that much. Raises ValueError when the parts do not fit together.
    """

    name: str
    peers: tuple[str, ...]
    directory: Path
    election_min_s: float
    election_max_s: float
    tick_s: float = 0.02
    compaction: Compaction = Compaction()

    def __post_init__(self) -> None:
        names = (self.name, *self.peers)
        if len(set(names)) != len(names):
            raise ValueError(f"server names must differ: {', '.join(names)}")
        if len(names) > MAX_SERVERS:
            raise ValueError(f"at most {MAX_SERVERS} servers vote, got {len(names)}")
        if not 0 < self.election_min_s < self.election_max_s:
            raise ValueError(f"election timeouts must grow: {self.election_min_s} s to {self.election_max_s} s")
        if not 0 < self.tick_s <= self.election_min_s / 4:
            raise ValueError(f"tick_s must be at most a quarter of election_min_s, got {self.tick_s} s")


Answer = Callable[[Outcome], None]
