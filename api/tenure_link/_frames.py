"""The frames, each way, and how they are decoded."""

from __future__ import annotations

from typing import Literal

import msgspec

from tenure_link._values import AgentClass, Due, Entry, Fault, Outgoing, Signal, Wait


class Frame(msgspec.Struct, frozen=True, tag_field="t", omit_defaults=True):
    """Base of all frames; the tag is the class name."""


# --- from the process to the daemon ---------------------------------------------------------------------------


class Hello(Frame, frozen=True):
    """First frame of a connection."""

    link_version: int
    kind: Literal["supervisor", "worker"]
    pid: int
    sdk_version: str
    python_version: str
    classes: tuple[AgentClass, ...] = ()
    fault: Fault | None = None
    """From the supervisor: the pool's modules cannot be imported; no worker will come until they can."""


class Workers(Frame, frozen=True):
    """From the supervisor, at every change: which worker processes live, and how the last one ended."""

    pids: tuple[int, ...]
    ended: int = 0
    """PID that ended, 0: none."""
    status: str = ""
    """How: `exit status 3`, `signal SIGKILL`, `lease lapsed`."""
    fault: Fault | None = None
    """The modules cannot be imported (again)."""
    no_fault: bool = False
    """Of the one that ended: PID 1 killed it for reasons of its own (the lease passed, the modules are imported anew,
    fewer are wanted); nothing that ran there is to blame.
    """
    begun: tuple[int, ...] | None = None
    """Of the one that ended: the turns and activations that had begun there, and not ended; None: nobody knows. What
    was sent there, and is not among them, did not run.
    """


class Terminating(Frame, frozen=True):
    """From the supervisor: the container was told to stop. Drain, then send `Stop`; I work on until then."""


class Activated(Frame, frozen=True):
    """The agent is in memory with a valid state: it may be called."""

    uid: str
    epoch: int
    state: bytes | None = None
    """What the daemon commits before the agent is Ready, msgpack: the first state, when `Activate.state` was None, or
    what the class's `on_start` has made of the stored one; None: that is as it was.
    """
    due: tuple[Due, ...] = ()
    """What the state plans."""
    sends: tuple[Outgoing, ...] = ()
    """What `on_start` asked for; leaves with the commit of `state`."""
    stop: str | None = None
    """`on_start` asks that the agent be ended with that commit: why."""


class ActivationFailed(Frame, frozen=True):
    uid: str
    epoch: int
    fault: Fault


class TurnDone(Frame, frozen=True):
    """End of a turn. Nothing of it is visible before the daemon's commit."""

    turn: int
    reply: bytes | None = None
    """msgpack; None only with `fault`."""
    state: bytes | None = None
    """The whole new state, msgpack; None: unchanged (always for queries)."""
    signals: tuple[Signal, ...] = ()
    """What it emitted, for the agent's log; what is to arrive somewhere is in `sends`."""
    fault: Fault | None = None
    sends: tuple[Outgoing, ...] = ()
    due: tuple[Due, ...] | None = None
    """What the new state plans, when it is not what the old one planned."""
    stop: str | None = None
    """The agent is ended by the commit: why."""
    waits: Wait | None = None
    """The turn is suspended; there is neither reply nor state."""


class Progress(Frame, frozen=True):
    """A turn has come to a step. Answered by `Progressed` once it is durable; the worker waits for that."""

    turn: int
    uid: str
    position: int = 0
    entry: Entry | None = None
    """The step that is finished, at `position` (0 is the first). None: the turn is to be accepted, before its first
    step (protocol 9, rule 1).
    """
    lasts: float = 0.0
    """Of an acceptance: seconds of cluster time after which the turn ends with an error (protocol 9, rule 7)."""


class LogLine(Frame, frozen=True):
    uid: str
    level: str
    text: str
    wall_time: float


class Pong(Frame, frozen=True):
    n: int


# --- from the daemon to the process ---------------------------------------------------------------------------


class Welcome(Frame, frozen=True):
    """Answer to a good Hello."""

    link_version: int
    incarnation: str
    lock: str
    """Path of the lock file of this incarnation, on a volume that both see."""
    workers: int = 1
    """To the supervisor: how many worker processes to keep."""


class Refused(Frame, frozen=True):
    """Answer to a Hello that cannot be served; the connection ends."""

    fault: Fault


class Lease(Frame, frozen=True):
    """To the supervisor: kill the workers when CLOCK_BOOTTIME passes `until_ns`, unless a later one came."""

    until_ns: int


class Kill(Frame, frozen=True):
    """To the supervisor: SIGKILL this worker and start another, unless as many live as `Spawn` asked for."""

    pid: int
    reason: str


class Spawn(Frame, frozen=True):
    """To the supervisor: keep this many workers. With fewer than live, the youngest are killed, but those of `keep`."""

    workers: int
    keep: tuple[int, ...] = ()
    """PIDs: suspects are tried in them."""


class Stop(Frame, frozen=True):
    """To the supervisor: end the workers and yourself."""


class Activate(Frame, frozen=True):
    """Take this agent into memory. Answered by Activated or ActivationFailed."""

    uid: str
    epoch: int
    id: str
    """namespace/name"""
    class_name: str
    state: bytes | None = None
    """The last committed state, msgpack; None: there was never one, begin with `initial`."""
    initial: bytes = b""
    """msgpack map: `spec.state`."""
    config: bytes = b""
    """msgpack map: `spec.config`."""
    now: float = 0.0
    """Cluster time in seconds: what `on_start` plans counts from it."""
    wall: float = 0.0
    """Seconds since 1970: cron counts from it."""
    turn: int = 0
    """Its number among the turns: by it the worker notes that it has begun (`Workers.begun`)."""


class Deactivate(Frame, frozen=True):
    """Forget this agent; drop what it is doing."""

    uid: str
    epoch: int


class Turn(Frame, frozen=True):
    turn: int
    uid: str
    kind: Literal["action", "query", "by_name", "work", "timer", "replace"]
    """`work`: `arguments` is a `Work`. `timer`: run the plan `method`, due at `at`, and take it off the state's plans,
    also if it fails; with `arguments` do not run it. `replace`: `arguments` is a map of state fields that takes the
    place of the present ones.
    """
    method: str
    arguments: bytes
    """msgpack map: parameter name to value."""
    deadline_ns: int
    """CLOCK_BOOTTIME."""
    caller: str = ""
    call_id: str = ""
    at: float = 0.0
    now: float = 0.0
    """Cluster time in seconds, as the daemon reads it: plans count from it."""
    wall: float = 0.0
    """Seconds since 1970: cron counts from it."""
    accepted: bool = False
    """The turn's acceptance is committed: `journal` is what there is of it (protocol 9)."""
    journal: tuple[Entry, ...] = ()
    key: str = ""
    """Of the turn, the same in every attempt: idempotency keys of its steps are made of it [stable_key]."""


class Progressed(Frame, frozen=True):
    """The turn's acceptance, or its step, is durable."""

    turn: int
    uid: str


class Commit(Frame, frozen=True):
    """The agent's state as of this turn is durable: it is the new undo point."""

    turn: int
    uid: str


class Drop(Frame, frozen=True):
    """This turn and all later ones of the agent did not happen: go back to the state before."""

    turn: int
    uid: str


class Ping(Frame, frozen=True):
    """Answered at once by Pong, also while a turn runs; 5 s without an answer and the worker is killed."""

    n: int


FromProcess = Hello | Workers | Terminating | Activated | ActivationFailed | TurnDone | Progress | LogLine | Pong
FromDaemon = (
    Welcome | Refused | Lease | Kill | Spawn | Stop | Activate | Deactivate | Turn | Progressed | Commit | Drop | Ping
)

decode_from_process = msgspec.msgpack.Decoder(FromProcess).decode
"""Raises msgspec.DecodeError or msgspec.ValidationError."""
decode_from_daemon = msgspec.msgpack.Decoder(FromDaemon).decode
"""Raises msgspec.DecodeError or msgspec.ValidationError."""
