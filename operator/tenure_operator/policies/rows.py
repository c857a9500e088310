"""From the spec of an Agent to the row that it asks for."""

from __future__ import annotations

import msgspec

from tenure_api import quantity
from tenure_api.agent import AgentSpec
from tenure_api.agentcluster import AgentClusterSpec, Pool
from tenure_api.model import Labels
from tenure_operator.registry import values

_encoder = msgspec.msgpack.Encoder(order="deterministic")


def agent_row(
    agent_id: str, spec: AgentSpec, object_uid: str, generation: int, labels: Labels | None = None
) -> values.AgentSpec:
    """Raises quantity.BadQuantity."""
    placement = spec.placement
    requests = spec.resources.requests
    return values.AgentSpec(
        id=agent_id,
        class_name=spec.class_,
        pool=spec.pool,
        state=_encoder.encode(spec.state),
        config=_encoder.encode(spec.config),
        critical=spec.critical,
        cpu_milli=quantity.milli(requests.cpu),
        memory_bytes=quantity.whole(requests.memory),
        strategy=placement.strategy,
        node_selector=dict(placement.node_selector),
        labels=dict(labels or {}),
        capabilities=tuple(spec.capabilities),
        requires=tuple(placement.requires),
        tolerations=tuple(values.Toleration(key=each.key, value=each.value) for each in placement.tolerations),
        spread=tuple(values.Spread(by=rule.by, max_skew=rule.max_skew, group=rule.group) for rule in placement.spread),
        near=placement.near or "",
        durability=spec.durability,
        reads=spec.reads,
        on_exhausted=spec.on_exhausted,
        delivery=values.Delivery(
            max_attempts=spec.delivery.max_attempts, backoff_s=spec.delivery.backoff, ttl_s=spec.delivery.ttl
        ),
        idle_timeout_s=spec.lifecycle.idle_timeout or 0.0,
        object_uid=object_uid,
        generation=generation,
    )


def pool_rows(spec: AgentClusterSpec) -> list[values.PoolRow]:
    """The pools of a cluster."""
    return [_pool_row(pool) for pool in spec.pools]


def _pool_row(pool: Pool) -> values.PoolRow:
    """What its pods tolerate of a node keeps none of its agents away; placement asks about two effects only."""
    return values.PoolRow(
        name=pool.name,
        modules=tuple(pool.modules),
        max_agents_per_host=pool.max_agents_per_host or 0,
        capabilities=tuple(pool.capabilities),
        taints=tuple(values.Taint(key=taint.key, value=taint.value, effect=taint.effect) for taint in pool.taints),
        tolerations=tuple(
            values.Toleration(key=each.key or "", value=each.value or "" if each.operator != "Exists" else "")
            for each in pool.tolerations
        ),
    )
