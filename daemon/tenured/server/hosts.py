"""The link to hosts: registration, reports, heartbeats, and requests to the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial
from typing import Protocol

from tenure_api.identity import Identity
from tenure_frames import FrameStream
from tenure_proto.v1 import common_pb2, hostlink_pb2, registry_pb2
from tenured.clocks import wall_s
from tenured.core import commands, model, results
from tenured.core.changes import Delta
from tenured.core.lease import Ack, Load
from tenured.raft import Applied, NotApplied, Outcome, Role
from tenured.server import fromwire, rows
from tenured.server.replica import Replica
from tenured.server.store import Store, StoreRefused
from tenured.server.watching import WatchHub
from tenured.transport import hostframes
from tenured.transport.hostlink import HostSession

_log = logging.getLogger(__name__)

COMMAND_TIMEOUT_S = 5.0
ASSIGNED_ROWS = 200
"""In one frame: about 3 ms of encoding."""


class Proposer(Protocol):
    """The part of Consensus that is used here."""

    async def propose(self, command: bytes, timeout_s: float, *, term: int | None = None) -> Outcome:
        """Place one entry."""
        ...

    def role(self) -> Role:
        """How this server stands."""
        ...


class Heartbeats(Protocol):
    """Who counts heartbeats: `leading.Leader`."""

    def heartbeat(self, incarnation: str, sent_at_ns: int, load: Load) -> None:
        """One arrived."""
        ...


class Hosts:
    """All connected hosts. Implements `transport.hostlink.HostLinkHandler`, and is a replica's listener."""

    def __init__(self, name: str, replica: Replica, proposer: Proposer, store: Store, hub: WatchHub) -> None:
        self._name = name
        self._replica = replica
        self._proposer = proposer
        self._store = store
        self._hub = hub
        self._watches: dict[HostSession, asyncio.Task[None]] = {}
        self._heartbeats: Heartbeats | None = None
        self._sessions: dict[HostSession, None] = {}  # ordered: whoever is simulated must be told in one order
        self._by_incarnation: dict[str, HostSession] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._view = replica.registry.view

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def linked(self) -> list[str]:
        """Names of the hosts that have a stream to this server, sorted."""
        return sorted({session.host for session in self._sessions})

    def bind(self, heartbeats: Heartbeats) -> None:
        """Say who counts heartbeats."""
        self._heartbeats = heartbeats

    def close(self) -> None:
        """End every session."""
        for session in list(self._sessions):
            session.close()

    # --- news for hosts -----------------------------------------------------------------------------------------------

    def role_changed(self, role: Role) -> None:
        """Tell every host who leads now."""
        hello = self._hello(role)
        for session in self._sessions:
            session.send(hello)

    def changed(self, delta: Delta, /) -> None:
        """Tell every host when the view has changed, and new holders what they hold."""
        self._tell_holders(delta)
        if self._replica.registry.view != self._view:
            self._view = self._replica.registry.view
            self.role_changed(self._proposer.role())

    def replaced(self) -> None:
        """The registry was replaced."""
        self.changed(Delta())

    def _tell_holders(self, delta: Delta) -> None:
        """The leader applies an entry first, and every host has a link to it: so it says what that host is to begin,
        not the watch, which may be of a server that hears of the commit later. Of what runs there, or is in trouble
        there by the host's own word, it hears by the watch.
        """
        registry = self._replica.registry
        assigned: dict[str, list[model.Agent]] = {}
        for key in delta.changed:
            row = registry.agents.get(key.name) if key.kind == "agent" else None
            if row is not None and _to_begin(row) and row.incarnation in self._by_incarnation:
                assigned.setdefault(row.incarnation, []).append(row)
        if not assigned or not self._proposer.role().is_leader:
            return
        wall = wall_s()
        for incarnation, agents in assigned.items():
            for start in range(0, len(agents), ASSIGNED_ROWS):
                found = [rows.agent_row(registry, agent, wall) for agent in agents[start : start + ASSIGNED_ROWS]]
                frame = hostlink_pb2.ServerFrame(assigned=hostlink_pb2.Assigned(agents=found))
                self._by_incarnation[incarnation].send(frame)

    def send_ack(self, ack: Ack) -> None:
        """Acknowledge a heartbeat to the host that sent it, if it is still connected here."""
        session = self._by_incarnation.get(ack.incarnation)
        if session is not None:
            session.send(
                hostlink_pb2.ServerFrame(
                    heartbeat_ack=hostlink_pb2.HeartbeatAck(
                        incarnation=ack.incarnation,
                        sent_at_ns=ack.sent_at_ns,
                        index=ack.index,
                        cluster_time=self._replica.registry.cluster_ns / 1e9,
                        gone=ack.gone,
                    )
                )
            )

    def _hello(self, role: Role) -> hostlink_pb2.ServerFrame:
        hello = hostlink_pb2.ServerHello(
            server=self._name,
            leader=role.leader or "",
            is_leader=role.is_leader,
            view=self._replica.registry.view,
            watches=True,
        )
        return hostlink_pb2.ServerFrame(hello=hello)

    def accept(self, peer: Identity, stream: FrameStream) -> None:
        """A host has connected by framed TLS. Returns at once."""
        hostframes.serve(self, peer, stream)

    # --- one session --------------------------------------------------------------------------------------------------

    def opened(self, session: HostSession) -> None:
        """A host connected."""
        self._sessions[session] = None
        session.send(self._hello(self._proposer.role()))

    def closed(self, session: HostSession) -> None:
        """A stream ended. Silence is not death: nothing else follows from it."""
        self._sessions.pop(session, None)
        if (watch := self._watches.pop(session, None)) is not None:
            watch.cancel()
        for incarnation in [name for name, other in self._by_incarnation.items() if other is session]:
            del self._by_incarnation[incarnation]

    def frame(self, session: HostSession, frame: hostlink_pb2.HostFrame) -> None:
        """One frame of a host. Commands are proposed in the order in which they came."""
        match frame.WhichOneof("body"):
            case "heartbeat":
                self._heartbeat(session, frame.heartbeat)
            case "register":
                self._spawn(self._register(session, frame.id, frame.register))
            case "report_host":
                report = fromwire.report_from(frame.report_host, wall_s())
                self._command(session, frame.id, report.incarnation, report)
            case "release_host":
                release = commands.ReleaseHost(wall=wall_s(), incarnation=frame.release_host.incarnation)
                self._command(session, frame.id, release.incarnation, release)
            case "agent_reports":
                reports = fromwire.agent_reports_from(frame.agent_reports, wall_s())
                self._command(session, frame.id, reports.incarnation, reports)
            case "watch":
                self._follow(session, frame.id, frame.watch)
            case _:
                self._ask_store(session, frame)

    def _heartbeat(self, session: HostSession, beat: hostlink_pb2.Heartbeat) -> None:
        if not self._owns(session, beat.incarnation):
            return
        self._by_incarnation[beat.incarnation] = session
        if self._heartbeats is not None:
            load = Load(
                agents=beat.load.agents,
                cpu=beat.load.cpu,
                memory_bytes=beat.load.memory_bytes,
                calls_per_second=beat.load.calls_per_second,
                loop_lag_ms=beat.load.loop_lag_ms,
            )
            self._heartbeats.heartbeat(beat.incarnation, beat.sent_at_ns, load)

    def _owns(self, session: HostSession, incarnation: str) -> bool:
        """Whether the incarnation may be this host's: nobody keeps alive, or speaks for, a host that he is not."""
        row = self._replica.registry.hosts.get(incarnation)
        return row is None or row.name == session.host

    # --- the watch ----------------------------------------------------------------------------------------------------

    def _follow(self, session: HostSession, frame_id: int, request: registry_pb2.WatchRequest) -> None:
        """One a session: a later one takes its place."""
        older = self._watches.get(session)
        if older is not None:
            older.cancel()
        self._watches[session] = self._spawn(self._watch(session, frame_id, request))

    async def _watch(self, session: HostSession, frame_id: int, request: registry_pb2.WatchRequest) -> None:
        await self._hub.serve(request, _Watched(session, frame_id))
        session.send(hostlink_pb2.ServerFrame(id=frame_id, watched=b""))

    # --- commands -----------------------------------------------------------------------------------------------------

    async def _register(self, session: HostSession, frame_id: int, message: hostlink_pb2.RegisterHost) -> None:
        if message.host != session.host:
            sentence = f"The certificate is of host {session.host}; it may not register as {message.host}."
            session.send(_refused(frame_id, "PermissionDenied", sentence))
            return
        if not self._owns(session, message.incarnation):
            session.send(_refused(frame_id, "PermissionDenied", "That incarnation belongs to another host."))
            return
        command = fromwire.register_from(message, wall_s())
        _log.info("host %s registers incarnation %s (pool %s)", message.host, message.incarnation, message.pool)
        await self._propose(session, frame_id, command)

    def _command(self, session: HostSession, frame_id: int, incarnation: str, command: commands.Command) -> None:
        if self._owns(session, incarnation):
            self._spawn(self._propose(session, frame_id, command))
        else:
            session.send(_refused(frame_id, "PermissionDenied", "That incarnation belongs to another host."))

    async def _propose(self, session: HostSession, frame_id: int, command: commands.Command) -> None:
        outcome = await self._proposer.propose(commands.encode(command), COMMAND_TIMEOUT_S)
        session.send(hostlink_pb2.ServerFrame(id=frame_id, result=_result(outcome)))

    # --- the store ----------------------------------------------------------------------------------------------------

    def _ask_store(self, session: HostSession, frame: hostlink_pb2.HostFrame) -> None:
        match frame.WhichOneof("body"):
            case "seal":
                self._spawn(self._seal(session, frame.id, frame.seal))
            case "write":
                self._store.write(session.host, frame.write, partial(_send_written, session, frame.id))
            case "read":
                self._spawn(self._read(session, frame.id, frame.read))
            case _:
                _log.warning("host %s sent a frame that this version does not know", session.host)

    async def _seal(self, session: HostSession, frame_id: int, request: hostlink_pb2.SealMany) -> None:
        session.send(hostlink_pb2.ServerFrame(id=frame_id, sealed=await self._store.seal(session.host, request)))

    async def _read(self, session: HostSession, frame_id: int, request: hostlink_pb2.ReadMany) -> None:
        try:
            records = await self._store.read(session.host, request)
        except StoreRefused as error:
            session.send(_refused(frame_id, error.verdict, str(error)))
        else:
            session.send(hostlink_pb2.ServerFrame(id=frame_id, records=records))

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Watched:
    """Implements `watching.Sink`: frames of a session."""

    def __init__(self, session: HostSession, frame_id: int) -> None:
        self._session = session
        self._frame_id = frame_id

    async def write(self, encoded: bytes, /) -> None:
        """Send one batch."""
        await self._session.room()
        self._session.send(hostlink_pb2.ServerFrame(id=self._frame_id, watched=encoded))


def _to_begin(row: model.Agent) -> bool:
    """Its holder has said nothing of it yet."""
    return row.held and not row.ready and row.trouble is None


def _send_written(session: HostSession, frame_id: int, written: hostlink_pb2.WrittenMany) -> None:
    session.send(hostlink_pb2.ServerFrame(id=frame_id, written=written))


def _result(outcome: Outcome) -> hostlink_pb2.CommandResult:
    if isinstance(outcome, Applied):
        result = results.decode(outcome.result)
        if result.ok:
            return hostlink_pb2.CommandResult(ok=True, revision=result.revision)
        error = common_pb2.Error(code=result.reason, message=result.message, outcome=common_pb2.OUTCOME_NOT_APPLIED)
        return hostlink_pb2.CommandResult(error=error, revision=result.revision)
    known = isinstance(outcome, NotApplied)
    error = common_pb2.Error(
        code="NoQuorum",
        message=outcome.reason,
        outcome=common_pb2.OUTCOME_NOT_APPLIED if known else common_pb2.OUTCOME_UNKNOWN,
        retryable=True,
    )
    return hostlink_pb2.CommandResult(error=error)


def _refused(frame_id: int, code: str, message: str) -> hostlink_pb2.ServerFrame:
    error = common_pb2.Error(code=code, message=message, outcome=common_pb2.OUTCOME_NOT_APPLIED)
    return hostlink_pb2.ServerFrame(id=frame_id, result=hostlink_pb2.CommandResult(error=error))
