"""Explain, dry run, resources and quarantine of three real servers; a follower answers from the same rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import pytest
from fake_host import FakeHost
from grpc import aio
from local_servers import LocalServers

from tenure_proto.v1 import registry_pb2
from tenure_proto.v1.registry_pb2_grpc import RegistryStub


def spec(agent_id: str = "", **changes: object) -> registry_pb2.AgentSpec:
    return registry_pb2.AgentSpec(
        **{"id": agent_id, "class": "Counter", "pool": "default", "critical": True, **changes}
    )  # type: ignore[arg-type]


async def create(registry: RegistryStub, agent_id: str, **changes: object) -> None:
    request = registry_pb2.ApplyAgentsRequest(
        agents=[spec(agent_id, **changes)], managed_by=registry_pb2.MANAGED_BY_API
    )
    assert (await registry.ApplyAgents(request)).results[0].outcome == "created"


async def remove(registry: RegistryStub, agent_id: str) -> None:
    await registry.DeleteAgents(
        registry_pb2.DeleteAgentsRequest(ids=[agent_id], managed_by=registry_pb2.MANAGED_BY_API)
    )


async def test_an_agent_that_waits_is_explained_by_every_server(
    servers: LocalServers, registry: RegistryStub, fresh: Callable[[], str]
) -> None:
    """What it waits for, what each host lacks, the next step."""
    name = fresh()
    async with FakeHost(servers, "explained") as host:
        await create(registry, name, requires=["unheard-of"])
        for server in servers.servers:
            told = await servers.registry(name=server).Explain(registry_pb2.ExplainRequest(agent=name))
            assert told.answered_by == server
            verdict = next(each for each in told.verdicts if each.host == host.name)
            assert (verdict.rejected, verdict.why) == ("capabilities", "without capability unheard-of")
        async with asyncio.timeout(10):
            while told.reason != "CapabilityMissing":
                told = await registry.Explain(registry_pb2.ExplainRequest(agent=name))
        assert told.summary == "Waiting: no host has capability unheard-of"
        assert told.next_action
    await remove(registry, name)


async def test_an_agent_that_is_held_is_explained_with_its_history(
    servers: LocalServers, registry: RegistryStub, fresh: Callable[[], str]
) -> None:
    name = fresh()
    async with FakeHost(servers, "historic") as host:
        await create(registry, name)
        await host.until(lambda: any(row.spec.id == name and row.ready for row in host.mine.values()))
        told = await registry.Explain(registry_pb2.ExplainRequest(agent=name))
        assert (told.host, told.epoch, told.assigned_reason) == (host.name, 1, "Scheduled")
        assert told.explanation.startswith(host.name)
        assert told.since_wall > 0
        assert [(each.epoch, each.host, each.explanation) for each in told.decisions] == [
            (1, host.name, told.explanation)
        ]
        assert not told.verdicts
        listed = await registry.Decisions(registry_pb2.DecisionsRequest(host=host.name, limit=1))
        assert [(each.id, each.epoch) for each in listed.decisions] == [(name, 1)]
        await remove(registry, name)  # it goes when the host releases it


async def test_there_is_nothing_to_explain_of_what_is_not_there(registry: RegistryStub) -> None:
    told = await registry.Explain(registry_pb2.ExplainRequest(agent="shop/nobody"))
    assert told.error.code == "NotFound"
    assert "There is no agent shop/nobody" in told.error.message


async def test_a_dry_run_needs_no_row_and_leaves_none(servers: LocalServers, registry: RegistryStub) -> None:
    """The leader knows loads, and says so; another server does not, and says so too."""
    async with FakeHost(servers, "tried") as host:
        before = (await registry.Status(registry_pb2.StatusRequest())).revision
        known = set()
        for server in servers.servers:
            answer = await servers.registry(name=server).DryRun(registry_pb2.DryRunRequest(spec=spec()))
            verdict = next(each for each in answer.verdicts if each.host == host.name)
            assert verdict.fits
            assert answer.host
            known.add((server, answer.loads_known))
        leader = (await registry.Status(registry_pb2.StatusRequest())).leader
        assert known == {(server, server == leader) for server in servers.servers}
        after = await registry.DryRun(registry_pb2.DryRunRequest(spec=spec("shop/never", requires=["nothing-has-it"])))
        assert (after.host, after.reason) == ("", "CapabilityMissing")
        answer = await registry.Resolve(registry_pb2.ResolveRequest(agent="shop/never"))
        assert answer.error.code == "NotFound"
        assert before <= after.revision


async def test_a_dry_run_refuses_what_apply_would_refuse(registry: RegistryStub) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await registry.DryRun(registry_pb2.DryRunRequest(spec=spec("shop/x", strategy="Pack")))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "placement strategy 'Pack' is unknown" in (caught.value.details() or "")


async def test_resources_name_every_node(servers: LocalServers, registry: RegistryStub) -> None:
    async with FakeHost(servers, "resourceful") as host:
        found = await registry.Resources(registry_pb2.ResourcesRequest())
        node = next(each for each in found.nodes if each.node == f"node-of-{host.name}")
        assert (node.available, node.hosts, node.room.capacity_known) == (True, 1, False)
    found = await registry.Resources(registry_pb2.ResourcesRequest())
    node = next(each for each in found.nodes if each.node == f"node-of-{host.name}")
    assert (node.available, node.why) == (False, f"{host.name} ended (Released)")


async def test_a_quarantine_is_told_to_all_and_can_be_lifted(servers: LocalServers, registry: RegistryStub) -> None:
    async with FakeHost(servers, "sick") as host:

        def told() -> str | None:
            """What this host is told of itself; nothing before its watch has shown it its own row."""
            row = host.hosts.get(host.incarnation)
            return None if row is None else row.quarantined

        await registry.Quarantine(registry_pb2.QuarantineRequest(host=host.name, reason="disk"))
        await host.until(lambda: told() == "disk")
        answer = await registry.DryRun(registry_pb2.DryRunRequest(spec=spec()))
        assert next(each.rejected for each in answer.verdicts if each.host == host.name) == "quarantine"
        await registry.Quarantine(registry_pb2.QuarantineRequest(host=host.name))
        await host.until(lambda: told() == "")


async def test_a_host_that_is_not_there_cannot_be_quarantined(servers: LocalServers, registry: RegistryStub) -> None:
    async with FakeHost(servers, "neighbour"):
        with pytest.raises(aio.AioRpcError) as caught:
            await registry.Quarantine(registry_pb2.QuarantineRequest(host="neighbuor", reason="x"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "There is no host 'neighbuor' (did you mean 'neighbour'?)." in (caught.value.details() or "")


async def test_who_creates_an_agent_hears_where_calls_go(
    servers: LocalServers, registry: RegistryStub, fresh: Callable[[], str]
) -> None:
    """From every server, the leader or not: row and assignment are one entry, and the answer has the route. While the
    leader assigns others a new row waits behind them, and there is none: so each is asked until that is over.
    """
    async with FakeHost(servers, "routed"), asyncio.timeout(30):
        for server in servers.servers:
            routed = False
            while not routed:
                name = fresh()
                request = registry_pb2.ApplyAgentsRequest(agents=[spec(name)], managed_by=registry_pb2.MANAGED_BY_API)
                result = (await servers.registry(name=server).ApplyAgents(request)).results[0]
                row = (await registry.Lookup(registry_pb2.LookupRequest(agent=name))).agents[0]
                if routed := result.HasField("route"):
                    assert (result.route.agent, result.route.uid, result.route.epoch) == (name, row.uid, 1)
                    assert (result.route.host, row.epoch) == (row.host, 1)
                    assert result.route.address
                    assert result.route.frames_address == "127.0.0.1:2"
                await remove(registry, name)


async def test_an_agent_that_waits_has_no_route_in_the_answer(registry: RegistryStub, fresh: Callable[[], str]) -> None:
    """Whoever calls it asks, and waits."""
    name = fresh()
    request = registry_pb2.ApplyAgentsRequest(
        agents=[spec(name, requires=["unheard-of"])], managed_by=registry_pb2.MANAGED_BY_API
    )
    assert not (await registry.ApplyAgents(request)).results[0].HasField("route")
    await remove(registry, name)
