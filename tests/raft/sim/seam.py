"""What the simulation needs of an engine: any consensus core behind this can be run, by seeds and on the stage.

`World(seed, make)` and `Stage(make)` call `make(config, seams, parameters)` for each life of a server. `seams` are
all that an engine may take from the world: its state machine, log, snapshots, outbox, clock, dice. `parameters` is
opaque to the simulation but for its author (today: PySyncObj's configuration, `World.parameters`). The duties of
whoever drives an engine stand at the top of `tenured/raft/engine.py`. Messages are those of `tenured.raft.messages`:
the checker reads votes as they leave. Mutants name rules of one engine, and change with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from tenured.raft.core import Peer, Seams, State
from tenured.raft.interface import Answer, RaftConfig, Role
from tenured.raft.journal import Journal


class EngineUnderTest(Protocol):
    """Read by the checker after every event, and driven by the host. Nothing else of an engine is touched."""

    log: Journal
    state: State
    current_term: int
    commit_index: int
    applied_index: int
    leader: Peer | None
    match_index: Mapping[Peer, int]
    born_of: Mapping[str, int]
    batch_bytes: int
    patient: bool

    @property
    def behind(self) -> bool: ...
    @property
    def tells_later(self) -> bool: ...

    def role(self) -> Role: ...
    def tick(self) -> None: ...
    def end_turn(self) -> None: ...
    def tell_commit(self) -> None: ...
    def synced(self, sequence: int) -> None: ...
    def received(self, peer_name: str, frame: bytes) -> None: ...
    def connected(self, peer_name: str) -> None: ...
    def disconnected(self, peer_name: str) -> None: ...
    def propose(self, command: bytes, answer: Answer) -> None: ...
    def hand_over(self) -> None: ...
    def forceLogCompaction(self) -> None: ...  # noqa: N802  (the engine's parent names it)


MakeEngine = Callable[[RaftConfig, Seams, Any], EngineUnderTest]

NAMES = frozenset(name for name in {*EngineUnderTest.__annotations__, *vars(EngineUnderTest)} if name[0] != "_")


class OnlyTheSeam:
    """An engine of which nothing can be seen but `EngineUnderTest`."""

    def __init__(self, engine: EngineUnderTest) -> None:
        object.__setattr__(self, "_engine", engine)

    def __getattr__(self, name: str) -> Any:
        if name not in NAMES:
            raise AttributeError(f"the simulation looks at {name}, which is not in its seam")
        return getattr(object.__getattribute__(self, "_engine"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in NAMES:
            raise AttributeError(f"the simulation sets {name}, which is not in its seam")
        setattr(object.__getattribute__(self, "_engine"), name, value)
