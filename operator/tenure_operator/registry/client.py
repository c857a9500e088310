"""The wire: gRPC to a cluster's servers with the operator's own certificate. The one module here that knows gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeVar

import grpc
from grpc import aio

from tenure_api import identity
from tenure_operator.registry.values import (
    AgentRow,
    AgentSpec,
    Batch,
    ClusterState,
    Delivery,
    Failover,
    HostRow,
    NodeRow,
    Outcome,
    PoolRow,
    RegistryError,
    RegistryRefused,
    ServerState,
    Spread,
    Taint,
    Toleration,
)
from tenure_proto.v1 import registry_pb2 as pb
from tenure_proto.v1.registry_pb2_grpc import RegistryStub

HOLDER = "tenure-operator"
TIMEOUT_S = 5.0
MAX_MESSAGE_BYTES = 64 << 20
# As measured: without ping_timeout_ms a frozen peer is noticed after 60 s only.
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 1000),
    ("grpc.http2.ping_timeout_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
]
_DOORS = {pb.MANAGED_BY_KUBERNETES: "Kubernetes", pb.MANAGED_BY_API: "API"}

T = TypeVar("T")


class GrpcRegistry:
    """One channel to any server of a cluster; `session` opens a new one after a failure, with a new certificate."""

    def __init__(self, address: str, authority: identity.Authority) -> None:
        issued = identity.issue_with_key(authority, identity.Role.OPERATOR, HOLDER, lifetime=identity.ENROLLED_LIFETIME)
        credentials = grpc.ssl_channel_credentials(authority.certificate_pem, issued.key_pem, issued.certificate_pem)
        expected = identity.any_of(authority.cluster, identity.Role.SERVER)
        options = [*_OPTIONS, ("grpc.ssl_target_name_override", expected)]
        self._channel = aio.secure_channel(address, credentials, options=options)
        self._stub = RegistryStub(self._channel)

    async def apply_agents(self, specs: list[AgentSpec], command: str) -> list[Outcome]:
        request = pb.ApplyAgentsRequest(
            agents=[_spec_out(spec) for spec in specs], managed_by=pb.MANAGED_BY_KUBERNETES, command_id=command
        )
        answer = await _guarded(self._stub.ApplyAgents(request, timeout=TIMEOUT_S))
        return [_outcome(result) for result in answer.results]

    async def delete_agent(self, agent_id: str, object_uid: str, command: str) -> Outcome:
        request = pb.DeleteAgentsRequest(
            ids=[agent_id], managed_by=pb.MANAGED_BY_KUBERNETES, command_id=command, object_uid=object_uid
        )
        answer = await _guarded(self._stub.DeleteAgents(request, timeout=TIMEOUT_S))
        if len(answer.results) != 1:
            raise RegistryError(f"A server answered a deletion with {len(answer.results)} results.")
        return _outcome(answer.results[0])

    async def apply_cluster(self, pools: list[PoolRow], command: str) -> None:
        rows = [_pool_out(pool) for pool in pools]
        await _guarded(
            self._stub.ApplyCluster(pb.ApplyClusterRequest(pools=rows, command_id=command), timeout=TIMEOUT_S)
        )

    async def set_nodes(self, nodes: list[NodeRow], command: str) -> None:
        rows = [
            pb.NodeState(
                node=node.name, schedulable=node.schedulable, labels=node.labels, taints=_taints_out(node.taints)
            )
            for node in nodes
        ]
        await _guarded(self._stub.SetNodes(pb.SetNodesRequest(nodes=rows, command_id=command), timeout=TIMEOUT_S))

    async def status(self) -> ClusterState:
        answer = await _guarded(self._stub.Status(pb.StatusRequest(), timeout=TIMEOUT_S))
        servers = tuple(
            ServerState(
                name=server.name,
                role=server.role,
                lag=server.lag,
                version=server.version,
                connected=server.connected,
                store=server.store,
            )
            for server in answer.servers
        )
        return ClusterState(leader=answer.leader, term=answer.term, servers=servers, quorum_ready=answer.quorum_ready)

    def watch(self, revision: int) -> AsyncIterator[Batch]:
        kinds = ["agents", "hosts", "pools"]
        return _batches(self._stub.Watch(pb.WatchRequest(from_revision=revision, kinds=kinds)))

    async def close(self) -> None:
        await self._channel.close()


async def _batches(call: Any) -> AsyncIterator[Batch]:
    try:
        async for batch in call:
            yield _batch(batch)
    except grpc.RpcError as error:
        raise RegistryError(_sentence(error)) from error
    finally:
        call.cancel()


async def _guarded(call: Any) -> Any:
    try:
        return await call
    except grpc.RpcError as error:
        refused = error.code() is grpc.StatusCode.INVALID_ARGUMENT if isinstance(error, aio.AioRpcError) else False
        raise (RegistryRefused if refused else RegistryError)(_sentence(error)) from error


def _sentence(error: grpc.RpcError) -> str:
    if isinstance(error, aio.AioRpcError):
        return f"{error.code().name.lower().replace('_', ' ')}: {error.details() or 'no details'}"
    return str(error) or type(error).__name__


def _spec_out(spec: AgentSpec) -> pb.AgentSpec:
    made = pb.AgentSpec(
        id=spec.id,
        pool=spec.pool,
        state=spec.state,
        config=spec.config,
        critical=spec.critical,
        cpu_milli=spec.cpu_milli,
        memory_bytes=spec.memory_bytes,
        strategy=spec.strategy,
        node_selector=spec.node_selector,
        labels=spec.labels,
        capabilities=spec.capabilities,
        requires=spec.requires,
        tolerations=_tolerations_out(spec.tolerations),
        spread=[pb.Spread(by=rule.by, max_skew=rule.max_skew, group=rule.group) for rule in spec.spread],
        near=spec.near,
        durability=spec.durability,
        reads=spec.reads,
        on_exhausted=spec.on_exhausted,
        delivery=pb.Delivery(
            max_attempts=spec.delivery.max_attempts, backoff_s=spec.delivery.backoff_s, ttl_s=spec.delivery.ttl_s
        ),
        idle_timeout_s=spec.idle_timeout_s,
        object_uid=spec.object_uid,
        generation=spec.generation,
    )
    setattr(made, "class", spec.class_name)  # a word of Python's own
    return made


def _spec_in(spec: pb.AgentSpec) -> AgentSpec:
    return AgentSpec(
        id=spec.id,
        class_name=str(getattr(spec, "class")),
        pool=spec.pool,
        state=spec.state,
        config=spec.config,
        critical=spec.critical,
        cpu_milli=spec.cpu_milli,
        memory_bytes=spec.memory_bytes,
        strategy=spec.strategy,
        node_selector=dict(spec.node_selector),
        labels=dict(spec.labels),
        capabilities=tuple(spec.capabilities),
        requires=tuple(spec.requires),
        tolerations=_tolerations_in(spec.tolerations),
        spread=tuple(Spread(by=rule.by, max_skew=rule.max_skew, group=rule.group) for rule in spec.spread),
        near=spec.near,
        durability=spec.durability or "Quorum",
        reads=spec.reads or "Local",
        on_exhausted=spec.on_exhausted or "DeadLetter",
        delivery=_delivery_in(spec.delivery),
        idle_timeout_s=spec.idle_timeout_s,
        object_uid=spec.object_uid,
        generation=spec.generation,
    )


def _delivery_in(delivery: pb.Delivery) -> Delivery:
    """A field that a server of an earlier version leaves out has its default."""
    plain = Delivery()
    return Delivery(
        max_attempts=delivery.max_attempts or plain.max_attempts,
        backoff_s=delivery.backoff_s or plain.backoff_s,
        ttl_s=delivery.ttl_s or plain.ttl_s,
    )


def _outcome(result: pb.RowResult) -> Outcome:
    return Outcome(
        id=result.id,
        outcome=result.outcome,
        code=result.error.code,
        message=result.error.message,
        next_step=result.error.next_step,
    )


def _batch(batch: pb.WatchBatch) -> Batch:
    return Batch(
        snapshot=batch.snapshot,
        synced=batch.synced,
        revision=batch.revision,
        agents=tuple(_agent(row) for row in batch.agents),
        hosts=tuple(_host(row) for row in batch.hosts),
        pools=tuple(_pool(row.spec) for row in batch.pools),
        gone_agents=tuple(batch.gone_agents),
        gone_hosts=tuple(batch.gone_hosts),
        gone_pools=tuple(batch.gone_pools),
    )


def _agent(row: pb.AgentRow) -> AgentRow:
    return AgentRow(
        uid=row.uid,
        spec=_spec_in(row.spec),
        managed_by=_DOORS.get(row.managed_by, ""),
        epoch=row.epoch,
        host=row.host,
        node=row.node,
        ready=row.ready,
        deleting=row.deleting,
        phase=row.phase,
        summary=row.summary,
        reason=row.reason,
        next_action=row.next_action,
        restarts=row.restarts,
        dead_letters=row.dead_letters,
        last_failover=_failover(row.last_failover) if row.HasField("last_failover") else None,
    )


def _failover(found: pb.Failover) -> Failover:
    return Failover(
        wall_time=found.wall_time,
        from_host=found.from_host,
        from_node=found.from_node,
        to_host=found.to_host,
        to_node=found.to_node,
        reason=found.reason,
        duration_ms=found.duration_ms,
    )


def _host(row: pb.HostRow) -> HostRow:
    return HostRow(
        name=row.name,
        incarnation=row.incarnation,
        pool=row.pool,
        node=row.node,
        ready=row.ready,
        expired=row.expired,
        draining=row.draining,
        classes=tuple(found.name for found in row.classes),
        worker_error=row.worker_error,
        worker_reason=row.worker_reason,
        ended=row.ended,
    )


def _pool(spec: pb.PoolSpec) -> PoolRow:
    return PoolRow(
        name=spec.name,
        modules=tuple(spec.modules),
        max_agents_per_host=spec.max_agents_per_host,
        capabilities=tuple(spec.capabilities),
        taints=tuple(Taint(key=taint.key, value=taint.value, effect=taint.effect) for taint in spec.taints),
        tolerations=_tolerations_in(spec.tolerations),
    )


def _pool_out(pool: PoolRow) -> pb.PoolSpec:
    return pb.PoolSpec(
        name=pool.name,
        modules=pool.modules,
        max_agents_per_host=pool.max_agents_per_host,
        capabilities=pool.capabilities,
        taints=_taints_out(pool.taints),
        tolerations=_tolerations_out(pool.tolerations),
    )


def _taints_out(taints: Iterable[Taint]) -> list[pb.Taint]:
    return [pb.Taint(key=taint.key, value=taint.value, effect=taint.effect) for taint in taints]


def _tolerations_out(tolerations: Iterable[Toleration]) -> list[pb.Toleration]:
    return [pb.Toleration(key=toleration.key, value=toleration.value) for toleration in tolerations]


def _tolerations_in(tolerations: Iterable[pb.Toleration]) -> tuple[Toleration, ...]:
    return tuple(Toleration(key=toleration.key, value=toleration.value) for toleration in tolerations)
