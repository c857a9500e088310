"""Consensus behind one interface: `Consensus`, the values it answers with, and what it needs of a transport.

Belongs here: the replicated log, elections, the write-ahead log and its disk. Does not: gRPC, the registry, any
meaning of a command. Layers, each knowing only those below it:

    consensus            the event loop, the writer's thread; answers: the futures of callers; threads: who writes
    engine               all rules in one object, sans I/O
    rejoin > elections > replication > compaction > commands     one concern each
    core                 the seam to PySyncObj; docs/adr/0006
    outbox, journal, snapshots, messages, records   values and queues
    opening              what is found on the disk at a start
    wal, writer          the log's files and their thread
    snapfiles, worker    the snapshots' files and their thread
    frames               how both are checked
    files                the directory, real or simulated
"""

from tenured.raft.consensus import Consensus
from tenured.raft.interface import (
    COMMAND_LIMIT,
    Applied,
    Compaction,
    EngineUnsupported,
    InvariantBroken,
    LogCorrupt,
    LogForeign,
    NotApplied,
    Outcome,
    PeerLink,
    PeerStatus,
    RaftConfig,
    RaftError,
    Restore,
    Role,
    SnapshotStatus,
    StateMachine,
    Unknown,
)
from tenured.raft.wal import MANIFEST

__all__ = [
    "COMMAND_LIMIT",
    "MANIFEST",
    "Applied",
    "Compaction",
    "Consensus",
    "EngineUnsupported",
    "InvariantBroken",
    "LogCorrupt",
    "LogForeign",
    "NotApplied",
    "Outcome",
    "PeerLink",
    "PeerStatus",
    "RaftConfig",
    "RaftError",
    "Restore",
    "Role",
    "SnapshotStatus",
    "StateMachine",
    "Unknown",
]
