"""Cycles of turns that wait for each other's replies, found by probes (protocol 9, rule 12; model P).

A turn waits for one reply at a time, so from each agent one way leads on. An agent that waits, and has requests in its
inbox, asks along that way who waits there. Where a probe comes back to the wait that it began with, all of them wait
for ever: one agent of the cycle refuses the request that waits in its inbox. The method is that of K. M. Chandy,
J. Misra and L. M. Haas, Distributed Deadlock Detection (1983), with one victim as in D. P. Mitchell and M. J. Merritt,
A Distributed Algorithm for Deadlock Detection and Resolution (1984).
"""

from __future__ import annotations

import msgspec

from tenured.core.journals import Journal
from tenured.core.signals import Signal

MAX_HOPS = 1_000
"""A longer cycle is not found."""


class Hop(msgspec.Struct, frozen=True, array_like=True):
    """One agent on the way of a probe."""

    uid: str
    agent: str
    """Its id."""
    waits: str
    """Key of the reply that its turn waits for."""
    inbox: bool
    """The request of the one before it waits in its inbox; else its turn is the one that answers it."""


class Probe(msgspec.Struct, frozen=True, array_like=True):
    """From one agent to the one that it waits for."""

    path: tuple[Hop, ...]
    to: str
    """id of the receiver."""
    victim: str = ""
    """The path is a cycle, and the agent of this uid is to refuse."""
    left: int = 0
    """With a victim: how many times it may still be handed on."""


class Refusal(msgspec.Struct, frozen=True):
    """The request that is not to be run."""

    k: int
    """Its place in the inbox."""
    signal: Signal
    key: str
    """Of the reply that its sender waits for."""
    message: str


class _Asks(msgspec.Struct):
    """Of the work that a signal asks for, what matters here."""

    reply: str = ""


_asks = msgspec.msgpack.Decoder(_Asks).decode
encode = msgspec.msgpack.Encoder().encode
_probe = msgspec.msgpack.Decoder(Probe).decode


def decode(data: bytes) -> Probe:
    """A probe that came; one that cannot be read leads nowhere."""
    try:
        return _probe(data)
    except msgspec.DecodeError:
        return Probe((), "")


def reply_to(signal: Signal) -> str:
    """The key of the reply that its sender waits for; empty: it waits for none."""
    try:
        return _asks(signal.body).reply if signal.body else ""
    except msgspec.DecodeError:
        return ""


def begin(uid: str, agent: str, journal: Journal) -> Probe | None:
    """What this agent asks about its wait [probe_each]; None: it waits for nobody, or nobody for it."""
    waiting = journal.owed.waiting if journal.owed is not None else None
    if waiting is None or not waiting.to or not any(reply_to(signal) for signal in journal.inbox.values()):
        return None
    return Probe((Hop(uid, agent, waiting.key, inbox=True),), waiting.to)


def judge(uid: str, probe: Probe, journal: Journal) -> Probe | Refusal | None:
    """What is to be done with a probe here: hand it on, refuse a request, or nothing: there is no cycle any more."""
    owed = journal.owed
    if owed is None or owed.waiting is None or not owed.waiting.to or not probe.path:
        return None
    waiting = owed.waiting
    at = next((at for at, hop in enumerate(probe.path) if hop.uid == uid), None)
    key = probe.path[(at or 0) - 1].waits  # of who sent it: the last one, or the one before this in the cycle
    k = next((k for k, signal in journal.inbox.items() if key and reply_to(signal) == key), 0)
    if not k and owed.reply != key:
        return None  # it is not asked any more [probe_seen]; one that is being answered here waits, too [probe_served]
    if at is None:
        hop = Hop(uid, probe.to, waiting.key, inbox=bool(k))
        return Probe((*probe.path, hop), waiting.to) if len(probe.path) < MAX_HOPS else None
    if probe.path[at].waits != waiting.key or (at and not probe.victim):
        return None  # another wait; or a cycle in which it did not begin, and which others find [probe_ends]
    if not probe.victim:
        victim = max((hop.uid for hop in probe.path if hop.inbox), key=_age)  # of several probes the same [one_victim]
        probe = Probe(probe.path, probe.to, victim, len(probe.path))
    if probe.victim != uid:
        return Probe(probe.path, waiting.to, probe.victim, probe.left - 1) if probe.left else None
    return _refusal(at, k, journal.inbox[k], probe) if k else None


def _age(uid: str) -> tuple[int, str]:
    """uids are numbers that grow."""
    return len(uid), uid


def _refusal(at: int, k: int, signal: Signal, probe: Probe) -> Refusal:
    path = probe.path
    around = [path[(at - 1 + n) % len(path)].agent for n in range(len(path) + 1)]
    return Refusal(k, signal, path[at - 1].waits, f"turns would wait for each other: {' -> '.join(around)}")
