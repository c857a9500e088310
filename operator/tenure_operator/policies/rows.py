"""From the spec of an Agent to the row that it asks for."""

from __future__ import annotations

import msgspec

from tenure_api import quantity
from tenure_api.agent import AgentSpec
from tenure_api.agentcluster import AgentClusterSpec
from tenure_operator.registry import values

_encoder = msgspec.msgpack.Encoder(order="deterministic")


def agent_row(agent_id: str, spec: AgentSpec, object_uid: str, generation: int) -> values.AgentSpec:
    """Raises quantity.BadQuantity."""
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
        strategy=spec.placement.strategy,
        node_selector=dict(spec.placement.node_selector),
        object_uid=object_uid,
        generation=generation,
    )


def pool_rows(spec: AgentClusterSpec) -> list[values.PoolRow]:
    """The pools of a cluster."""
    return [
        values.PoolRow(name=pool.name, modules=tuple(pool.modules), max_agents_per_host=pool.max_agents_per_host or 0)
        for pool in spec.pools
    ]
