"""One host process: makes the parts, connects them, and ends them in order.

Crash-only: an incarnation that is gone ends its process, and the supervisor starts the next one at once. There is one
way to begin.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

import tenure_link
from tenure_api.identity import Identity, cluster_id_of
from tenure_frames import FrameStream
from tenure_proto.v1.hostlink_pb2 import (
    Assigned,
    Heartbeat,
    HeartbeatAck,
    Load,
    RegisterHost,
    ServerHello,
)
from tenure_proto.v1.registry_pb2 import WatchBatch
from tenured import clocks, http
from tenured.core.frames import MAX_STORED
from tenured.core.lease import HostLease
from tenured.core.profile import NS
from tenured.host import enrolling, health, leasing, link
from tenured.host.activations import Activations
from tenured.host.calls import HostCalls
from tenured.host.courier import Courier
from tenured.host.encoding import EncodedStore
from tenured.host.leasing import Lease
from tenured.host.locks import DeadLocks, OwnLock, new_incarnation
from tenured.host.logs import AgentLogs
from tenured.host.metrics import Metrics
from tenured.host.mirror import Mirror
from tenured.host.options import Options
from tenured.host.pool import WorkerPool
from tenured.host.reports import Reporter
from tenured.host.site import Site
from tenured.host.status import HostStatus
from tenured.host.store import Store
from tenured.host.stores import StateStore
from tenured.host.watching import Watcher
from tenured.storage.errors import StoreForeign
from tenured.storage.keys import KeyFile
from tenured.transport import calls as calls_service
from tenured.transport.callframes import CallFrames
from tenured.transport.roles import HOST_CALLS
from tenured.transport.serverlinks import LinkEvents, ServerLinks
from tenured.transport.serving import Listener
from tenured.transport.signals import FramedWires, Wires
from tenured.transport.tls import TlsFiles

if TYPE_CHECKING:
    from tenured.host.pgstore import PostgresStore

log = logging.getLogger("tenured.host")

VERSION = "0.1.0"
WORKER_LEAVE_S = 0.5
"""For the worker container to take note that it may go."""


class Host:
    """See the module. `run` once."""

    def __init__(self, options: Options, incarnation: str = "") -> None:
        """`incarnation`: of this process start; default: a new random one."""
        self._options = options
        self._cluster = cluster_id_of(options.cluster)
        self._incarnation = incarnation or new_incarnation()
        self._tasks: set[asyncio.Task[None]] = set()
        self._end: asyncio.Future[bool]
        self._leaving = False
        """It has asked to be taken for gone: to hear that it is, is the answer."""
        self._site: Site
        self._links: ServerLinks
        self._first_beats: leasing.FirstBeats
        self._activations: Activations
        self._status: HostStatus
        self._call_frames: CallFrames

    async def run(self) -> bool:
        """Until a drain is done (False) or the incarnation is gone (True). Raises OSError when something cannot be had
        here.
        """
        options = self._options
        options.run.mkdir(parents=True, exist_ok=True)
        self._end = asyncio.get_running_loop().create_future()
        own = OwnLock(options.run, self._incarnation)
        dead = DeadLocks(options.run, self._incarnation)
        files = TlsFiles(options.run / "tls")
        self._assemble(str(own.path), files)
        self._handle_signals()
        pool, together = self._site.pool, self._site.gathering
        worker_socket = await link.listen(options.run / "worker.sock", pool, options.worker_uids, together)
        pages = health.pages(self._site, self._activations)
        web = await http.serve(options.listen, options.http_port, pages)
        await self._until_end(enrolling.ensure(options, self._cluster))
        calls = self._calls()
        self._call_frames = CallFrames(options.name, calls)
        listener = Listener(files, self._cluster, calls_service.methods(calls), HOST_CALLS)
        try:
            if not self._end.done():
                await listener.start(options.listen, options.port)
                await self._site.courier.start()
                await self._serve(files, dead)
            return await self._end
        finally:
            await self._stop(worker_socket, web, listener)

    # --- parts ------------------------------------------------------------------------------------------------------

    def _assemble(self, lock: str, files: TlsFiles) -> None:
        options = self._options
        events = LinkEvents(self._connected, self._disconnected, self._hello, self._acked, self._assigned)
        self._links = self._make_links(files, events)
        self._first_beats = leasing.FirstBeats(self._links, self._beat)
        mirror, metrics, jitter = Mirror(self._incarnation), Metrics(), self._jitter()
        self._site = Site(
            host=options.name,
            lease=self._make_lease(),
            pool=WorkerPool(self._incarnation, lock, options.workers, self),
            store=self._state_store(mirror),
            reports=Reporter(self._links, self._incarnation),
            logs=AgentLogs(options.name),
            mirror=mirror,
            metrics=metrics,
            courier=Courier(self._incarnation, mirror, self._make_wires(files), metrics.signals, jitter),
            random=jitter,
        )
        self._activations = Activations(self._site)
        self._site.courier.bind(self._activations.deliver, self._site.gathering)
        self._status = HostStatus(self._links, self._incarnation, self._site, self._activations)

    def _state_store(self, mirror: Mirror) -> StateStore:
        """Raises StoreForeign when the file of keys cannot be used."""
        options = self._options
        store: Store | PostgresStore = self._make_postgres(mirror) if options.store else self._make_store()
        store.limit = MAX_STORED
        return EncodedStore(
            store, compress=options.compress, keys=None if options.keys is None else KeyFile(options.keys)
        )

    def _make_postgres(self, mirror: Mirror) -> PostgresStore:
        try:  # asyncpg is an extra, and 20 ms of a start
            from tenured.host.pgstore import PostgresStore  # noqa: PLC0415
            from tenured.storage.postgres import Postgres  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise StoreForeign(f"--store: {error.name} is missing. Install tenure[postgres].") from error

        database = Postgres(self._options.store_url, self._cluster, self._options.cluster_uid)
        return PostgresStore(database, clocks.boot_ns, mirror.gone)

    # What a simulated host has others of (docs/adr/0018).

    def _make_links(self, files: TlsFiles, events: LinkEvents) -> ServerLinks:
        return ServerLinks(self._cluster, self._options.servers, files, events, self._options.frames)

    def _make_wires(self, files: TlsFiles) -> Wires:
        here = self._options
        return FramedWires(self._cluster, files, here.listen, here.signals_port, self._accept_caller)

    def _accept_caller(self, peer: Identity, stream: FrameStream) -> None:
        self._call_frames.accept(peer, stream)

    def _jitter(self) -> Callable[[], float]:
        return random.random

    def _make_watcher(self, files: TlsFiles) -> Watcher:
        return Watcher(self._cluster, self._options.servers, files, self._site.mirror, self._watched, self._links)

    def _make_lease(self) -> Lease:
        return Lease(HostLease(self._options.profile, self._incarnation), self._renewed, self._gone)

    def _make_store(self) -> Store:
        return Store(self._links, self._incarnation, clocks.boot_ns)

    def _now_ns(self) -> int:
        return clocks.boot_ns()

    def _load(self) -> Load:
        return self._status.load()

    def _calls(self) -> HostCalls:
        return HostCalls(self._site, self._activations)

    async def _serve(self, files: TlsFiles, dead: DeadLocks) -> None:
        """Starts everything that runs as long as the host."""
        options = self._options
        await self._links.start()
        watcher = self._make_watcher(files)
        self._start(self._join(dead))
        self._start(watcher.run())
        self._start(self._site.store.keep_repeating())
        self._start(self._site.reports.run())
        self._start(self._site.pool.keep_pinging())
        self._start(self._activations.run())
        self._start(health.measure_lag(self._site.metrics))
        self._start(leasing.keep_beating(self._beat, options.profile.tick_ns / NS))

    def _beat(self) -> None:
        """To the leader, or to every server while none is known."""
        self._links.heartbeat(
            Heartbeat(
                incarnation=self._incarnation,
                sent_at_ns=self._now_ns(),  # read before sending: the lease is counted from it [sent_at]
                load=self._load(),
                revision=self._site.mirror.revision,
            )
        )

    async def _join(self, dead: DeadLocks) -> None:
        """Registers, then keeps the registry's idea of this host up to date."""
        options = self._options
        request = RegisterHost(
            host=options.name,
            incarnation=self._incarnation,
            pool=options.pool,
            node=options.node,
            address=options.advertise,
            signals_address=self._signals_address(),
            labels=options.labels,
            version=VERSION,
            cpu_milli=options.cpu_milli,
            memory_bytes=options.memory_bytes,
            capabilities=options.capabilities,
        )
        await self._status.connected()
        await leasing.register(self._links, request, dead, self._beat)
        self._start(leasing.bury_late(self._links, request, dead, self._beat))
        await self._status.run()

    def _signals_address(self) -> str:
        """Where other hosts reach the courier."""
        return f"{self._options.advertise.rpartition(':')[0]}:{self._site.courier.port}"

    def _start(self, work: Coroutine[None, None, None]) -> None:
        """A part whose failure ends the process: the supervisor starts a new one, which is better than half a host."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._part_ended)

    def _part_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None and not self._end.done():
            self._end.set_exception(task.exception() or RuntimeError("unreachable"))

    async def _until_end(self, work: Coroutine[None, None, TlsFiles]) -> None:
        """Does the work unless the host is told to end first."""
        task = asyncio.ensure_future(work)
        self._end.add_done_callback(lambda _: task.cancel())
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    # --- what happens: links, watch, lease ----------------------------------------------------------------------------

    def _connected(self, server: str, _hello: ServerHello) -> None:
        self._site.store.connected(server)
        self._status.poke()
        self._first_beats.look()

    def _disconnected(self, server: str) -> None:
        self._site.store.disconnected(server)
        self._first_beats.look()

    def _hello(self, _server: str, _hello: ServerHello) -> None:
        self._site.store.view_may_have_changed()
        self._first_beats.look()

    def _acked(self, _server: str, ack: HeartbeatAck) -> None:
        self._site.lease.ack(ack)

    def _renewed(self, until_ns: int) -> None:
        self._site.pool.lease(until_ns)

    def _watched(self, batch: WatchBatch) -> None:
        self._activations.rows_changed(self._site.mirror.apply(batch))
        self._site.courier.watched(batch)
        self._site.store.deleted(batch.gone_agents)

    def _assigned(self, assigned: Assigned) -> None:
        """What the leader says ahead of the watch."""
        self._activations.rows_changed(self._site.mirror.ahead(assigned.agents))

    def _gone(self) -> None:
        if self._end.done():
            return
        if not self._leaving:
            log.warning("incarnation %s was declared dead: starting anew", self._incarnation)
            self._activations.abort()
        self._end.set_result(not self._leaving)

    # --- what happens: workers (pool.PoolEvents) ---------------------------------------------------------------------

    def workers_changed(self) -> None:
        """Readiness, classes or the reason of a failure changed."""
        if self._site.pool.ready and not self._status.draining:
            self._activations.release_all(False)
        self._status.poke()

    def workers_gone(self) -> None:
        """Nobody runs agents here: somebody else should hold them."""
        log.warning("no worker, and nobody who would start one: giving up all agents")
        self._activations.release_all(True)

    def worker_terminating(self) -> None:
        """The worker container is being stopped."""
        self._begin_drain()

    def worker_said(self, line: tenure_link.LogLine) -> None:
        """A line of user code."""
        row = self._site.mirror.agents.get(line.uid)
        if row is not None:
            self._site.logs.add(line.uid, row.id, row.epoch, line.level, line.text, line.wall_time)

    # --- the end --------------------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._begin_drain)

    def _begin_drain(self) -> None:
        if not self._status.draining and not self._end.done():
            log.info("draining: %d agents", len(self._activations.holders))
            self._status.draining = True
            self._status.poke()
            self._start(self._drain())

    async def _drain(self) -> None:
        """Gives everything up and says goodbye; leaves before the grace period ends, done or not. It also leaves once
        its lease has been over for as long as a lease lasts: it can keep nothing then, and nobody needs its word.
        """
        leaving = asyncio.ensure_future(self._leave())
        alone = asyncio.ensure_future(leasing.lapsed(self._site.lease, self._options.profile.expiry_ns / NS))
        try:
            await asyncio.wait(
                {leaving, alone}, timeout=self._options.exit_deadline_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            has_time, gives_up = alone.cancel(), leaving.cancel()
        if not gives_up:
            leaving.result()
        elif has_time:
            log.warning("leaves before all has ended: its time is over")
        else:
            log.warning("leaves without a goodbye: no server renews its lease")
        if not self._end.done():
            self._end.set_result(False)

    async def _leave(self) -> None:
        """Ends running turns, gives every agent up, says goodbye."""
        self._activations.release_all(True)
        await self._activations.empty()
        if self._links.connected:
            await self._site.reports.settled()
            self._leaving = True
            with contextlib.suppress(TimeoutError):
                await leasing.release(self._links, self._incarnation, self._options.profile.expiry_ns / NS)

    async def _stop(self, worker_socket: asyncio.Server, web: asyncio.Server, listener: Listener) -> None:
        self._activations.abort()
        if self._status.draining:
            self._site.pool.stop()
            await asyncio.sleep(0)
        await listener.stop(0.2)
        await self._site.courier.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._links.stop()
        worker_socket.close()
        web.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._options.run / "worker.sock")  # noqa: PTH108 - one call, at the very end
