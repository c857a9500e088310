"""What comes from the wire, as specs, rows and commands of the core. Pure; the other way is `rows`."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import msgspec

from tenure_proto.v1 import hostlink_pb2, registry_pb2
from tenured.core import agentspec, commands, model


def _tolerations_from(messages: Iterable[registry_pb2.Toleration]) -> tuple[agentspec.Toleration, ...]:
    return tuple(agentspec.Toleration(key=each.key, value=each.value) for each in messages)


def _taints_from(messages: Iterable[registry_pb2.Taint]) -> tuple[model.Taint, ...]:
    return tuple(model.Taint(key=each.key, value=each.value, effect=each.effect or "NoSchedule") for each in messages)


def spec_from(message: registry_pb2.AgentSpec) -> agentspec.AgentSpec:
    """What the user asked for. Checked where it is applied, the same on every server."""
    spec = agentspec.AgentSpec(
        id=message.id,
        class_name=str(getattr(message, "class")),
        pool=message.pool or "default",
        state=message.state,
        config=message.config,
        critical=message.critical,
        cpu_milli=message.cpu_milli,
        memory_bytes=message.memory_bytes,
        node_selector=dict(message.node_selector),
        object_uid=message.object_uid,
        generation=message.generation,
        labels=dict(message.labels),
        capabilities=tuple(message.capabilities),
        requires=tuple(message.requires),
        tolerations=_tolerations_from(message.tolerations),
        spread=tuple(
            agentspec.Spread(by=each.by or "Node", max_skew=each.max_skew or 1, group=each.group)
            for each in message.spread
        ),
        near=message.near,
        delivery=_delivery_from(message.delivery),
        idle_timeout_s=message.idle_timeout_s,
    )
    given = {name: str(getattr(message, name)) for name in ("strategy", "durability", "reads", "on_exhausted")}
    return msgspec.structs.replace(spec, **{name: sys.intern(word) for name, word in given.items() if word})


def _delivery_from(message: registry_pb2.Delivery) -> agentspec.Delivery:
    """0 in a field: its default."""
    found = agentspec.Delivery(
        max_attempts=message.max_attempts or agentspec.DELIVERY.max_attempts,
        backoff_s=message.backoff_s or agentspec.DELIVERY.backoff_s,
        ttl_s=message.ttl_s or agentspec.DELIVERY.ttl_s,
    )
    return agentspec.DELIVERY if found == agentspec.DELIVERY else found


def pool_from(message: registry_pb2.PoolSpec) -> model.Pool:
    """A pool."""
    return model.Pool(
        name=message.name,
        modules=tuple(message.modules),
        max_agents_per_host=message.max_agents_per_host,
        capabilities=tuple(message.capabilities),
        taints=_taints_from(message.taints),
        tolerations=_tolerations_from(message.tolerations),
    )


def node_from(message: registry_pb2.NodeState) -> model.Node:
    """A node."""
    return model.Node(
        name=message.node,
        schedulable=message.schedulable,
        labels=dict(message.labels),
        taints=_taints_from(message.taints),
    )


def register_from(message: hostlink_pb2.RegisterHost, wall: float) -> commands.RegisterHost:
    """A host's registration. Its incarnation is the command id: repeating it changes nothing twice."""
    return commands.RegisterHost(
        wall=wall,
        name=message.host,
        incarnation=message.incarnation,
        pool=message.pool,
        node=message.node,
        address=message.address,
        signals_address=message.signals_address,
        labels=dict(message.labels),
        version=message.version,
        cpu_milli=message.cpu_milli,
        memory_bytes=message.memory_bytes,
        capabilities=tuple(message.capabilities),
        dead_incarnations=tuple(message.dead_incarnations),
    )


def report_from(message: hostlink_pb2.ReportHost, wall: float) -> commands.ReportHost:
    """What a host says of itself."""
    return commands.ReportHost(
        wall=wall,
        incarnation=message.incarnation,
        ready=message.ready,
        draining=message.draining,
        classes=tuple(_class_from(kind) for kind in message.classes),
        worker_error=message.worker_error,
        worker_reason=message.worker_reason,
    )


def agent_reports_from(message: hostlink_pb2.AgentReports, wall: float) -> commands.AgentReports:
    """What a holder says of its agents."""
    return commands.AgentReports(
        wall=wall,
        incarnation=message.incarnation,
        reports=tuple(_agent_report(report) for report in message.reports),
    )


def _agent_report(report: hostlink_pb2.AgentReport) -> commands.AgentReport:
    what = report.WhichOneof("what")
    return commands.AgentReport(
        uid=report.uid,
        epoch=report.epoch,
        ready=report.ready,
        released=report.released,
        stopped=report.stopped,
        trouble=_trouble(report.trouble) if what == "trouble" else None,
        hibernated=commands.HibernationReport(wake_wall=report.hibernated.wake_at) if what == "hibernated" else None,
        ended=report.ended.reason if what == "ended" else None,
        dead_letters=report.dead_letters if report.HasField("dead_letters") else None,
    )


def _trouble(trouble: hostlink_pb2.Trouble) -> commands.TroubleReport:
    return commands.TroubleReport(
        phase=trouble.phase,
        reason=trouble.reason,
        message=trouble.message,
        attempt=trouble.attempt,
        retry_in_seconds=trouble.retry_in_seconds,
    )


def _class_from(message: registry_pb2.ClassInfo) -> model.AgentClass:
    return model.AgentClass(
        name=message.name,
        version=message.version,
        description=message.description,
        methods=tuple(
            model.Method(
                name=method.name,
                query=method.query,
                description=method.description,
                parameters_schema=method.parameters_schema,
            )
            for method in message.methods
        ),
        state_schema=message.state_schema,
        capabilities=tuple(message.capabilities),
        subscribes=tuple(message.subscribes),
    )
