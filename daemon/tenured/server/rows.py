"""Rows of the registry as the wire shows them. Pure; the other way is `fromwire`."""

from __future__ import annotations

from collections.abc import Iterable

from tenure_proto.v1 import common_pb2, registry_pb2
from tenured.core import agentspec, model
from tenured.core.describe import describe
from tenured.core.lookup import Answer, look
from tenured.core.registry import Registry, Usage

_DOORS: dict[model.ManagedBy, registry_pb2.ManagedBy.ValueType] = {
    "Kubernetes": registry_pb2.MANAGED_BY_KUBERNETES,
    "API": registry_pb2.MANAGED_BY_API,
}


def agent_row(registry: Registry, agent: model.Agent, wall: float) -> registry_pb2.AgentRow:
    """One agent with the sentences that a user reads."""
    said = describe(registry, agent, wall)
    row = registry_pb2.AgentRow(
        uid=agent.uid,
        spec=_spec(agent.spec),
        managed_by=_DOORS[agent.managed_by],
        revision=agent.revision,
        epoch=agent.epoch,
        host=agent.host,
        incarnation=agent.incarnation,
        node=agent.node,
        assigned_reason=agent.assigned_reason,
        ready=agent.ready,
        ready_epoch=agent.ready_epoch,
        deleting=agent.deleting,
        phase=said.phase,
        summary=said.summary,
        reason=said.reason,
        next_action=said.next_action,
        restarts=agent.restarts,
        created_wall=agent.created_wall,
        explanation=agent.explanation,
        previous_explanation=agent.previous_explanation,
        unavailable=agent.unavailable,
        recovered_from=agent.recovered_from,
        dead_letters=agent.dead_letters,
        ended=agent.ended,
    )
    if agent.hibernation is not None:
        row.hibernated = True
        row.wake_wall = agent.hibernation.wake_wall
    if agent.trouble is not None:
        row.attempt = agent.trouble.attempt
        row.backoff_until_wall = agent.trouble.retry_wall
    if agent.last_failover is not None:
        row.last_failover.CopyFrom(failover(agent.last_failover))
    return row


def host_row(registry: Registry, host: model.Host) -> registry_pb2.HostRow:
    """One incarnation of a host."""
    usage = registry.usage.get(host.incarnation, Usage())
    return registry_pb2.HostRow(
        name=host.name,
        incarnation=host.incarnation,
        pool=host.pool,
        node=host.node,
        address=host.address,
        signals_address=host.signals_address,
        labels=host.labels,
        ready=host.ready and host.alive,
        expired=not host.alive,
        schedulable=host.schedulable,
        draining=host.draining,
        classes=[_class(kind) for kind in host.classes],
        worker_error=host.worker_error,
        worker_reason=host.worker_reason,
        agents=len(registry.held_by.get(host.incarnation, ())),
        version=host.version,
        revision=host.revision,
        registered_wall=host.registered_wall,
        suspect=host.suspect,
        quarantined=host.quarantined,
        capabilities=host.capabilities,
        cpu_milli=host.cpu_milli,
        memory_bytes=host.memory_bytes,
        used_cpu_milli=usage.cpu_milli,
        used_memory_bytes=usage.memory_bytes,
        ended=host.ended,
        ended_wall=host.ended_wall,
        silence=host.silence,
        silent_since_wall=host.silent_since_wall,
    )


def pool_row(pool: model.Pool) -> registry_pb2.PoolRow:
    """One pool."""
    spec = registry_pb2.PoolSpec(
        name=pool.name,
        modules=pool.modules,
        max_agents_per_host=pool.max_agents_per_host,
        capabilities=pool.capabilities,
        taints=[registry_pb2.Taint(key=each.key, value=each.value, effect=each.effect) for each in pool.taints],
        tolerations=_tolerations(pool.tolerations),
    )
    return registry_pb2.PoolRow(spec=spec, revision=pool.revision)


def route(registry: Registry, agent: model.Agent, wall: float) -> common_pb2.Route:
    """Where calls to the agent go now, or why nowhere."""
    said = describe(registry, agent, wall)
    host = registry.hosts.get(agent.incarnation)
    return common_pb2.Route(
        agent=agent.id,
        uid=agent.uid,
        host=agent.host,
        address=host.address if host is not None else "",
        frames_address=host.signals_address if host is not None else "",
        epoch=agent.epoch,
        ready=agent.ready,
        phase=said.phase,
        summary=said.summary,
        revision=registry.revision,
        standing=_standing(agent, host),
    )


def held_route(registry: Registry, agent: model.Agent) -> common_pb2.Route:
    """Where calls to an agent that is held go: for whoever has just applied it. Without the sentences."""
    host = registry.hosts.get(agent.incarnation)
    return common_pb2.Route(
        agent=agent.id,
        uid=agent.uid,
        host=agent.host,
        address=host.address if host is not None else "",
        frames_address=host.signals_address if host is not None else "",
        epoch=agent.epoch,
        ready=agent.ready,
        revision=registry.revision,
    )


def failover_row(record: model.FailoverRecord) -> registry_pb2.FailoverRecord:
    """One loss of a host."""
    return registry_pb2.FailoverRecord(
        id=record.id,
        host=record.host,
        node=record.node,
        incarnation=record.incarnation,
        cause=record.cause,
        last_heard_wall=record.last_heard_wall,
        ended_wall=record.ended_wall,
        agents=record.agents,
        items=[
            registry_pb2.FailoverItem(
                uid=item.uid,
                id=item.id,
                critical=item.critical,
                to_host=item.to_host,
                to_node=item.to_node,
                ready_wall=item.ready_wall,
                unavailable=item.unavailable,
            )
            for item in record.items
        ],
        moved=record.moved,
        marked_unavailable=record.marked_unavailable,
        ready=record.ready,
        left=record.left,
        done_wall=record.done_wall,
        pool=record.pool,
        hosts=record.hosts,
    )


def _standing(agent: model.Agent, host: model.Host | None) -> str:
    answer = look(agent.id, agent, host).answer
    return "" if answer is Answer.FOUND else answer.value


def _tolerations(tolerations: Iterable[agentspec.Toleration]) -> list[registry_pb2.Toleration]:
    return [registry_pb2.Toleration(key=each.key, value=each.value) for each in tolerations]


def _spec(spec: agentspec.AgentSpec) -> registry_pb2.AgentSpec:
    message = registry_pb2.AgentSpec(
        id=spec.id,
        pool=spec.pool,
        state=spec.state,
        config=spec.config,
        critical=spec.critical,
        cpu_milli=spec.cpu_milli,
        memory_bytes=spec.memory_bytes,
        strategy=spec.strategy,
        node_selector=spec.node_selector,
        object_uid=spec.object_uid,
        generation=spec.generation,
        labels=spec.labels,
        capabilities=spec.capabilities,
        requires=spec.requires,
        tolerations=_tolerations(spec.tolerations),
        spread=[
            registry_pb2.Spread(by=each.by, max_skew=max(0, each.max_skew), group=each.group) for each in spec.spread
        ],
        near=spec.near,
        durability=spec.durability,
        reads=spec.reads,
        on_exhausted=spec.on_exhausted,
        delivery=registry_pb2.Delivery(
            max_attempts=max(0, spec.delivery.max_attempts),
            backoff_s=spec.delivery.backoff_s,
            ttl_s=spec.delivery.ttl_s,
        ),
        idle_timeout_s=spec.idle_timeout_s,
    )
    setattr(message, "class", spec.class_name)  # a keyword of Python
    return message


def failover(failover: model.Failover) -> registry_pb2.Failover:
    """The last move of an agent that nobody asked for."""
    return registry_pb2.Failover(
        wall_time=failover.wall,
        from_host=failover.from_host,
        to_host=failover.to_host,
        from_node=failover.from_node,
        to_node=failover.to_node,
        reason=failover.reason,
        duration_ms=failover.duration_ms,
    )


def _class(kind: model.AgentClass) -> registry_pb2.ClassInfo:
    return registry_pb2.ClassInfo(
        name=kind.name,
        version=kind.version,
        description=kind.description,
        methods=[
            registry_pb2.MethodInfo(
                name=method.name,
                query=method.query,
                description=method.description,
                parameters_schema=method.parameters_schema,
            )
            for method in kind.methods
        ],
        state_schema=kind.state_schema,
        capabilities=kind.capabilities,
        subscribes=kind.subscribes,
    )
