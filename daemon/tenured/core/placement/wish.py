"""What one agent asks of placement, resolved against the registry. Agents with equal wishes are placed together."""

from __future__ import annotations

import msgspec

from tenure_api.reasons import Reason
from tenured.core.agentspec import Spread, Toleration
from tenured.core.groups import groups_of
from tenured.core.model import Agent
from tenured.core.registry import Registry

LOST = frozenset({str(Reason.LEASE_EXPIRED), str(Reason.HOST_LOST)})
"""Reasons for which nobody holds an agent although nobody asked for that."""


class Near(msgspec.Struct, frozen=True):
    """Where an agent wants to be close to; empty: nowhere in particular."""

    incarnation: str = ""
    node: str = ""
    zone: str = ""


class Wish(msgspec.Struct, frozen=True):
    """What decides where an agent may go, and which of those hosts it prefers."""

    pool: str
    class_name: str
    cpu_milli: int
    memory_bytes: int
    strategy: str
    node: str
    """Only there: an agent that is not critical waits for the node that was lost."""
    selector: tuple[tuple[str, str], ...]
    requires: tuple[str, ...]
    tolerations: tuple[Toleration, ...]
    spread: tuple[Spread, ...]
    groups: tuple[str, ...]
    """The groups that it counts in; that of its class is the first."""
    near: Near


def wish_of(registry: Registry, agent: Agent) -> Wish:
    """Read the agent's row. `requires` and the selector are sorted: the order in a manifest says nothing."""
    spec = agent.spec
    return Wish(
        spec.pool,
        spec.class_name,
        spec.cpu_milli,
        spec.memory_bytes,
        spec.strategy,
        agent.last_node if not spec.critical and agent.unheld_reason in LOST else "",
        tuple(sorted(spec.node_selector.items())) if spec.node_selector else (),
        tuple(sorted(set(spec.requires))) if spec.requires else (),
        spec.tolerations,
        spec.spread,
        groups_of(spec),
        _near(registry, agent) if spec.strategy in _USE_NEAR else _NOWHERE,
    )


def group_of(wish: Wish, rule: Spread) -> str:
    """The group whose agents a rule counts."""
    own = wish.groups[0]
    return f"{own.partition('/')[0]}/{rule.group}" if rule.group else own


_NOWHERE = Near()
_USE_NEAR = frozenset({"LocalPreferred", "Optimal"})


def _near(registry: Registry, agent: Agent) -> Near:
    wanted = agent.spec.near
    if "/" in wanted:  # an agent's id; the name of a node has no slash
        other = registry.agent(wanted)
        if other is None:
            return _NOWHERE
        incarnation, node = other.incarnation, other.node or other.last_node
    else:
        incarnation, node = "", wanted or agent.last_node
    row = registry.nodes.get(node)
    return Near(incarnation, node, row.zone if row is not None else "")
