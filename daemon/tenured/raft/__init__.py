"""Consensus behind one interface: `Consensus`, the values it answers with, and what it needs of a transport.

Belongs here: the replicated log, elections, the write-ahead log and its disk. Does not: gRPC, the registry, any
meaning of a command. Layers, each knowing only those below it:

    consensus            the event loop, futures, the writer's thread
    engine               all rules in one object, sans I/O
    rejoin > elections > replication > commands     one concern each
    core                 the seam to PySyncObj; docs/adr/0006
    outbox, journal, snapshots, messages, records   values and queues
    wal, frames, writer  the log's files and its thread
    files                the directory, real or simulated
"""

from tenured.raft.consensus import Consensus
from tenured.raft.interface import (
    COMMAND_LIMIT,
    Applied,
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
    Role,
    StateMachine,
    Unknown,
)
from tenured.raft.wal import MANIFEST

__all__ = [
    "COMMAND_LIMIT",
    "MANIFEST",
    "Applied",
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
    "Role",
    "StateMachine",
    "Unknown",
]
