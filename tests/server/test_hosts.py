"""The link to hosts, over three real servers: registration, leases, assignments, and the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from fake_host import FakeHost
from local_servers import LocalServers, until

from tenure_proto.v1 import common_pb2, hostlink_pb2, registry_pb2
from tenure_proto.v1.registry_pb2_grpc import RegistryStub

OK = hostlink_pb2.STORE_VERDICT_OK


def spec(agent_id: str) -> registry_pb2.AgentSpec:
    return registry_pb2.AgentSpec(**{"id": agent_id, "class": "Counter", "pool": "default", "critical": True})  # type: ignore[arg-type]


async def create(registry: RegistryStub, *names: str) -> list[str]:
    request = registry_pb2.ApplyAgentsRequest(
        agents=[spec(name) for name in names], managed_by=registry_pb2.MANAGED_BY_API
    )
    return [row.uid for row in (await registry.ApplyAgents(request)).results]


async def delete(registry: RegistryStub, *names: str) -> None:
    await registry.DeleteAgents(registry_pb2.DeleteAgentsRequest(ids=names, managed_by=registry_pb2.MANAGED_BY_API))


async def test_a_host_may_register_only_under_the_name_in_its_certificate(servers: LocalServers) -> None:
    async with FakeHost(servers, "honest-host") as host:
        result = await host.command(register=host.registration(host="another-host", incarnation="i-1"))
        assert result.error.code == "PermissionDenied"
        assert "certificate is of host honest-host; it may not register as another-host" in result.error.message
        async with FakeHost(servers, "other-host") as other:
            stolen = hostlink_pb2.ReleaseHost(incarnation=host.incarnation)
            result = await other.command(release_host=stolen)
            assert result.error.code == "PermissionDenied"


async def test_heartbeats_are_acknowledged_by_the_leader(servers: LocalServers) -> None:
    async with FakeHost(servers, "beating-host") as host:

        async def acknowledged() -> bool:
            return len(host.acks) >= 3

        await until(acknowledged, 5)
        assert {ack.incarnation for ack in host.acks} == {host.incarnation}
        assert not any(ack.gone for ack in host.acks)
        assert [ack.sent_at_ns for ack in host.acks] == sorted(ack.sent_at_ns for ack in host.acks)
        assert host.acks[-1].cluster_time > 0


async def test_an_agent_is_placed_sealed_and_ready(
    servers: LocalServers, registry: RegistryStub, fresh: Callable[[], str]
) -> None:
    name = fresh()
    async with FakeHost(servers, "placing-host") as host:
        (uid,) = await create(registry, name)
        await host.until(lambda: uid in host.mine and host.mine[uid].ready)
        assert host.mine[uid].epoch == 1
        found = await registry.Resolve(registry_pb2.ResolveRequest(agent=name, wait_ms=2000))
        assert (found.route.host, found.route.epoch) == ("placing-host", 1)
        await delete(registry, name)
        await host.until(lambda: uid in host.mine and host.mine[uid].deleting)
        assert host.mine[uid].phase == "Terminating"
        stopped = hostlink_pb2.AgentReport(uid=uid, epoch=1, stopped=True)
        await host.command(agent_reports=hostlink_pb2.AgentReports(incarnation=host.incarnation, reports=[stopped]))
        await host.until(lambda: uid not in host.mine)


async def test_two_hundred_agents_in_one_apply_are_ready_within_two_seconds(
    servers: LocalServers, registry: RegistryStub, fresh: Callable[[], str]
) -> None:
    names = [fresh() for _ in range(200)]
    async with FakeHost(servers, "bulk-a") as left, FakeHost(servers, "bulk-b") as right:
        begun = time.perf_counter()
        counting = asyncio.ensure_future(all_ready(servers, names))
        await create(registry, *names)
        async with asyncio.timeout(20):
            await counting
        took = time.perf_counter() - begun
        assert min(len(left.mine), len(right.mine)) >= 80
    await delete(registry, *names)
    assert took <= 2.0, f"{took:.2f} s"


async def all_ready(servers: LocalServers, names: list[str]) -> None:
    """Follow the registry until all of them are Ready."""
    missing = set(names)
    stream = servers.registry().Watch(registry_pb2.WatchRequest(kinds=["agents"]))
    async for batch in stream:
        missing -= {row.spec.id for row in batch.agents if row.ready}
        if not missing:
            break
    stream.cancel()


async def test_a_silent_host_loses_its_agents_to_another(
    servers: LocalServers, registry: RegistryStub, fresh: Callable[[], str]
) -> None:
    name = fresh()
    async with FakeHost(servers, "survivor", activates=True) as survivor:
        async with FakeHost(servers, "victim") as victim:
            drained = survivor.report()
            drained.draining = True  # so that the victim gets it
            await survivor.command(report_host=drained)
            (uid,) = await create(registry, name)
            await victim.until(lambda: uid in victim.mine and victim.mine[uid].ready)
            await survivor.command(report_host=survivor.report())
            await victim.vanish()
            begun = time.perf_counter()
            await survivor.until(lambda: uid in survivor.mine and survivor.mine[uid].ready, 15)
            took = time.perf_counter() - begun
        row = survivor.mine[uid]
        assert (row.epoch, row.last_failover.from_host, row.last_failover.to_host) == (2, "victim", "survivor")
        assert took >= 1.0, "the lease had not ended yet"  # ttl 1 s + margin 0.2 s, less the age of the last heartbeat
    await delete(registry, name)


async def test_an_expired_incarnation_never_comes_back(servers: LocalServers) -> None:
    async with FakeHost(servers, "once") as host:
        await host.command(release_host=hostlink_pb2.ReleaseHost(incarnation=host.incarnation))

        async def told() -> bool:
            return any(ack.gone for ack in host.acks)

        await until(told, 5)
        result = await host.command(register=host.registration(version="changed"))
        assert result.ok or result.error.code == "IncarnationEnded"  # the first answer may be remembered
        assert not await alive(servers, host.incarnation)


async def alive(servers: LocalServers, incarnation: str) -> bool:
    stream = servers.registry().Watch(registry_pb2.WatchRequest(kinds=["hosts"]))
    found = False
    async for batch in stream:
        found |= any(host.incarnation == incarnation and not host.expired for host in batch.hosts)
        if batch.synced:
            break
    stream.cancel()
    return found


async def test_what_is_written_is_read_back_from_each_server(
    servers: LocalServers, registry: RegistryStub, fresh: Callable[[], str]
) -> None:
    name = fresh()
    async with FakeHost(servers, "writing-host", activates=False) as host:
        (uid,) = await create(registry, name)
        view = host.links.view
        version = common_pb2.Version(epoch=1, seq=1)
        for server in servers.servers:
            sealing = host.sealing(view, [hostlink_pb2.SealItem(uid=uid, epoch=1)])
            assert (await host.ask(server, seal=sealing)).sealed.items[0].verdict == OK
            item = hostlink_pb2.WriteItem(uid=uid, version=version, puts={"state": b"kept"})
            written = await host.ask(server, write=host.writing(view, [item]))
            assert written.written.items[0].verdict == OK
            records = (await host.ask(server, read=host.reading(view, [uid]))).records
            assert dict(records.items[0].entries) == {"state": b"kept"}
            late = host.sealing(view, [hostlink_pb2.SealItem(uid=uid, epoch=0)])
            fenced = (await host.ask(server, seal=late)).sealed.items[0]
            assert (fenced.verdict, fenced.sealed) == (hostlink_pb2.STORE_VERDICT_FENCED, 1)


async def test_a_host_that_was_broken_into_seals_writes_and_reads_nothing_of_others(
    servers: LocalServers, registry: RegistryStub, fresh: Callable[[], str]
) -> None:
    """protocol 4 [seal_assigned]: a genuine certificate, and an epoch, a uid or an incarnation that is another's."""
    name = fresh()
    async with FakeHost(servers, "holding-host", activates=False) as holder:
        (uid,) = await create(registry, name)
        await holder.until(lambda: uid in holder.mine)
        view = holder.links.view
        async with FakeHost(servers, "broken-host", activates=False) as thief:
            for server in servers.servers:
                for epoch, verdict in ((1, "FENCED"), (2, "BEHIND")):
                    items = [hostlink_pb2.SealItem(uid=uid, epoch=epoch)]
                    for request in (thief.sealing(view, items), holder.sealing(view, items)):
                        answer = (await thief.ask(server, seal=request)).sealed.items[0]
                        assert answer.verdict == hostlink_pb2.StoreVerdict.Value(f"STORE_VERDICT_{verdict}")
                    item = hostlink_pb2.WriteItem(
                        uid=uid, version=common_pb2.Version(epoch=epoch, seq=1), puts={"state": b"forged"}
                    )
                    answer = (await thief.ask(server, write=holder.writing(view, [item]))).written.items[0]
                    assert answer.verdict == hostlink_pb2.StoreVerdict.Value(f"STORE_VERDICT_{verdict}")
                refused = await thief.ask(server, read=holder.reading(view, [uid]))
                assert refused.result.error.code == "FENCED"
        for server in servers.servers:  # the holder is not disturbed, and nothing was sealed against it
            answer = await holder.ask(server, seal=holder.sealing(view, [hostlink_pb2.SealItem(uid=uid, epoch=1)]))
            assert answer.sealed.items[0].verdict == OK
            assert answer.sealed.items[0].version == common_pb2.Version()


async def test_requests_of_another_view_or_of_unknown_agents_are_refused(
    servers: LocalServers, registry: RegistryStub, fresh: Callable[[], str]
) -> None:
    """protocol 2: [view], [uid]."""
    name = fresh()
    async with FakeHost(servers, "stale-host", activates=False) as host:
        (uid,) = await create(registry, name)
        server = next(iter(servers.servers))
        view = host.links.view

        async def verdict(view: int, uid: str) -> int:
            request = host.sealing(view, [hostlink_pb2.SealItem(uid=uid, epoch=1)])
            return (await host.ask(server, seal=request)).sealed.items[0].verdict

        assert await verdict(view + 1, uid) == hostlink_pb2.STORE_VERDICT_OTHER_VIEW
        assert await verdict(view, "999999999") == hostlink_pb2.STORE_VERDICT_BEHIND
        await host.until(lambda: uid in host.mine)  # what is placed nowhere yet goes at once
        await delete(registry, name)
        await host.until(lambda: uid in host.mine and host.mine[uid].deleting)
        stopped = hostlink_pb2.AgentReport(uid=uid, epoch=1, stopped=True)
        await host.command(agent_reports=hostlink_pb2.AgentReports(incarnation=host.incarnation, reports=[stopped]))
        await host.until(lambda: uid not in host.mine)

        async def gone() -> bool:
            return await verdict(view, uid) == hostlink_pb2.STORE_VERDICT_DELETED

        await until(gone, 5)
        refused = await host.ask(server, read=host.reading(view, [uid]))
        assert refused.result.error.code == "DELETED"
        await host.command(release_host=hostlink_pb2.ReleaseHost(incarnation=host.incarnation))
