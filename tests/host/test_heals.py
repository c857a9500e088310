"""What was told too early, too late or to nobody mends itself: a host asks and says again."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tenure_proto.v1.hostlink_pb2 import CommandResult, HostFrame, ServerFrame
from tenure_proto.v1.registry_pb2 import HostRow
from tenured.host import status
from tenured.host.mirror import Mirror
from tenured.host.store import Store

SERVERS = frozenset({"s0", "s1", "s2"})


class Links:
    """Keeps what is sent; who is connected, and what view that knows, is the test's to say."""

    names = tuple(sorted(SERVERS))

    def __init__(self) -> None:
        self.connected: frozenset[str] = frozenset()
        self.view = 0
        self.leader = "s0"
        self.sent: list[tuple[str, HostFrame]] = []
        self.heard = asyncio.Event()

    def submit(self, server: str, frame: HostFrame, timeout_s: float) -> asyncio.Future[Any]:
        self.sent.append((server, frame))
        return asyncio.get_running_loop().create_future()

    async def request(self, server: str, frame: HostFrame, timeout_s: float) -> ServerFrame:
        self.sent.append((server, frame))
        self.heard.set()
        return ServerFrame(result=CommandResult(revision=1))


async def test_an_agent_that_begins_while_no_server_is_reached_asks_under_the_present_view() -> None:
    """protocol 2 [view]: a seal under a view of before is refused; asked for ever, the agent would never begin."""
    links = Links()
    store = Store(links, "h.1", lambda: 0)  # type: ignore[arg-type]
    links.connected, links.view = SERVERS, 1
    for server in SERVERS:
        store.connected(server)
    links.connected, links.view = frozenset(), 0  # nobody is connected: the links know of no view
    for server in SERVERS:
        store.disconnected(server)
    store.open("7", 2, expect_state=False)
    links.connected, links.view = SERVERS, 1
    for server in SERVERS:
        store.connected(server)
    await asyncio.sleep(0)
    assert {(server, frame.seal.view) for server, frame in links.sent} == {(server, 1) for server in SERVERS}


async def test_a_host_says_again_what_an_older_word_of_its_own_has_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report whose answer was given up may be applied after the next one."""
    monkeypatch.setattr(status, "LOOK_EVERY_S", 0.01)
    links, mirror = Links(), Mirror("h.1")
    links.connected = SERVERS
    pool = SimpleNamespace(fault=None, ready=True, classes=())
    site: Any = SimpleNamespace(pool=pool, mirror=mirror)
    host = status.HostStatus(links, "h.1", site, None)  # type: ignore[arg-type]
    running = asyncio.ensure_future(host.run())
    try:
        async with asyncio.timeout(5):
            await links.heard.wait()
            links.heard.clear()
            mirror.hosts["h.1"] = HostRow(incarnation="h.1", ready=False)
            await links.heard.wait()
    finally:
        running.cancel()
    assert [frame.report_host.ready for _, frame in links.sent[:2]] == [True, True]
