"""Signals between agents on their way: what hosts send each other, and what becomes of it (protocol 3).

A sender numbers its signals with one counter, `n`, and names in `prev` the unsettled one before for the same receiver.
A signal stays in its sender's outbox until the receiver's host has settled it; `Again` settles nothing.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    """What became of a signal, for good."""

    APPLIED = "applied"
    """Its turn was committed, or ended as a dead letter of the receiver, which now answers for it."""
    NOT_APPLIED = "not applied"
    """It was given up by its sender before it was applied: its number is settled as a void."""
    UNKNOWN = "unknown"
    """Nobody can tell any more: the receiver's mark has been forgotten, or the receiver is deleted."""


class Signal(msgspec.Struct, frozen=True, array_like=True):
    """One signal on the wire between hosts, or within one."""

    sender: str
    """uid of the sending agent."""
    receiver: str
    """uid of the receiving agent."""
    n: int
    """Number that the sender gave it, from its one counter."""
    prev: int
    """Number of the unsettled signal before it for the same receiver; 0: none."""
    born: float
    """Cluster time, seconds, of the commit that made it."""
    body: bytes = b""
    """What the receiver is to do, as a worker reads it (`tenure_link`). Empty for a void."""
    void: bool = False
    """The sender has given it up: settle the number without a turn."""
    priority: int = 0
    """-100 to 100. Higher overtakes lower under backlog, between senders; within one sender the order stands."""
    epoch: int = 0
    """Of a volatile sender, whose stream is (uid, epoch) [vol_epoch]; 0: the sender is durable."""
    source: str = ""
    """id (`namespace/name`) of the sender, for the receiver's caller and for messages."""


class Settled(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """The receiver's answer, after its commit [ack_committed]."""

    verdict: Verdict


class Again(msgspec.Struct, frozen=True, array_like=True, tag="a"):
    """Not settled: to be sent again, in order, from the first unsettled one of the pair on."""

    code: str
    """Moved, NotReady, Busy, Paused, Fenced, OutOfOrder, Unreachable: from docs/errors.md."""
    message: str = ""


Answer = Settled | Again
