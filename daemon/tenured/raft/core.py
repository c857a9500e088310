"""The seam to PySyncObj 0.3.17: the one module that knows its private names.

PySyncObj is not used raw. It takes its clock, its randomness, its log, its snapshots and its transport from globals
of one module, and pickles what it sends and stores. Here a private copy of that module is loaded, so that nothing is
changed for anybody else, and its globals are replaced. What they made is handed in as values through the
configuration object: `createJournal(conf.journalFile)` returns the journal that was put there, and so on. Several
engines in one process share nothing but the clock of whoever runs, which each entry into an engine sets (`enter`).

Of the parent remain: its state, the skeleton of `_onTick` (election timer, fall-back without
a quorum), `__onBecomeLeader`, `transferLeadership` and `__tryLogCompaction`. Everything else is replaced:
`Core` names the parent's private attributes as we call them and sends its private hooks to methods that the rule
modules define.
"""

# ruff: noqa: N802  (hooks carry the parent's mangled names)

import importlib.util
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from operator import attrgetter
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from tenured.raft.interface import EngineUnsupported, RaftConfig, StateMachine
from tenured.raft.journal import Journal
from tenured.raft.messages import AnyMessage, RequestVote, TimeoutNow
from tenured.raft.outbox import Outbox
from tenured.raft.records import Entry
from tenured.raft.snapshots import Snapshots

SUPPORTED = "0.3.17"
NEVER = 1 << 60
"""More entries or seconds than there will be: switches a feature of the parent off."""


def _same(value: object, *_rest: object) -> object:
    return value


def _private_copy() -> Any:
    """pysyncobj.syncobj under our globals, beside the original."""
    spec = importlib.util.find_spec("pysyncobj.syncobj")
    if spec is None or spec.loader is None:
        raise EngineUnsupported("pysyncobj is not installed")
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    copy: Any = module
    copy.createJournal = copy.Serializer = copy.createPoller = _same
    copy.PIPE_NOTIFIER_ENABLED = False
    copy.pickle = SimpleNamespace()  # any use is an AttributeError: nothing is pickled or unpickled here
    copy.random = SimpleNamespace()
    return copy


pysyncobj: Any = _private_copy()


class State(IntEnum):
    """The parent's _RAFT_STATE."""

    FOLLOWER = 0
    CANDIDATE = 1
    LEADER = 2


class Peer(pysyncobj.Node):  # type: ignore[misc]
    """Another voter. Its hash is the same in every process: the order of sets decides the order of sending."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._hash = zlib.crc32(name.encode())
        parent: Any = pysyncobj.Node
        parent.__init__(self, name)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Peer) and self.name == other.name)


def check_version(installed: str = pysyncobj.VERSION) -> None:
    """Raise EngineUnsupported unless the rules here were written against the installed pysyncobj."""
    if installed != SUPPORTED:
        raise EngineUnsupported(
            f"pysyncobj {installed} is installed, but the Raft rules override private members of {SUPPORTED}: "
            f"install pysyncobj=={SUPPORTED}",
        )


T = TypeVar("T")


if TYPE_CHECKING:

    class Private(Generic[T]):
        """A private attribute of the parent under a name of ours."""

        def __init__(self, name: str) -> None: ...
        @overload
        def __get__(self, obj: None, owner: type) -> "Private[T]": ...
        @overload
        def __get__(self, obj: object, owner: type) -> T: ...
        def __get__(self, obj: object | None, owner: type) -> "Private[T] | T": ...
        def __set__(self, obj: object, value: T) -> None: ...

else:

    class Private(property, Generic[T]):
        """A property made of functions of C: it is read all the time."""

        def __init__(self, name: str) -> None:
            mangled = f"_SyncObj__{name}"
            super().__init__(attrgetter(mangled), lambda obj, value: setattr(obj, mangled, value))


class Wire(pysyncobj.Transport):  # type: ignore[misc]
    """The parent's transport: its two remaining messages become ours and go to the outbox."""

    def __init__(self, outbox: Outbox) -> None:
        pysyncobj.Transport.__init__(self, None, None, ())
        self._outbox = outbox

    def send(self, node: Peer, message: dict[str, Any]) -> bool:
        """Called by the parent for request_vote and timeout_now only."""
        self._outbox.message(node.name, _translate(message))
        return True


def _translate(message: dict[str, Any]) -> AnyMessage:
    if message["type"] == "request_vote":
        last = {"last_index": message["last_log_index"], "last_term": message["last_log_term"]}
        return RequestVote(term=message["term"], **last)
    return TimeoutNow(term=message["term"])


@dataclass(frozen=True, slots=True)
class Seams:
    """Everything that an engine takes from the world. `clock` in seconds; `birth()` stamps a new disk (ns, growing)."""

    machine: StateMachine
    journal: Journal
    snapshots: Snapshots
    outbox: Outbox
    clock: Callable[[], float]
    rng: random.Random
    birth: Callable[[], int]
    complete: Callable[[bytes], bytes] = lambda command: command
    """What a leader makes of a command when it gives it its place in the log; must not raise."""


def settings(config: RaftConfig) -> Any:
    """The parent's configuration. Reasons for the numbers: docs/adr/0006."""
    return pysyncobj.SyncObjConf(
        autoTick=False,
        appendEntriesUseBatch=True,
        appendEntriesPeriod=min(0.05, config.election_min_s / 4),
        raftMinTimeout=config.election_min_s,
        raftMaxTimeout=config.election_max_s,
        leaderFallbackTimeout=min(1.0, max(0.6, config.election_max_s)),
        connectionTimeout=60,
        commandsWaitLeader=False,
        appendEntriesBatchSizeBytes=NEVER,  # no start/process/finish parts (N7); replication.py has its own limit
        logCompactionMinEntries=NEVER,
        logCompactionMinTime=NEVER,
        useFork=False,
    )


class Core(pysyncobj.SyncObj):  # type: ignore[misc]
    """The parent with readable names, and its hooks as methods to be defined by the rules."""

    log: Private[Journal] = Private("raftLog")
    state: Private[State] = Private("raftState")
    current_term: Private[int] = Private("raftCurrentTerm")
    voted_for: Private[str | None] = Private("votedForNodeId")
    vote_count: Private[int] = Private("votesCount")
    leader: Private[Peer | None] = Private("raftLeader")
    commit_index: Private[int] = Private("raftCommitIndex")
    applied_index: Private[int] = Private("raftLastApplied")  # applied_index <= commit_index <= log.last.index
    leader_commit: Private[int | None] = Private("leaderCommitIndex")
    # Of every peer: match < next, and next is at most one beyond the log.
    next_index: Private[dict[Peer, int]] = Private("raftNextIndex")
    match_index: Private[dict[Peer, int]] = Private("raftMatchIndex")
    heard_from: Private[dict[Peer, float]] = Private("lastResponseTime")
    connected_peers: Private[set[Peer]] = Private("connectedNodes")
    election_deadline: Private[float] = Private("raftElectionDeadline")
    transferring: Private[bool] = Private("transferInProgress")
    next_heartbeat: Private[float] = Private("newAppendEntriesTime")
    snapshot_pending: Private[bool] = Private("needLoadDumpFile")

    def __init__(self, config: RaftConfig, seams: Seams, conf: Any) -> None:
        # Everything of ours is set before the parent's __init__: what comes later it takes for replicated state (N12).
        self.config, self.parameters = config, conf
        self.machine, self.snapshots, self.outbox = seams.machine, seams.snapshots, seams.outbox
        self.now, self.rng, self.birth = seams.clock, seams.rng, seams.birth
        self.complete = seams.complete
        self.voters = len(config.peers) + 1
        self.peers = {name: Peer(name) for name in sorted(config.peers)}
        self.heard_leader_at = float("-inf")  # when a leader of the current term last spoke
        conf.journalFile, conf.fullDumpFile, conf.pollerType = seams.journal, seams.snapshots, _NoPoller()
        self.prepare()
        self.enter()
        parent: Any = pysyncobj.SyncObj
        others = list(self.peers.values())
        parent.__init__(self, Peer(config.name), others, conf, nodeClass=Peer, transport=Wire(seams.outbox))
        self.begin()

    def prepare(self) -> None:
        """Set the attributes of the rules. Defined in engine.py."""
        raise NotImplementedError

    def begin(self) -> None:
        """Take up the state. Defined in engine.py."""
        raise NotImplementedError

    def enter(self) -> None:
        """Make the parent read our clock. First thing in every entry from outside."""
        pysyncobj.monotonicTime = self.now

    def __dir__(self) -> list[str]:
        """Empty: the parent lists its members to find replicated methods, and there are none."""
        return []

    # ---- small words for the rules -------------------------------------------------------------------------------

    def say(self, peer: Peer, message: AnyMessage) -> None:
        """Send when the barrier lets it."""
        self.outbox.message(peer.name, message)

    def say_to_all(self, message: AnyMessage) -> None:
        """The same to every other voter."""
        for name in self.peers:
            self.outbox.message(name, message)

    def set_term(self, term: int, vote: str | None) -> None:
        """Term and vote, in memory and in the log."""
        self.current_term, self.voted_for = term, vote
        self.log.setCurrentTerm(term, vote)

    def become(self, state: State) -> None:
        """Change the role."""
        self.state = state

    def step_down(self, term: int) -> None:
        """A higher term was seen (Raft, section 5.1)."""
        self.set_term(term, None)
        self.become(State.FOLLOWER)
        self.leader = None
        self.transferring = False

    def become_leader(self) -> None:
        """A majority voted for us."""
        self._SyncObj__onBecomeLeader()

    def majority(self, count: int) -> bool:
        """Whether `count` voters, this one among them, are a majority."""
        return count * 2 > self.voters

    def random_timeout(self) -> float:
        """An election timeout in seconds."""
        low, high = self.config.election_min_s, self.config.election_max_s
        return low + (high - low) * self.rng.random()

    # ---- the parent's hooks --------------------------------------------------------------------------------------

    def may_campaign(self) -> bool:
        """Asked when the election timer has run out. Defined in elections.py."""
        raise NotImplementedError

    def send_entries(self) -> None:
        """Append entries, or a heartbeat, to every connected peer. Defined in replication.py."""
        raise NotImplementedError

    def apply_committed(self) -> None:
        """Apply what is committed, within a turn's budget. Defined in commands.py."""
        raise NotImplementedError

    def take_commands(self) -> None:
        """Put queued commands into the log or on their way to the leader. Defined in commands.py."""
        raise NotImplementedError

    def forget_forwarded(self) -> None:
        """The leader changed: answers to what was sent to it will not come. Defined in commands.py."""
        raise NotImplementedError

    def compact(self) -> None:
        """Begin a snapshot when it is time. Defined in compaction.py."""
        raise NotImplementedError

    def _SyncObj__connectedToAnyone(self) -> bool:
        return (bool(self.connected_peers) or not self.peers) and self.may_campaign()

    def _SyncObj__sendAppendEntries(self) -> None:
        self.send_entries()

    def _SyncObj__applyLogEntries(self) -> bool:
        self.apply_committed()
        return False

    def _checkCommandsToApply(self) -> None:
        self.take_commands()

    def _SyncObj__onLeaderChanged(self) -> None:
        self.forget_forwarded()

    def _SyncObj__tryLogCompaction(self) -> None:
        self.compact()

    def _SyncObj__generateRaftTimeout(self) -> float:
        return self.random_timeout()

    def _SyncObj__getEntries(self, _index: int, _count: int) -> list[Entry]:
        # The parent's commit rule asks for one entry, and counts this server before its disk has it. It gets none and
        # commits nothing; ours is in replication.py (ADR 0013).
        return []

    def _SyncObj__onSetCodeVersion(self, _version: int) -> None:
        """There is one replicated method; its commands carry their own schema version."""

    def _SyncObj__onMessageReceived(self, _node: Peer, _message: object) -> None:
        raise NotImplementedError("messages are typed and go to Engine.received")


class _NoPoller:
    """There are no sockets to poll."""

    def poll(self, _timeout: float) -> None:
        """Called at the end of every tick."""
