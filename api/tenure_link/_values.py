"""What frames carry: classes of agents, work and its end, signals, plans, steps."""

from __future__ import annotations

import msgspec


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
    probe: bytes = b""
    """Asks who waits for whom (protocol 9, rule 12). Of daemons only."""


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
