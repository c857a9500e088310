"""The Registry service of three real servers: apply, delete, resolve, status, and who may do what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import pytest
from grpc import aio
from local_servers import LocalServers

from tenure_api import identity
from tenure_api.identity import Identity, Role
from tenure_proto.v1 import registry_pb2
from tenure_proto.v1.common_pb2 import OUTCOME_NOT_APPLIED
from tenure_proto.v1.registry_pb2_grpc import RegistryStub
from tenured.transport.errors import NotConnected, wrap
from tenured.transport.tls import TlsFiles, open_channel


def spec(agent_id: str, **changes: object) -> registry_pb2.AgentSpec:
    return registry_pb2.AgentSpec(
        **{"id": agent_id, "class": "Counter", "pool": "default", "critical": True, **changes}
    )  # type: ignore[arg-type]


def apply(*specs: registry_pb2.AgentSpec, command_id: str = "") -> registry_pb2.ApplyAgentsRequest:
    return registry_pb2.ApplyAgentsRequest(agents=specs, managed_by=registry_pb2.MANAGED_BY_API, command_id=command_id)


async def test_an_agent_is_created_once_and_known_to_every_server(
    servers: LocalServers, registry: RegistryStub, fresh: Callable[[], str]
) -> None:
    name = fresh()
    first = await registry.ApplyAgents(apply(spec(name)))
    again = await registry.ApplyAgents(apply(spec(name)))
    assert [first.results[0].outcome, again.results[0].outcome] == ["created", "unchanged"]
    assert first.results[0].uid == again.results[0].uid
    for server in servers.servers:  # a follower that is behind asks before it says "not found"
        found = await servers.registry(name=server).Resolve(registry_pb2.ResolveRequest(agent=name))
        assert found.route.uid == first.results[0].uid


async def test_a_repeated_command_changes_nothing_twice(registry: RegistryStub, fresh: Callable[[], str]) -> None:
    name = fresh()
    request = apply(spec(name), command_id=f"create {name}")
    first = await registry.ApplyAgents(request)
    assert (await registry.ApplyAgents(request)).results == first.results


async def test_of_two_changes_on_one_revision_one_is_told(registry: RegistryStub, fresh: Callable[[], str]) -> None:
    """CONS-01: also when both went to different servers, the second is refused and knows why."""
    name = fresh()
    base = (await registry.ApplyAgents(apply(spec(name)))).revision
    changes = [
        registry_pb2.ApplyAgentsRequest(
            agents=[spec(name, cpu_milli=milli)], managed_by=registry_pb2.MANAGED_BY_API, expected_revision=base
        )
        for milli in (1, 2)
    ]
    answers = [row for change in changes for row in (await registry.ApplyAgents(change)).results]
    assert [row.outcome for row in answers] == ["configured", "refused"]
    assert (answers[1].error.code, answers[1].error.outcome) == ("Conflict", OUTCOME_NOT_APPLIED)


async def test_one_bad_row_disturbs_no_other(registry: RegistryStub, fresh: Callable[[], str]) -> None:
    good = fresh()
    answer = await registry.ApplyAgents(apply(spec("Not An Id"), spec(good)))
    refused, created = answer.results
    assert (refused.outcome, refused.error.outcome) == ("refused", OUTCOME_NOT_APPLIED)
    assert "is no agent id" in refused.error.message
    assert created.outcome == "created"


async def test_a_large_apply_is_cut_into_entries(registry: RegistryStub, fresh: Callable[[], str]) -> None:
    """Initial states of 40 KiB each: more than one entry of the log may hold."""
    import msgspec

    state = msgspec.msgpack.encode({"text": "x" * 40_000})
    names = [fresh() for _ in range(60)]
    answer = await registry.ApplyAgents(apply(*(spec(name, state=state) for name in names)))
    assert [row.id for row in answer.results] == names
    assert {row.outcome for row in answer.results} == {"created"}
    await registry.DeleteAgents(registry_pb2.DeleteAgentsRequest(ids=names, managed_by=registry_pb2.MANAGED_BY_API))


async def test_a_deleted_agent_is_not_found(registry: RegistryStub, fresh: Callable[[], str]) -> None:
    name = fresh()
    await registry.ApplyAgents(apply(spec(name)))
    gone = await registry.DeleteAgents(
        registry_pb2.DeleteAgentsRequest(ids=[name], managed_by=registry_pb2.MANAGED_BY_API)
    )
    assert gone.results[0].outcome == "gone"
    answer = await registry.Resolve(registry_pb2.ResolveRequest(agent=name))
    assert (answer.error.code, answer.error.message) == ("NotFound", f"There is no agent {name}.")


async def test_only_the_operator_writes_rows_of_kubernetes_objects(
    servers: LocalServers, registry: RegistryStub, fresh: Callable[[], str]
) -> None:
    name = fresh()
    request = registry_pb2.ApplyAgentsRequest(agents=[spec(name)], managed_by=registry_pb2.MANAGED_BY_KUBERNETES)
    with pytest.raises(aio.AioRpcError, match="may not write rows of Kubernetes objects") as refused:
        await registry.ApplyAgents(request)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert (await servers.registry("operator").ApplyAgents(request)).results[0].outcome == "created"
    through_the_api = await registry.ApplyAgents(apply(spec(name)))
    assert through_the_api.results[0].error.code == "ManagedElsewhere"


async def test_pools_that_make_no_sense_are_refused_with_the_sentence(servers: LocalServers) -> None:
    request = registry_pb2.ApplyClusterRequest(pools=[registry_pb2.PoolSpec(name=""), registry_pb2.PoolSpec()])
    with pytest.raises(aio.AioRpcError, match="pools need names") as refused:
        await servers.registry("operator").ApplyCluster(request)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_long_poll_waits_for_its_time(registry: RegistryStub, fresh: Callable[[], str]) -> None:
    name = fresh()
    await registry.ApplyAgents(apply(spec(name)))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    answer = await registry.Resolve(registry_pb2.ResolveRequest(agent=name, known_epoch=0, wait_ms=200))
    assert loop.time() - begun >= 0.19
    assert answer.route.host == ""
    assert answer.route.summary


async def test_status_names_all_servers_and_their_leader(servers: LocalServers) -> None:
    leader = await servers.leader()
    status = await servers.registry(name=leader).Status(registry_pb2.StatusRequest())
    assert (status.cluster, status.answered_by, status.leader) == ("shop/demo", leader, leader)
    assert {server.name: server.role for server in status.servers}[leader] == "leader"
    assert {server.store for server in status.servers} == {"ready"}
    assert {server.address for server in status.servers} == {server.api for server in servers.servers.values()}
    assert status.quorum_ready == 3
    assert status.certificate_expires_wall > 0


async def test_a_certificate_of_another_cluster_is_refused_with_a_clear_sentence(
    servers: LocalServers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("stranger")
    issued = identity.issue_with_key(identity.make_authority("other.shop"), Role.CLIENT, "me")
    (directory / "ca.crt").write_bytes(servers.authority.certificate_pem)
    (directory / "tls.crt").write_bytes(issued.certificate_pem)
    (directory / "tls.key").write_bytes(issued.key_pem)
    server = next(iter(servers.servers.values()))
    expected = Identity(servers.cluster, Role.SERVER, server.name).dns_name
    channel = open_channel(server.api, expected, TlsFiles(directory))
    with pytest.raises(aio.AioRpcError) as refused:
        await RegistryStub(channel).Status(registry_pb2.StatusRequest(), timeout=5)
    error = wrap(refused.value, server.name, sent=False)
    assert isinstance(error, NotConnected)
    assert "authority" in str(error)
    await channel.close()


async def test_health_and_metrics(servers: LocalServers) -> None:
    name = await servers.leader()
    assert (await servers.http(name, "/livez"))[0] == 200
    assert (await servers.http(name, "/readyz"))[0] == 200
    status, text = await servers.http(name, "/metrics")
    assert status == 200
    assert "tenure_server_leader 1.0" in text
    for figure in (
        "term",
        "commit_index",
        "applied_index",
        "lag_entries",
        "log_bytes",
        "snapshot_failures",
        "agents",
        "hosts",
    ):
        assert f"tenure_server_{figure} " in text
    assert "tenure_store_commit_seconds_bucket" in text
    assert "tenure_loop_lag_seconds" in text
