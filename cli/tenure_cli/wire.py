"""From resources to the rows that servers take. Pure."""

from collections.abc import Sequence

import msgspec

from tenure_api import quantity
from tenure_api.agent import Agent
from tenure_api.agentcluster import AgentCluster, Pool
from tenure_proto.v1 import registry_pb2


def class_of(spec: registry_pb2.AgentSpec) -> str:
    """The class; `class` is a keyword, so that the field cannot be named in Python."""
    return str(getattr(spec, "class"))


def new_spec(agent: str, class_: str, pool: str = "default") -> registry_pb2.AgentSpec:
    """The row of an agent without a manifest: it asks for as much as one whose manifest says nothing."""
    row = registry_pb2.AgentSpec(
        id=agent, pool=pool, state=msgspec.msgpack.encode({}), config=msgspec.msgpack.encode({}), critical=True,
        cpu_milli=quantity.milli("100m"), memory_bytes=quantity.whole("128Mi"), strategy="LoadBalanced",
    )  # fmt: skip
    setattr(row, "class", class_)
    return row


def agent_spec(agent: Agent, namespace: str) -> registry_pb2.AgentSpec:
    """The row that this Agent asks for. Raises quantity.BadQuantity."""
    spec, placement = agent.spec, agent.spec.placement
    row = registry_pb2.AgentSpec(
        id=f"{namespace}/{agent.metadata.name}",
        pool=spec.pool,
        state=msgspec.msgpack.encode(spec.state),
        config=msgspec.msgpack.encode(spec.config),
        critical=spec.critical,
        cpu_milli=quantity.milli(spec.resources.requests.cpu),
        memory_bytes=quantity.whole(spec.resources.requests.memory),
        strategy=placement.strategy,
        node_selector=placement.node_selector,
        labels=agent.metadata.labels,
        capabilities=spec.capabilities,
        requires=placement.requires,
        tolerations=[registry_pb2.Toleration(key=each.key, value=each.value) for each in placement.tolerations],
        spread=[registry_pb2.Spread(by=rule.by, max_skew=rule.max_skew, group=rule.group) for rule in placement.spread],
        near=placement.near or "",
        durability=spec.durability,
        reads=spec.reads,
        on_exhausted=spec.on_exhausted,
        delivery=registry_pb2.Delivery(
            max_attempts=spec.delivery.max_attempts, backoff_s=spec.delivery.backoff, ttl_s=spec.delivery.ttl
        ),
        idle_timeout_s=spec.lifecycle.idle_timeout or 0.0,
    )
    setattr(row, "class", spec.class_)
    return row


def pool_spec(pool: Pool) -> registry_pb2.PoolSpec:
    """The row of one pool."""
    limit = pool.max_agents_per_host or 0
    taints = [registry_pb2.Taint(key=taint.key, value=taint.value, effect=taint.effect) for taint in pool.taints]
    return registry_pb2.PoolSpec(
        name=pool.name, modules=pool.modules, max_agents_per_host=limit, capabilities=pool.capabilities, taints=taints
    )


def pool_specs(cluster: AgentCluster) -> Sequence[registry_pb2.PoolSpec]:
    """The rows of all pools."""
    return [pool_spec(pool) for pool in cluster.spec.pools]
