"""One agent on one host: real Owner, real store client, in-memory servers; the worker and the lease are the test's to
play.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec

import tenure_link
from tenure_proto.v1 import hostlink_pb2 as wire
from tenure_proto.v1.calls_pb2 import CALL_KIND_ACTION, Call
from tenure_proto.v1.common_pb2 import Version
from tenure_proto.v1.registry_pb2 import AgentRow, AgentSpec
from tenured.core import cells
from tenured.host.holder import Holder
from tenured.host.leasing import boot_ns
from tenured.host.logs import AgentLogs
from tenured.host.metrics import Metrics
from tenured.host.reports import Patience
from tenured.host.rows import row_of
from tenured.host.site import Site
from tenured.host.store import Store
from tenured.host.worker import Worker
from tenured.transport.errors import NotConnected

SERVERS = ("s0", "s1", "s2")
pack = msgspec.msgpack.encode


class MemoryServers:
    """Three servers of the store behind the links; a test may cut one off, or hold back the answers to writes."""

    def __init__(self) -> None:
        self.names = SERVERS
        self.view = 1
        self.cells: dict[str, dict[str, tuple[cells.Cell, dict[str, bytes]]]] = {name: {} for name in SERVERS}
        self.away: set[str] = set()
        self.writes_answer = asyncio.Event()
        self.writes_answer.set()
        self.frames: list[tuple[str, wire.HostFrame]] = []
        self._tasks: set[asyncio.Task] = set()

    @property
    def connected(self) -> Any:
        return frozenset(SERVERS) - self.away

    def submit(self, server: str, frame: Any, timeout_s: float) -> Any:
        if server in self.away:
            raise NotConnected(server)
        self.frames.append((server, frame))
        task = asyncio.ensure_future(self._answer(server, frame))
        self._tasks.add(task)
        return task

    def seal_above(self, uid: str, epoch: int) -> None:
        """Another holder has taken over."""
        for name in SERVERS:
            cell, entries = self.cells[name].get(uid, (cells.Cell(), {}))
            self.cells[name][uid] = (cells.Cell(epoch, cell.version), entries)

    async def _answer(self, server: str, frame: Any) -> Any:
        if frame.WhichOneof("body") == "seal":
            items = [self._seal(server, item) for item in frame.seal.items]
            for item in [] if frame.seal.with_records else items:
                item.wake = item.record.entries.get("w", b"")
                item.ClearField("record")
            return wire.ServerFrame(sealed=wire.SealedMany(items=items))
        if frame.WhichOneof("body") == "read":
            return wire.ServerFrame(records=wire.Records(items=[self._read(server, uid) for uid in frame.read.uids]))
        items = [self._write(server, item) for item in frame.write.items]
        await self.writes_answer.wait()
        return wire.ServerFrame(written=wire.WrittenMany(items=items))

    def _seal(self, server: str, item: Any) -> Any:
        cell, entries = self.cells[server].get(item.uid, (cells.Cell(), {}))
        decision = cells.guard_seal(cell, item.epoch)
        self.cells[server][item.uid] = (decision.cell, entries)
        version = Version(epoch=decision.cell.version.epoch, seq=decision.cell.version.seq)
        return wire.Sealed(
            uid=item.uid,
            verdict=wire.StoreVerdict.Value(f"STORE_VERDICT_{decision.verdict}"),
            sealed=decision.cell.sealed,
            version=version,
            record=wire.Record(uid=item.uid, version=version, entries=entries),
        )

    def _read(self, server: str, uid: str) -> Any:
        cell, entries = self.cells[server].get(uid, (cells.Cell(), {}))
        version = Version(epoch=cell.version.epoch, seq=cell.version.seq)
        return wire.Record(uid=uid, version=version, entries=entries)

    def _write(self, server: str, item: Any) -> Any:
        cell, entries = self.cells[server].get(item.uid, (cells.Cell(), {}))
        version = cells.Version(item.version.epoch, item.version.seq)
        base = cells.Version(item.base.epoch, item.base.seq) if item.HasField("base") else None
        decision = cells.guard_write(cell, version, base)
        if decision.store:
            kept = {} if base is None else {key: entries[key] for key in entries if key not in item.deletes}
            self.cells[server][item.uid] = (decision.cell, {**kept, **item.puts})
        return wire.Written(
            uid=item.uid,
            verdict=wire.StoreVerdict.Value(f"STORE_VERDICT_{decision.verdict}"),
            sealed=decision.cell.sealed,
            version=Version(epoch=decision.cell.version.epoch, seq=decision.cell.version.seq),
        )

    def stored(self, uid: str, key: str) -> list[bytes]:
        """The entry on each server that has it."""
        return [kept[uid][1][key] for kept in self.cells.values() if uid in kept and key in kept[uid][1]]


class FakeLease:
    """Held until the test says otherwise."""

    def __init__(self) -> None:
        self.held = True
        self.cluster_time = 100.0
        self.cluster_now = 100.0

    async def wait(self) -> None:
        return


class PlayedWorker:
    """A worker whose turns the test answers."""

    def __init__(self) -> None:
        self.frames: list[tenure_link.Frame] = []
        self.turns: asyncio.Queue[tenure_link.Turn] = asyncio.Queue()
        self.refusal: tenure_link.Fault | None = None
        self.hooked: bytes | None = None
        """What `on_start` makes of a stored state."""
        self.due: tuple[tenure_link.Due, ...] = ()
        self.ends: str | None = None
        """Why `on_start` ends the agent."""
        self.worker = Worker(self, 11)

    def send(self, frame: Any) -> None:
        self.frames.append(frame)
        if isinstance(frame, tenure_link.Activate):
            answer = tenure_link.Activated(
                uid=frame.uid,
                epoch=frame.epoch,
                state=self.hooked if frame.state else pack({"n": 0}),
                due=self.due,
                stop=self.ends,
            )
            if self.refusal is not None:
                answer = tenure_link.ActivationFailed(uid=frame.uid, epoch=frame.epoch, fault=self.refusal)
            asyncio.get_running_loop().call_soon(self.worker.answered, answer)
        elif isinstance(frame, tenure_link.Turn):
            self.turns.put_nowait(frame)

    send_soon = send

    async def turn(self) -> tenure_link.Turn:
        async with asyncio.timeout(5):
            return await self.turns.get()

    def done(self, turn: Any, **what: Any) -> None:
        assert self.worker.answered(tenure_link.TurnDone(turn=turn.turn, **what))

    def heard(self, kind: Any) -> list:
        return [frame for frame in self.frames if isinstance(frame, kind)]


class FakePool:
    """One worker for all."""

    def __init__(self, played: PlayedWorker) -> None:
        self.played = played
        self.killed: list[str] = []

    async def pick(self) -> Any:
        if self.played.worker.lost:
            await asyncio.get_running_loop().create_future()  # none comes
        return self.played.worker

    def is_query(self, class_name: Any, method: str) -> Any:
        return None

    def kill(self, worker: Any, reason: str) -> None:
        self.killed.append(reason)
        worker.abandon(reason)
        worker.dead.set()


class PlayedWay:
    """What an agent has sent."""

    def __init__(self) -> None:
        self.released: list[int] = []
        self.settle: Any = None

    def open(self, uid: str, source: str, tenant: str, settle: Any, *, epoch: int) -> PlayedWay:
        self.settle = settle
        return self

    def release(self, entries: Any) -> None:
        self.released += [entry.n for entry in entries]

    def forget(self, ns: Any) -> None: ...

    def close(self) -> None: ...


class FakeMirror:
    """Agents by name."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}

    def agent(self, name: str) -> Any:
        return self.rows.get(name)


class FakeReports:
    """Keeps what was reported."""

    def __init__(self) -> None:
        self.said: list[tuple] = []
        self.first = asyncio.Event()

    def ready(self, uid: str, epoch: int, *, patience: Patience | None = None) -> None:
        self.said.append(("ready", uid, epoch))
        self.first.set()

    def dead_letters(self, uid: str, epoch: int, count: int) -> None:
        self.said.append(("dead letters", uid, count))

    def trouble(self, uid: str, epoch: int, trouble: Any) -> None:
        self.said.append(("trouble", trouble.reason, trouble.message, trouble.attempt, trouble.retry_in_seconds))
        self.first.set()


def site_of(servers: MemoryServers, **parts: Any) -> Site:
    """A host with these servers, and `parts` that the test plays; its store, logs and metrics are the real ones."""
    store = Store(servers, "h.1", boot_ns)
    return Site(host="h", store=store, logs=AgentLogs("h"), metrics=Metrics(), **parts)


@asynccontextmanager
async def one_agent() -> AsyncIterator[Any]:
    """Everything around one agent; `start()` makes the holder."""
    servers, played, lease = MemoryServers(), PlayedWorker(), FakeLease()
    made: list[Holder] = []
    reports = FakeReports()
    pool = FakePool(played)
    played_parts = {"lease": lease, "pool": pool, "reports": reports, "mirror": FakeMirror(), "courier": PlayedWay()}
    site = site_of(servers, **played_parts, random=lambda: 0.5)

    async def start(epoch: int = 1, **row: Any) -> Holder:
        reports.first.clear()
        fields = {"uid": "7", "epoch": epoch, "spec": AgentSpec(id="shop/a", **{"class": "C"}), **row}
        made.append(Holder(site, row_of(AgentRow(**fields))))
        async with asyncio.timeout(5):
            await reports.first.wait()
        return made[-1]

    yield SimpleNamespace(
        servers=servers, played=played, lease=lease, site=site, start=start, reports=reports, pool=pool
    )
    for holder in made:
        await holder.stop(finish_turn=False)


def submit(holder: Any, key: int = 1, kind: Any = CALL_KIND_ACTION, client: str = "c", within_s: float = 5.0) -> Any:
    call = Call(agent="shop/a", kind=kind, method="m", arguments=b"\x80", client_id=client, key=key, born=99.0)
    return holder.submit(call, "spiffe://x", boot_ns() + int(within_s * 1e9))


async def answer_of(job: Any) -> Any:
    """Of a call, or the future of a signal's."""
    async with asyncio.timeout(5):
        return await (job.reply if hasattr(job, "reply") else job)
