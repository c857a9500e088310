"""The worker link: what `tenured host` and the processes that run user code say to each other over a unix socket.

Every message is one frame: 4 bytes big-endian length, then msgpack of one of the structs below (tagged by `t`).
A frame may be at most `MAX_FRAME` bytes; a longer one, or one that does not decode, ends the connection.

Three kinds of process connect (`Hello.kind`):

* `supervisor`: PID 1 of the worker container. No user code. Gets `Lease` at each renewal and kills its workers when
  it passes (CLOCK_BOOTTIME). Starts workers, reports `Workers` and `Terminating`.
* `worker`: runs agents. After `Welcome` it takes a shared flock on `Welcome.lock` before it answers anything, and ends
  within 1 s of losing its socket.

Order: frames of one connection are handled in order by the daemon; a worker answers `Turn` frames of one agent in order
and of several agents in any order, queries beside them. Turns of one agent may run ahead: each works on the draft that
the one before left (protocol additions 9). `Commit(turn)` says that everything up to that turn is durable, `Drop(turn)`
that it and every later turn of the agent did not happen. A turn that fails leaves the draft as it found it.

A turn with steps (protocol 9) says each finished step in `Progress` and goes on when `Progressed` says that it is
durable. One that waits ends with `TurnDone.waits`; it is run again, with its journal, when what it waits for is there.

Nothing here comes from the network: the socket's peer credentials are checked. Still, the daemon trusts no worker with
anything but its own agents: a worker is user code.
"""

from __future__ import annotations

from typing import Literal

import msgspec

LINK_VERSION = 2
"""A daemon serves this version and the one before. 2: signals, timers, turns that run ahead, steps."""

MAX_FRAME = 64 * 1024 * 1024
"""Bytes of one frame at most."""


class Frame(msgspec.Struct, frozen=True, tag_field="t", omit_defaults=True):
    """Base of all frames; the tag is the class name."""


class Method(msgspec.Struct, frozen=True, omit_defaults=True):
    """An action or a query, as a caller needs to know it."""

    name: str
    query: bool = False
    description: str = ""
    parameters: dict[str, object] = {}
    """JSON Schema of an object: one property per parameter."""


class AgentClass(msgspec.Struct, frozen=True, omit_defaults=True):
    """A class that the pool's modules registered."""

    name: str
    version: int = 1
    description: str = ""
    methods: tuple[Method, ...] = ()
    state_schema: dict[str, object] = {}
    """JSON Schema of the state."""
    capabilities: tuple[str, ...] = ()
    """What every agent of the class offers."""
    subscribes: tuple[str, ...] = ()
    """Patterns of the types of signals that every agent of the class hears."""


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something went wrong in user code, in words for its author."""

    code: str
    """From the catalogue in docs/errors.md: ActionFailed, InvalidArguments, UnknownMethod, StateInvalid, ..."""
    message: str
    """One sentence, e.g. `ValueError in increment: by must be positive`."""
    details: str = ""
    """The traceback, for the log."""


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
    """Of the one that ended: the turns that had begun there, and not ended; None: nobody knows. What was sent there,
    and is not among them, did not run.
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


class Signal(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a turn emitted, CloudEvents words."""

    id: str
    type: str
    data: bytes


class Outgoing(msgspec.Struct, frozen=True, omit_defaults=True):
    """A signal that leaves with the turn's commit. The daemon resolves to whom (protocol 3)."""

    to: str
    """`namespace/name`, `capability:NAME`, `group:NAME`, `all:` (of the namespace), or empty: whoever subscribes."""
    work: bytes
    """msgpack of `Work`."""
    type: str = ""
    """Of the signal; empty: an action of the receiver is asked for by name."""
    priority: int = 0
    id: str = ""
    """Of the signal, for logs."""


class Work(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a receiver is to do: an action by its name, or whatever a signal leads to."""

    name: str = ""
    arguments: bytes = b""
    """msgpack map."""
    signal: bytes = b""
    """msgpack of the CloudEvents signal (`tenure.signals.to_msgpack`); empty: `name` counts."""
    carried: bytes = b""
    """msgpack map of attributes that signals caused by an action by name are to have: trace, correlation."""
    then: str = ""
    """An action of the sender, which is the receiver too, that is told how it ended."""
    reply: str = ""
    """The sender's turn waits for the reply of this name. Written by its daemon."""
    answer: str = ""
    """This is the reply of that name; `arguments` is how it ended. Of daemons only."""


class Due(msgspec.Struct, frozen=True, array_like=True):
    """A run that the agent's state plans."""

    name: str
    at: float
    """Seconds: of cluster time; of the wall clock (since 1970) for `wall`."""
    wall: bool = False
    what: str = ""
    """Action or type of the signal, for people."""
    every: str = ""
    """Cron expression and time zone, for people; empty: it is run once."""


class Wait(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a suspended turn waits for: the first of these ends it (protocol 9, rule 5).

    The result of its entry, msgpack: nil at the end of the time; the map of the signal (`Work.signal`); of a call
    `{"reply": reply}` with the reply's msgpack as bytes, or `{"fault": [code, message, details]}`.
    """

    position: int
    """Of the journal entry that its end writes."""
    name: str
    """Of that entry."""
    until: float = 0.0
    """Cluster time in seconds; 0: no end by time."""
    types: tuple[str, ...] = ()
    """Patterns of signals, any of which ends the wait with the signal as its result."""
    key: str = ""
    """Of a reply that is awaited: to a call of another agent, made in this turn."""
    sends: tuple[Outgoing, ...] = ()
    """Leave with the commit of the suspension."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A finished step of a turn."""

    name: str
    result: bytes
    """msgpack."""


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

_encoder = msgspec.msgpack.Encoder()
decode_from_process = msgspec.msgpack.Decoder(FromProcess).decode
"""Raises msgspec.DecodeError or msgspec.ValidationError."""
decode_from_daemon = msgspec.msgpack.Decoder(FromDaemon).decode
"""Raises msgspec.DecodeError or msgspec.ValidationError."""


class FrameTooLarge(ValueError):
    """A frame of more than MAX_FRAME bytes, sent or announced."""


def encode(frame: Frame) -> bytes:
    """The frame with its length in front. Raises FrameTooLarge."""
    body = _encoder.encode(frame)
    if len(body) > MAX_FRAME:
        raise FrameTooLarge(f"a frame of {len(body)} bytes; the limit is {MAX_FRAME}")
    return len(body).to_bytes(4, "big") + body


class Splitter:
    """Cuts a byte stream into frame bodies; no I/O."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that are complete now. Raises FrameTooLarge on an announced length over the limit."""
        self._buffer += data
        bodies: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= 4:
            size = int.from_bytes(self._buffer[start : start + 4], "big")
            if size > MAX_FRAME:
                raise FrameTooLarge(f"a frame of {size} bytes was announced; the limit is {MAX_FRAME}")
            if len(self._buffer) - start - 4 < size:
                break
            bodies.append(bytes(self._buffer[start + 4 : start + 4 + size]))
            start += 4 + size
        del self._buffer[:start]
        return bodies
