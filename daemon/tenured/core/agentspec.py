"""What a user asks for: the spec of an agent, and how it wants to be placed and tried.

A part of its row, so as frozen as that, and without the collector of cycles (`core.model`).
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

Strategy = Literal["LoadBalanced", "CapabilityMatched", "LeaderOnly", "Random", "LocalPreferred", "Optimal"]
"""How a host is chosen among those that pass the filters."""
STRATEGIES: tuple[str, ...] = get_args(Strategy)
SpreadBy = Literal["Zone", "Node", "Host"]
SPREAD_BY: tuple[str, ...] = get_args(SpreadBy)
DURABILITIES = ("Quorum", "Volatile")
READS = ("Local", "Quorum")
ON_EXHAUSTED = ("DeadLetter", "Pause")


class Toleration(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Lets an agent go where a taint is."""

    key: str
    """Empty: every taint."""
    value: str = ""
    """Empty: any value of the key."""


class Spread(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How evenly the agents of a group are to lie over zones, nodes or hosts."""

    by: str = "Node"
    """One of SPREAD_BY."""
    max_skew: int = 1
    """The most by which two places may differ in agents of the group."""
    group: str = ""
    """Agents that name the same group count together; empty: those of the class."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How often and how long a signal is tried."""

    max_attempts: int = 5
    """Of a turn that fails, 1 to 100; then `on_exhausted` decides."""
    backoff_s: float = 0.1
    """Before the second attempt, doubling to 60 s."""
    ttl_s: float = 300.0
    """Until the sender gives a signal up, in cluster time. Less than marks are kept (protocol 3, Bounds)."""


DELIVERY = Delivery()
"""What an agent has that asks for nothing else: one value for all rows."""


class AgentSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What the user asked for."""

    id: str
    """namespace/name"""
    class_name: str
    pool: str = "default"
    state: bytes = b""
    """msgpack map: initial values. In a row: those of the creation, whatever was applied later."""
    config: bytes = b""
    """msgpack map."""
    critical: bool = True
    cpu_milli: int = 0
    memory_bytes: int = 0
    strategy: str = "LoadBalanced"
    """One of STRATEGIES."""
    node_selector: dict[str, str] = {}
    labels: dict[str, str] = {}
    """Of the Kubernetes object, or as the API's user gave them: for lookups only."""
    capabilities: tuple[str, ...] = ()
    """What the agent offers, beside what its class declares: for lookups."""
    requires: tuple[str, ...] = ()
    """Capabilities that its host must have."""
    tolerations: tuple[Toleration, ...] = ()
    spread: tuple[Spread, ...] = ()
    near: str = ""
    """For LocalPreferred: an agent's id, or a node; empty: the node where it was last."""
    object_uid: str = ""
    """Of the Kubernetes object."""
    generation: int = 0
    """Of the Kubernetes object: becomes observedGeneration."""
    durability: str = "Quorum"
    """One of DURABILITIES. Fixed for life: it says whether there is a record at all."""
    reads: str = "Local"
    """One of READS."""
    on_exhausted: str = "DeadLetter"
    """One of ON_EXHAUSTED."""
    delivery: Delivery = DELIVERY
    idle_timeout_s: float = 0.0
    """Hibernate after so many seconds without work; 0: never."""
