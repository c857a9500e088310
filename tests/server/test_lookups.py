"""Lookups of three real servers: by id with three different answers, by capability, node and labels; reservations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import pytest
from fake_host import FakeHost
from grpc import aio
from local_servers import LocalServers

from tenure_proto.v1 import hostlink_pb2, registry_pb2
from tenure_proto.v1.registry_pb2_grpc import RegistryStub
from tenured.core import commands as c
from tenured.core.agentspec import AgentSpec
from tenured.core.model import AgentClass, Pool
from tenured.core.registry import Registry
from tenured.server import rows


def spec(agent_id: str, **changes: object) -> registry_pb2.AgentSpec:
    return registry_pb2.AgentSpec(**{"id": agent_id, "class": "Counter", "pool": "default", **changes})  # type: ignore[arg-type]


class Roomy(FakeHost):
    """A host that says how much it has; agents of other tests go elsewhere."""

    def registration(self, **changes: object) -> hostlink_pb2.RegisterHost:
        return super().registration(pool="of-its-own", cpu_milli=1000, memory_bytes=1 << 30, **changes)


async def apply(registry: RegistryStub, *specs: registry_pb2.AgentSpec) -> None:
    request = registry_pb2.ApplyAgentsRequest(agents=specs, managed_by=registry_pb2.MANAGED_BY_API)
    answer = await registry.ApplyAgents(request)
    assert {row.outcome for row in answer.results} <= {"created", "unchanged"}


async def test_agents_are_found_by_id_capability_and_labels_on_every_server(
    servers: LocalServers, registry: RegistryStub, fresh: Callable[[], str]
) -> None:
    """REG-20, REG-23: the row that one server acknowledged is found at every other at once."""
    one, two = fresh(), fresh()
    await apply(
        registry,
        spec(one, capabilities=["ocr-lookup"], labels={"team": "lookup", "tier": "1"}),
        spec(two, capabilities=["ocr-lookup", "other"], labels={"team": "lookup"}),
    )
    for name in servers.servers:
        stub = servers.registry(name=name)

        async def ids(request: registry_pb2.LookupRequest, stub: RegistryStub = stub) -> list[str]:
            return [row.spec.id for row in (await stub.Lookup(request)).agents]

        assert await ids(registry_pb2.LookupRequest(agent=one)) == [one]
        assert await ids(registry_pb2.LookupRequest(capability="ocr-lookup")) == [one, two]
        assert await ids(registry_pb2.LookupRequest(labels={"team": "lookup", "tier": "1"})) == [one]
        assert await ids(registry_pb2.LookupRequest(capability="ocr-lookup", live=True)) == []
        page = await stub.Lookup(registry_pb2.LookupRequest(labels={"team": "lookup"}, limit=1))
        assert page.more
        rest = registry_pb2.LookupRequest(labels={"team": "lookup"}, after_uid=page.agents[0].uid)
        assert await ids(rest) == [two]


async def test_not_found_is_said_with_a_next_step(registry: RegistryStub) -> None:
    answer = await registry.Lookup(registry_pb2.LookupRequest(agent="shop/nobody"))
    assert (answer.error.code, answer.error.message) == ("NotFound", "There is no agent shop/nobody.")
    assert answer.error.next_step
    assert not answer.agents


async def test_a_lookup_for_two_things_is_refused(registry: RegistryStub) -> None:
    with pytest.raises(aio.AioRpcError, match="exactly one") as refused:
        await registry.Lookup(registry_pb2.LookupRequest(agent="shop/a", node="n"))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_room_is_reserved_once_and_given_back(servers: LocalServers, registry: RegistryStub) -> None:
    """RES-07: an id of the caller's; two concurrent reservations cannot oversubscribe a host."""
    async with Roomy(servers, "roomy"):
        asks = [registry_pb2.ReserveRequest(id=f"room-{n}", host="roomy", cpu_milli=600, seconds=60) for n in range(2)]
        answers = await asyncio.gather(*(registry.Reserve(ask) for ask in asks), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, aio.AioRpcError)]
        assert len(refused) == 1
        assert "NoRoom: roomy has 600m of 1000m CPU in use" in (refused[0].details() or "")
        other = answers.index(refused[0])
        kept = registry_pb2.UnreserveRequest(id=asks[1 - other].id)
        assert (await registry.Reserve(asks[1 - other])).until > 0  # repeated: the same
        await registry.Unreserve(kept)
        assert (await registry.Reserve(asks[other])).until > 0


def test_a_route_says_which_of_the_three_it_is() -> None:
    """REG-18, REG-22: unavailable and on a lost node are two answers, and neither is "not found"."""
    from tenured.core import machine

    registry = Registry()
    steps: list[c.Command] = [
        c.ApplyPools(pools=(Pool(name="default"),)),
        c.RegisterHost(name="h", incarnation="h.1", pool="default", node="n"),
        c.ReportHost(incarnation="h.1", ready=True, classes=(AgentClass(name="Counter"),)),
        c.ApplyAgents(agents=(AgentSpec(id="shop/a", class_name="Counter", critical=False),), managed_by="API"),
    ]
    for index, step in enumerate(steps, 1):
        machine.apply(registry, index, step)
    uid = registry.by_id["shop/a"]

    def standing(step: c.Command) -> str:
        machine.apply(registry, registry.index + 1, step)
        return rows.route(registry, registry.agents[uid], 0.0).standing

    assign = c.Assign(items=(c.Assignment(uid=uid, epoch=0, incarnation="h.1", reason="Scheduled"),))
    assert standing(assign) == ""
    assert standing(c.ClassifyHosts(items=(c.HostClass("h.1", suspect=True),))) == "NodeUnavailable"
    assert standing(c.ClassifyHosts(items=(c.HostClass("h.1"),))) == ""
    assert standing(c.ExpireHost(incarnation="h.1")) == "NodeUnavailable"
    mark = c.UnavailableItem(uid=uid, epoch=1, reason="NodeLost", message="it waits for n")
    assert standing(c.MarkUnavailable(items=(mark,))) == "AgentUnavailable"
    assert standing(c.MarkAvailable(uids=(uid,))) == "NodeUnavailable"
