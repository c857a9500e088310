"""A host without workers, for tests of servers: registers, heartbeats, follows, seals what it is given, says Ready."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Self

from local_servers import LocalServers

from tenure_api.identity import Identity, Role
from tenure_proto.v1 import common_pb2, hostlink_pb2, registry_pb2
from tenured.transport.errors import TransportError
from tenured.transport.registry import watch
from tenured.transport.serverlinks import LinkEvents, ServerLinks

HEARTBEAT_S = 0.1
TIMEOUT_S = 5.0


class FakeHost:
    """Use as an async context manager; `servers` must be ready."""

    def __init__(
        self,
        servers: LocalServers,
        name: str = "host-0",
        *,
        activates: bool = True,
        ways: Mapping[str, str] | None = None,
    ) -> None:
        """`ways`: server -> host:port where this host believes it to be."""
        self.servers = servers
        self.name = name
        self.activates = activates
        self.incarnation = secrets.token_hex(4)
        self.acks: list[hostlink_pb2.HeartbeatAck] = []
        self.mine: dict[str, registry_pb2.AgentRow] = {}
        """uid -> row of what this incarnation holds."""
        self.hosts: dict[str, registry_pb2.HostRow] = {}
        self.batches = 0
        self.failure: BaseException | None = None
        self._changed = asyncio.Condition()
        self._linked = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._links_changed = asyncio.Event()
        self._sealing: set[tuple[str, int]] = set()
        self.released = False
        """What is being activated then may be refused."""
        addresses = {server.name: server.peer for server in servers.servers.values()} | dict(ways or {})
        events = LinkEvents(
            on_connected=self._note_link,
            on_disconnected=lambda _: None,
            on_hello=self._note_link,
            on_ack=lambda _, ack: self.acks.append(ack),
        )
        self.links = ServerLinks(servers.cluster, addresses, servers.tls("host", name), events)

    async def __aenter__(self) -> Self:
        await self.links.start()
        await asyncio.wait_for(self._linked.wait(), TIMEOUT_S)
        result = await self.command(register=self.registration())
        assert result.ok, result
        self._tasks = [asyncio.ensure_future(self._heartbeats()), asyncio.ensure_future(self._follow())]
        result = await self.command(report_host=self.report())
        assert result.ok, result
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._tasks:
            await self.leave()

    async def leave(self) -> None:
        """Release everything, then go: the next test meets no host that is not there."""
        await self.command(release_host=hostlink_pb2.ReleaseHost(incarnation=self.incarnation))
        await self.vanish()

    def fall_silent(self) -> None:
        """No heartbeats any more; its links stay."""
        self._tasks[0].cancel()

    async def vanish(self) -> None:
        """Silence: no release, no heartbeat."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()
        await self.links.stop()

    def registration(self, **changes: object) -> hostlink_pb2.RegisterHost:
        message = hostlink_pb2.RegisterHost(
            host=self.name,
            incarnation=self.incarnation,
            pool="default",
            node=f"node-of-{self.name}",
            address="127.0.0.1:1",
            signals_address="127.0.0.1:2",
            version="test",
        )
        message.MergeFrom(hostlink_pb2.RegisterHost(**changes))  # type: ignore[arg-type]
        return message

    def report(self) -> hostlink_pb2.ReportHost:
        kind = registry_pb2.ClassInfo(name="Counter", version=1)
        return hostlink_pb2.ReportHost(incarnation=self.incarnation, ready=True, classes=[kind])

    def sealing(self, view: int, items: list[hostlink_pb2.SealItem]) -> hostlink_pb2.SealMany:
        return hostlink_pb2.SealMany(view=view, items=items, incarnation=self.incarnation)

    def writing(self, view: int, items: list[hostlink_pb2.WriteItem]) -> hostlink_pb2.WriteMany:
        return hostlink_pb2.WriteMany(view=view, items=items, incarnation=self.incarnation)

    def reading(self, view: int, uids: list[str]) -> hostlink_pb2.ReadMany:
        return hostlink_pb2.ReadMany(view=view, uids=uids, incarnation=self.incarnation)

    async def command(self, server: str | None = None, **body: object) -> hostlink_pb2.CommandResult:
        """Send one command frame and wait for its result; without `server` it goes to the leader.

        After servers were killed the first that comes back may name a leader which is still to be reached; while they
        elect one, the command is sent again, as a host does.
        """
        self.released = self.released or "release_host" in body
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                await self._linked_when(lambda: (server or self.links.leader) in self.links.connected)
                name = server or self.links.leader
                assert name is not None
                frame = hostlink_pb2.HostFrame(**body)  # type: ignore[arg-type]
                result = (await self.links.request(name, frame, TIMEOUT_S)).result
                if not (result.error.code == "NoQuorum" and result.error.outcome == common_pb2.OUTCOME_NOT_APPLIED):
                    return result
                await asyncio.sleep(0.05)

    async def ask(self, server: str, **body: object) -> hostlink_pb2.ServerFrame:
        """Send one frame and wait for what answers it; a server that came back may have to be reached again first."""
        await self._linked_when(lambda: server in self.links.connected)
        return await self.links.request(server, hostlink_pb2.HostFrame(**body), TIMEOUT_S)  # type: ignore[arg-type]

    async def _linked_when(self, condition: Callable[[], bool]) -> None:
        """Wait until what the links know makes the condition true."""
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():
                self._links_changed.clear()
                await self._links_changed.wait()

    async def until(self, condition: Callable[[], bool], within_s: float = 10) -> None:
        """Wait until the condition holds; it is looked at after every batch of the watch."""
        async with asyncio.timeout(within_s), self._changed:
            await self._changed.wait_for(lambda: self.failure is not None or condition())
        if self.failure is not None:
            raise self.failure

    def _note_link(self, *_: object) -> None:
        self._links_changed.set()
        if len(self.links.connected) == len(self.servers.servers) and self.links.leader is not None:
            self._linked.set()

    async def _heartbeats(self) -> None:
        while True:
            now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            self.links.heartbeat(hostlink_pb2.Heartbeat(incarnation=self.incarnation, sent_at_ns=now))
            await asyncio.sleep(HEARTBEAT_S)

    async def _follow(self) -> None:
        names = list(self.servers.servers.values())
        files = self.servers.tls("host", self.name)
        revision = 0
        while True:
            for server in names:
                expected = Identity(self.servers.cluster, Role.SERVER, server.name).dns_name
                request = registry_pb2.WatchRequest(from_revision=revision)
                try:
                    async for batch in watch(server.peer, expected, files, request):
                        revision = max(revision, batch.revision)
                        await self._take(batch)
                except TransportError:
                    await asyncio.sleep(0.05)

    async def _take(self, batch: registry_pb2.WatchBatch) -> None:
        self.batches += 1
        for host in batch.hosts:
            self.hosts[host.incarnation] = host
        fresh = []
        for row in batch.agents:
            if row.incarnation == self.incarnation:
                self.mine[row.uid] = row
                if not row.ready and (row.uid, row.epoch) not in self._sealing:
                    self._sealing.add((row.uid, row.epoch))
                    fresh.append(row)
            else:
                self.mine.pop(row.uid, None)
        for uid in batch.gone_agents:
            self.mine.pop(uid, None)
        if fresh and self.activates:
            task = asyncio.ensure_future(self._activate(fresh))
            task.add_done_callback(self._note_failure)
            self._tasks.append(task)
        async with self._changed:
            self._changed.notify_all()

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.failure = task.exception()

    async def _activate(self, rows: list[registry_pb2.AgentRow]) -> None:
        items = [hostlink_pb2.SealItem(uid=row.uid, epoch=row.epoch) for row in rows]
        view = self.links.view
        answers = [
            self.links.submit(name, hostlink_pb2.HostFrame(seal=self.sealing(view, items)), TIMEOUT_S)
            for name in self.links.connected
        ]
        majority = len(self.servers.servers) // 2 + 1
        for number, answer in enumerate(asyncio.as_completed(answers), start=1):
            frame = await answer
            epochs = {item.uid: item.epoch for item in items}
            for item in frame.sealed.items:
                # This host has been expired or has released the agent meanwhile: a later epoch was sealed, or nobody
                # has sealed one yet, and the server's row no longer names this incarnation [seal_assigned].
                if item.verdict == hostlink_pb2.STORE_VERDICT_FENCED and item.sealed >= epochs[item.uid]:
                    return
                assert item.verdict == hostlink_pb2.STORE_VERDICT_OK, frame
            if number == majority:
                break
        reports = [hostlink_pb2.AgentReport(uid=row.uid, epoch=row.epoch, ready=True) for row in rows]
        body = hostlink_pb2.AgentReports(incarnation=self.incarnation, reports=reports)
        result = await self.command(agent_reports=body)
        assert result.ok or (self.released and result.error.code == "IncarnationEnded"), result
