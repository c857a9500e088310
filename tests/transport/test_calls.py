"""Calls: many in one message, each answered on its own, and what a broken connection leaves known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from tenure_api.identity import Identity, Role
from tenure_proto.v1.calls_pb2 import Call, LogBatch, LogLine, LogsRequest, Reply
from tenure_proto.v1.common_pb2 import OUTCOME_UNKNOWN
from tenured.transport import calls, roles
from tenured.transport.errors import LinkLost, NotConnected, PeerRefused, TimedOut
from tenured.transport.serving import Listener
from tenured.transport.tls import TlsFiles

CLUSTER = "demo.shop"
HOST = Identity(CLUSTER, Role.HOST, "h0").dns_name


class Handler(calls.InTasks):
    """Answers with the key and who asked; `wait` answers when told, `fail` raises."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.arrived = asyncio.Event()

    async def call(self, peer: Identity, call: Call, /) -> Reply:
        if call.method == "wait":
            self.arrived.set()
            await self.go.wait()
        if call.method == "fail":
            raise ValueError("a defect")
        return Reply(value=str(call.key).encode(), host=peer.uri)

    async def logs(self, _: Identity, request: LogsRequest, /) -> AsyncIterator[LogBatch]:
        for number in range(3):
            yield LogBatch(lines=[LogLine(agent=request.agent, text=str(number))])


Served = tuple[Handler, Listener, calls.CallsClient]


@pytest.fixture
async def served(certificates: Callable[..., TlsFiles]) -> AsyncIterator[Served]:
    handler = Handler()
    listener = Listener(certificates("host", "h0"), CLUSTER, calls.methods(handler), roles.HOST_CALLS)
    await listener.start("127.0.0.1", 0)
    client = calls.CallsClient(f"127.0.0.1:{listener.port}", HOST, certificates("client", "me"))
    yield handler, listener, client
    handler.go.set()
    await client.close()
    await listener.stop()


async def test_many_calls_share_a_stream_and_each_gets_its_reply(served: Served) -> None:
    client = served[2]
    replies = await asyncio.gather(*(client.call(Call(seq=7, key=key), 5) for key in range(500)))
    assert [reply.value for reply in replies] == [str(key).encode() for key in range(500)]
    assert {reply.seq for reply in replies} == {7}
    assert replies[0].host == "spiffe://demo.shop/client/me"


async def test_a_slow_call_delays_no_other(served: Served) -> None:
    handler, _, client = served
    slow = asyncio.ensure_future(client.call(Call(method="wait", key=1), 5))
    assert (await client.call(Call(key=2), 5)).value == b"2"
    assert not slow.done()
    handler.go.set()
    assert (await slow).value == b"1"


async def test_a_defect_in_one_call_is_its_own_reply(served: Served) -> None:
    client = served[2]
    reply = await client.call(Call(method="fail"), 5)
    assert (reply.error.code, reply.error.outcome) == ("Internal", OUTCOME_UNKNOWN)
    assert (await client.call(Call(key=3), 5)).value == b"3"


async def test_no_answer_in_time_is_unknown(served: Served) -> None:
    with pytest.raises(TimedOut):
        await served[2].call(Call(method="wait"), 0.05)


async def test_a_connection_that_breaks_leaves_its_calls_unknown(served: Served) -> None:
    handler, listener, client = served
    waiting = asyncio.ensure_future(client.call(Call(method="wait"), 10))
    await asyncio.wait_for(handler.arrived.wait(), 5)
    await listener.stop(0)
    with pytest.raises(LinkLost):
        await asyncio.wait_for(waiting, 5)
    with pytest.raises(NotConnected):
        await client.call(Call(), 0.3)


async def test_an_identity_that_may_not_call_is_refused(served: Served, certificates: Callable[..., TlsFiles]) -> None:
    client = calls.CallsClient(served[2].address, HOST, certificates("operator", "op"))
    with pytest.raises((PeerRefused, LinkLost), match=r"is a operator|may be called by"):
        await client.call(Call(), 5)
    await client.close()


async def test_logs_are_streamed(served: Served) -> None:
    lines = [line.text async for batch in served[2].logs(LogsRequest(agent="shop/a")) for line in batch.lines]
    assert lines == ["0", "1", "2"]
