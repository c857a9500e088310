"""`tenure._remote` against gRPC servers of this process: one call, one id, until the deadline."""

import asyncio
import dataclasses
import socket
import time
from types import SimpleNamespace
from typing import Any

import grpc
import msgspec
import pytest
from cutting_proxy import CuttingProxy
from grpc import aio
from sdk_cluster import Calls, FakeCluster, error, silent, value
from sdk_remote import AGENT, call, client

from tenure import errors
from tenure._remote import Remote, calls
from tenure._remote.calls import Attempt
from tenure._remote.routes import Routes
from tenure_api import identity
from tenure_proto.v1 import calls_pb2, common_pb2, registry_pb2


def ids(calls: Calls) -> set[tuple[str, int, float]]:
    return {(one.client_id, one.key, one.born) for one in calls.seen}


async def test_a_call_goes_straight_to_the_host(cluster: FakeCluster) -> None:
    """The route comes from a server; the call carries its id, born at the cluster's time."""
    host = await cluster.host("host-0", value(3))
    await cluster.place(AGENT, host)
    async with client(cluster) as remote:
        assert await call(remote) == 3
        assert await call(remote) == 3
    first, second = host.seen
    assert (first.agent, first.method, msgspec.msgpack.decode(first.arguments)) == (AGENT, "increment", {"by": 2})
    assert (first.key, second.key, first.born) == (1, 2, 5.0)
    assert first.client_id == second.client_id
    assert 0 < first.timeout_ms <= 10_000
    assert cluster.server.seen == []


async def test_many_calls_share_messages(cluster: FakeCluster) -> None:
    """A hundred calls at once are a few messages."""
    host = await cluster.host("host-0", value(3))
    await cluster.place(AGENT, host)
    async with client(cluster) as remote:
        await call(remote)
        assert await asyncio.gather(*(call(remote) for _ in range(100))) == [3] * 100
    assert host.batches < 30


async def test_a_lost_stream_repeats_the_same_id(cluster: FakeCluster) -> None:
    """The host went away under the call: the same id is sent again."""
    host = await cluster.host("host-0", value(3))
    host.drop = True
    await cluster.place(AGENT, host)
    async with client(cluster) as remote:
        assert await call(remote) == 3
    assert len(host.seen) == 2
    assert len(ids(host)) == 1


async def test_an_operation_on_an_agent_is_repeated_under_its_id(cluster: FakeCluster) -> None:
    """A redrive that is sent twice takes effect once: the host recognises the id (protocol 3, external clients)."""
    host = await cluster.host("host-0", value({"dropped": 2}))
    host.drop = True
    await cluster.place(AGENT, host)
    async with client(cluster) as remote:
        assert await remote.control(AGENT, "dlq.drop", {"id": "*"}) == {"dropped": 2}
    first, second = host.seen
    assert (first.kind, first.method) == (calls_pb2.CALL_KIND_CONTROL, "dlq.drop")
    assert msgspec.msgpack.decode(second.arguments) == {"id": "*"}
    assert len(ids(host)) == 1


async def test_an_operation_whose_outcome_is_not_known_says_so(cluster: FakeCluster) -> None:
    """Unlike one that only looks, it may have changed something (DESIGN.md, invariant 5)."""
    host = await cluster.host("host-0", silent)
    await cluster.place(AGENT, host)
    async with client(cluster) as remote:
        with pytest.raises(errors.CallError) as caught:
            await remote.control(AGENT, "skip", {}, timeout_s=1.0)
        with pytest.raises(errors.CallError) as looking:
            await remote.control(AGENT, "dlq.list", {}, timeout_s=1.0)
    assert (caught.value.outcome, looking.value.outcome) == ("unknown", "not_applied")
    assert len(host.seen) == 2


async def test_a_frozen_host_is_left_when_the_route_changes(cluster: FakeCluster) -> None:
    """No answer, no RST: the long poll tells of the next epoch, and the same id goes there at once."""
    frozen, other = await cluster.host("host-0", silent), await cluster.host("host-1", value(3, epoch=2))
    await cluster.place(AGENT, frozen)
    async with client(cluster) as remote:
        calling = asyncio.create_task(call(remote))
        await frozen.came.wait()
        start = time.monotonic()
        await cluster.place(AGENT, other, epoch=2)
        assert await calling == 3
        assert time.monotonic() - start < 2
    assert ids(frozen) == ids(other)
    assert len(other.seen) == 1


async def test_a_host_that_answers_others_is_busy_and_not_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked where else the agent may be, however long the answer takes."""
    monkeypatch.setattr(calls, "PATIENCE_S", 0.01)
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[calls_pb2.Reply] = loop.create_future()
    looks = 0

    class Busy:
        waiting = 1

        @property
        def heard(self) -> float:
            nonlocal looks
            looks += 1
            if looks == 5:
                answer.set_result(calls_pb2.Reply(value=b"\x03"))
            return loop.time()

        def send(self, call: calls_pb2.Call) -> asyncio.Future[calls_pb2.Reply]:
            return answer

    async def peer_of(route: common_pb2.Route) -> Busy:
        return Busy()

    routes: Any = SimpleNamespace(known=lambda agent: common_pb2.Route(agent=agent, host="h", epoch=1))
    attempt = Attempt(calls_pb2.Call(agent=AGENT), routes, peer_of, loop.time() + 10)
    assert (await attempt.run()).value == b"\x03"
    assert looks == 5


async def test_a_frozen_server_keeps_no_call_waiting(cluster: FakeCluster) -> None:
    """It takes connections and never says a word; the other one is asked as well."""
    host = await cluster.host("host-0", value(3))
    await cluster.place(AGENT, host)
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        endpoint = dataclasses.replace(
            cluster.endpoint(), servers=(f"127.0.0.1:{frozen.getsockname()[1]}", cluster.api)
        )
        async with Remote(endpoint) as remote:
            assert await call(remote) == 3


async def test_an_agent_that_lost_its_host_is_followed_at_the_server_that_said_so(cluster: FakeCluster) -> None:
    """The other server is frozen: the news of the loss must not end the wait for the next holder there."""
    lost, other = await cluster.host("host-0", silent), await cluster.host("host-1", value(3, epoch=2))
    await cluster.place(AGENT, lost)
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        endpoint = dataclasses.replace(
            cluster.endpoint(), servers=(cluster.api, f"127.0.0.1:{frozen.getsockname()[1]}")
        )
        async with Remote(endpoint) as remote:
            calling = asyncio.create_task(call(remote))
            await lost.came.wait()
            await cluster.registry.asked.wait()
            cluster.registry.asked.clear()
            await cluster.registry.move(common_pb2.Route(agent=AGENT, uid="7", epoch=1, summary="Failing over"))
            await cluster.registry.asked.wait()
            await cluster.place(AGENT, other, epoch=2)
            assert await calling == 3
    assert cluster.registry.polls[1] < cluster.registry.polls[0], "the rest of the same poll, not the next one"


async def test_moved_says_where(cluster: FakeCluster) -> None:
    """The old host knows better than the client."""
    other = await cluster.host("host-1", value(3, epoch=2))
    old = await cluster.host("host-0", error("Moved", moved_to=cluster.route(AGENT, other, 2)))
    await cluster.place(AGENT, old)
    async with client(cluster) as remote:
        assert await call(remote) == 3
        assert await call(remote) == 3
    assert (len(old.seen), len(other.seen)) == (1, 2)


@pytest.mark.parametrize("code", ["NotReady", "Fenced", "Busy", "NoQuorum"])
async def test_transient_answers_are_repeated(cluster: FakeCluster, code: str) -> None:
    """Until the host is ready, under one id."""
    host = await cluster.host("host-0", error(code), error(code, unknown=True), value(3))
    await cluster.place(AGENT, host)
    async with client(cluster) as remote:
        assert await call(remote) == 3
    assert (len(host.seen), len(ids(host))) == (3, 1)


async def test_final_answers_end_the_call(cluster: FakeCluster) -> None:
    """The error is that of the host, at once."""
    host = await cluster.host("host-0", error("ActionFailed"))
    await cluster.place(AGENT, host)
    async with client(cluster) as remote:
        with pytest.raises(errors.ActionFailed, match="it is ActionFailed") as caught:
            await call(remote)
    assert (caught.value.outcome, caught.value.agent, len(host.seen)) == ("not_applied", AGENT, 1)


@pytest.mark.parametrize(
    ("answer", "kind", "outcome"),
    [
        (silent, errors.DeadlineExceeded, "unknown"),
        (error("NotReady"), errors.NotReady, "not_applied"),
        (error("Fenced", unknown=True), errors.Fenced, "unknown"),
    ],
)
async def test_the_deadline_says_what_is_known(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, answer: Any, kind: Any, outcome: str
) -> None:
    """Invariant 5: an outcome is known, or said to be unknown; nothing waits for ever."""
    # One send, answered or not: a second one that is under way at the deadline would rightly be unknown.
    monkeypatch.setattr(Attempt, "_lengthen", lambda _: 60.0)
    host = await cluster.host("host-0", answer)
    await cluster.place(AGENT, host)
    async with client(cluster) as remote:
        with pytest.raises(kind) as caught:
            await call(remote, timeout_s=1.0)
    assert caught.value.outcome == outcome


async def test_the_deadline_says_that_the_host_is_silent(cluster: FakeCluster) -> None:
    """A refused connection tells nobody what is being done about it; the servers know."""
    route = common_pb2.Route(agent=AGENT, uid="7", host="host-0", address="127.0.0.1:1", epoch=1)
    route.standing, route.summary = "NodeUnavailable", "Starting on node-0"
    await cluster.registry.move(route)
    async with client(cluster) as remote:
        with pytest.raises(errors.Unavailable, match="its host host-0 is silent, and another takes the agent over"):
            await call(remote, timeout_s=1.0)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [("DeadlineExceeded", "unknown"), ("PermissionDenied", "unknown"), ("ActionFailed", "not_applied")],
)
async def test_a_refusal_speaks_for_its_own_send_only(cluster: FakeCluster, code: str, outcome: str) -> None:
    """Protocol additions 11: an earlier send of the same call id may have been applied. Only a host that has looked for
    the id among the marks can say that it was not.
    """
    host = await cluster.host("host-0", error("Fenced", unknown=True), error(code))
    await cluster.place(AGENT, host)
    async with client(cluster) as remote:
        with pytest.raises(errors.CallError) as caught:
            await call(remote)
    assert (caught.value.code, caught.value.outcome, len(host.seen)) == (code, outcome, 2)


@pytest.mark.parametrize("frames", [False, True])
async def test_a_host_that_takes_the_connection_and_never_shakes_hands_did_nothing(
    cluster: FakeCluster, frames: bool
) -> None:
    """Nothing was said to it, and nothing will be once the call was given up (DESIGN.md, invariant 5)."""
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        address = f"127.0.0.1:{frozen.getsockname()[1]}"
        route = common_pb2.Route(
            agent=AGENT,
            uid="7",
            host="host-1",
            address=address,
            frames_address=address if frames else "",
            epoch=1,
            ready=True,
        )
        await cluster.registry.move(route)
        async with client(cluster) as remote:
            with pytest.raises(errors.CallError) as caught:
                await call(remote, timeout_s=0.5)
    assert caught.value.outcome == "not_applied"


async def test_a_call_that_was_given_up_before_there_was_a_connection_never_leaves(cluster: FakeCluster) -> None:
    """The caller was told that it was not applied, so it must not be applied later (DESIGN.md, invariant 5)."""
    host = await cluster.host("host-0", value(3))
    target = int(host.address.rpartition(":")[2])
    async with CuttingProxy(target) as proxy, client(cluster) as remote:
        proxy.hold_answers()
        route = common_pb2.Route(
            agent=AGENT, uid="7", host="host-0", address=f"127.0.0.1:{proxy.port}", epoch=1, ready=True
        )
        await cluster.registry.move(route)
        with pytest.raises(errors.CallError) as caught:
            await call(remote, timeout_s=0.3)
        proxy.pass_answers()
        assert await call(remote) == 3
    assert caught.value.outcome == "not_applied"
    assert [one.key for one in host.seen] == [2]


async def test_a_host_that_was_never_reached_did_nothing(cluster: FakeCluster) -> None:
    """Refused connections are "not applied"; so is a certificate that is not that host's."""
    host = await cluster.host("host-0", value(3))
    gone = common_pb2.Route(agent=AGENT, uid="7", host="host-1", address="127.0.0.1:1", epoch=1, ready=True)
    await cluster.registry.move(gone)
    async with client(cluster) as remote:
        with pytest.raises(errors.Unavailable) as caught:
            await call(remote, timeout_s=1.5)
        assert caught.value.outcome == "not_applied"
        posing = common_pb2.Route(agent="shop/d", uid="8", host="host-1", address=host.address, epoch=1, ready=True)
        await cluster.registry.move(posing)
        with pytest.raises(errors.Unavailable) as caught:
            await call(remote, timeout_s=1.0, agent="shop/d")
    assert host.seen == []


async def test_no_agent(cluster: FakeCluster) -> None:
    """Not found at once; an agent that goes while a call is open leaves that call's fate unknown."""
    host = await cluster.host("host-0", silent)
    async with client(cluster) as remote:
        with pytest.raises(errors.NotFound) as caught:
            await call(remote)
        assert caught.value.outcome == "not_applied"
        await cluster.place(AGENT, host)
        calling = asyncio.create_task(call(remote))
        await host.came.wait()
        await cluster.registry.delete(AGENT)
        with pytest.raises(errors.NotFound) as caught:
            await calling
        assert caught.value.outcome == "unknown"


async def test_a_call_that_its_host_refuses_after_a_server_knew_that_the_agent_is_gone_is_not_applied() -> None:
    """A host that does not hold the agent any more waits a moment for news of it; then every send is answered so
    (protocol 3, errors [client_memory]).
    """
    loop = asyncio.get_running_loop()
    refusal = error("NotReady", retryable=True)(calls_pb2.Call())

    class Host:
        heard, opened, waiting = 0.0, True, 1
        answer: asyncio.Future[calls_pb2.Reply] = loop.create_future()

        def send(self, call: calls_pb2.Call) -> asyncio.Future[calls_pb2.Reply]:
            return self.answer

    host, route = Host(), common_pb2.Route(agent=AGENT, uid="7", host="host-0", epoch=1)

    async def resolve(request: registry_pb2.ResolveRequest, _: float) -> registry_pb2.ResolveResponse:
        if not request.known_epoch:
            return registry_pb2.ResolveResponse(route=route)
        loop.call_later(0.05, host.answer.set_result, refusal)
        gone = common_pb2.Error(code="NotFound", message="none", outcome=common_pb2.OUTCOME_NOT_APPLIED)
        return registry_pb2.ResolveResponse(error=gone)

    async def peer_of(_: common_pb2.Route) -> Host:
        return host

    asked = calls_pb2.Call(agent=AGENT, kind=calls_pb2.CALL_KIND_ACTION)
    with pytest.raises(errors.NotFound) as caught:
        await Attempt(asked, Routes(resolve), peer_of, loop.time() + 10).run()
    assert caught.value.outcome == "not_applied"


async def test_an_agent_that_is_gone_is_not_found_though_its_host_cannot_tell(cluster: FakeCluster) -> None:
    """A host's copy of the registry may be old: a server's word ends the call."""
    host = await cluster.host("host-0", value(3), error("NotReady", retryable=True))
    await cluster.place(AGENT, host)
    async with client(cluster) as remote:
        await call(remote)
        await cluster.registry.delete(AGENT)
        with pytest.raises(errors.NotFound):
            await call(remote)


async def test_what_is_going_can_be_created_again_soon(cluster: FakeCluster) -> None:
    """The registry's own word for it is in no catalogue of the callers'."""
    cluster.registry.refuse = [common_pb2.Error(code="Deleting", message="it is being deleted; apply again")]
    async with client(cluster) as remote:
        with pytest.raises(errors.NotReady, match="apply again"):
            await remote.create(AGENT, "Counter", pool="default", state=b"", config=b"")


async def test_closing_ends_the_calls_that_wait(cluster: FakeCluster) -> None:
    """With Unavailable; the fate of a call that was sent is unknown."""
    await cluster.registry.move(common_pb2.Route(agent=AGENT, uid="7", summary="Waiting for a host"))
    remote = Remote(cluster.endpoint())
    calling = asyncio.create_task(call(remote))
    await cluster.registry.asked.wait()
    await remote.close()
    with pytest.raises(errors.Unavailable, match="closed"):
        await calling


async def test_an_agent_without_a_host_is_waited_for(cluster: FakeCluster) -> None:
    """The call goes out when the agent is placed."""
    await cluster.registry.move(common_pb2.Route(agent=AGENT, uid="7", summary="Waiting for a host"))
    host = await cluster.host("host-0", value(3))
    async with client(cluster) as remote:
        with pytest.raises(errors.NotReady, match="Waiting for a host"):
            await call(remote, timeout_s=1.5)
        calling = asyncio.create_task(call(remote))
        await asyncio.sleep(0)
        await cluster.place(AGENT, host)
        assert await calling == 3


async def test_proxied_calls_go_through_a_server(cluster: FakeCluster) -> None:
    """Behind a port-forward hosts have no address that could be reached."""
    host = await cluster.host("host-0", value(1))
    cluster.server.answers = [value(3)]
    await cluster.place(AGENT, host)
    async with client(cluster, proxied=True) as remote:
        assert await call(remote) == 3
        cluster.server.drop = True
        assert await call(remote) == 3
    assert host.seen == []


async def test_a_stranger_is_refused(cluster: FakeCluster) -> None:
    """A certificate of another cluster gets no answer, within the time given."""
    stranger = cluster.endpoint(authority=identity.make_authority("main.shop"))
    async with Remote(stranger) as remote:
        with pytest.raises((errors.Unavailable, errors.Unauthenticated)):
            await remote.status(timeout_s=1)


async def test_what_is_left_of_the_time_hides_no_reason(cluster: FakeCluster) -> None:
    """The last attempt may have a few milliseconds only: that these were too few is not what the user is told."""
    foreign = cluster.endpoint(authority=identity.make_authority("main.shop"))
    async with Remote(foreign) as remote:

        async def slow_at_last(stub: object, seconds: float) -> object:
            code = grpc.StatusCode.UNAVAILABLE if len(asked) < 2 else grpc.StatusCode.DEADLINE_EXCEEDED
            asked.append(seconds)
            raise aio.AioRpcError(code, aio.Metadata(), aio.Metadata(), details="nobody listens there")

        asked: list[float] = []
        with pytest.raises(errors.Unavailable, match="nobody listens there"):
            await remote._ask("status", slow_at_last, timeout_s=1.0)
    assert len(asked) > 2
    assert asked[-1] < asked[0]
