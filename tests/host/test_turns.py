"""One agent on one host: real Owner, real store client, in-memory servers; the worker and the lease are the test's to
play.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import tenure_link
from tenure_proto.v1 import hostlink_pb2 as wire
from tenure_proto.v1.calls_pb2 import CALL_KIND_ACTION, CALL_KIND_QUERY, Call
from tenure_proto.v1.common_pb2 import OUTCOME_NOT_APPLIED, OUTCOME_UNKNOWN, Version
from tenure_proto.v1.registry_pb2 import AgentRow, AgentSpec
from tenured.core import cells
from tenured.core.signals import Settled, Verdict
from tenured.host import mailbox
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


@pytest.fixture
async def scene() -> AsyncIterator[Any]:
    """Everything around one agent; `start()` makes the holder."""
    servers, played, lease = MemoryServers(), PlayedWorker(), FakeLease()
    made: list[Holder] = []
    reports = FakeReports()
    pool = FakePool(played)
    site = Site(
        host="h",
        lease=lease,
        pool=pool,
        store=Store(servers, "h.1", boot_ns),
        reports=reports,
        logs=AgentLogs("h"),
        mirror=FakeMirror(),
        metrics=Metrics(),
        courier=PlayedWay(),
        random=lambda: 0.5,
    )

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


async def reply_of(job: Any) -> Any:
    async with asyncio.timeout(5):
        return await job.reply


async def test_the_first_state_is_durable_before_ready(scene: SimpleNamespace) -> None:
    """Ready means that user code has answered and that its first state is at a majority."""
    await scene.start()
    assert scene.reports.said == [("ready", "7", 1)]
    assert len(scene.servers.stored("7", "s")) >= 2


async def test_what_a_hook_makes_of_a_stored_state_is_durable_before_ready(scene: SimpleNamespace) -> None:
    """Marks and clock stay as they were: a call of before is still recognised."""
    holder = await scene.start()
    job = submit(holder)
    turn = await scene.played.turn()
    scene.played.worker.answered(tenure_link.TurnDone(turn=turn.turn, reply=pack(1), state=pack({"n": 1})))
    assert (await reply_of(job)).value == pack(1)
    await holder.stop(finish_turn=True)
    scene.played.hooked = pack({"n": 100})
    later = await scene.start(epoch=2)
    assert scene.servers.stored("7", "s").count(pack({"n": 100})) >= 2
    assert (await reply_of(submit(later))).value == pack(1)


async def test_a_turn_is_durable_before_its_reply(scene: SimpleNamespace) -> None:
    """State, mark and reply at a majority; then Commit to the worker; then the caller."""
    holder = await scene.start()
    scene.servers.writes_answer.clear()
    job = submit(holder)
    scene.played.done(await scene.played.turn(), reply=pack(1), state=pack({"n": 1}))
    await asyncio.sleep(0)
    assert not job.answered
    assert not scene.played.heard(tenure_link.Commit)
    scene.servers.writes_answer.set()
    assert (await reply_of(job)).value == pack(1)
    assert scene.servers.stored("7", "s").count(pack({"n": 1})) >= 2
    assert len(scene.played.heard(tenure_link.Commit)) == 1


async def test_a_lapsed_lease_starts_no_turn(scene: SimpleNamespace) -> None:
    """Protocol 1, host 3: answer Fenced, not applied, and the worker hears nothing."""
    holder = await scene.start()
    scene.lease.held = False
    error = (await reply_of(submit(holder))).error
    assert (error.code, error.outcome, error.retryable) == ("Fenced", OUTCOME_NOT_APPLIED, True)
    assert not scene.played.heard(tenure_link.Turn)


async def test_a_lease_that_lapses_after_the_commit_holds_the_reply_back(scene: SimpleNamespace) -> None:
    """Protocol 1, host 2: the check is after the commit. Kept in the store, unknown to the caller; a repetition reads
    it.
    """
    holder = await scene.start()
    job = submit(holder)
    turn = await scene.played.turn()
    scene.lease.held = False
    scene.played.done(turn, reply=pack(1), state=pack({"n": 1}))
    error = (await reply_of(job)).error
    assert (error.code, error.outcome) == ("Fenced", OUTCOME_UNKNOWN)
    scene.lease.held = True
    again = await reply_of(submit(holder))
    assert (again.value, again.recorded) == (pack(1), True)
    assert len(scene.played.heard(tenure_link.Turn)) == 1


async def test_a_lease_that_lapses_during_a_read_holds_the_answer_back(scene: SimpleNamespace) -> None:
    """The check is after the read; a read has no effect, so: not applied."""
    holder = await scene.start()
    job = submit(holder, kind=CALL_KIND_QUERY)
    turn = await scene.played.turn()
    scene.lease.held = False
    scene.played.done(turn, reply=pack(1))
    error = (await reply_of(job)).error
    assert (error.code, error.outcome) == ("Fenced", OUTCOME_NOT_APPLIED)


async def test_a_query_commits_nothing(scene: SimpleNamespace) -> None:
    """No frame to any server."""
    holder = await scene.start()
    before = len(scene.servers.frames)
    job = submit(holder, kind=CALL_KIND_QUERY)
    scene.played.done(await scene.played.turn(), reply=pack(5))
    assert (await reply_of(job)).value == pack(5)
    assert len(scene.servers.frames) == before


async def test_a_quorum_read_asks_a_majority_after_it_came(scene: SimpleNamespace) -> None:
    """Protocol 2, quorum reads [check_after, check_sealed]: one that a newer holder has overtaken is not answered, even
    by a host that believes in its lease.
    """
    holder = await scene.start(spec=AgentSpec(id="shop/a", reads="Quorum", **{"class": "C"}))
    job = submit(holder, kind=CALL_KIND_QUERY)
    scene.played.done(await scene.played.turn(), reply=pack(5))
    assert (await reply_of(job)).value == pack(5)
    scene.servers.seal_above("7", 2)
    job = submit(holder, kind=CALL_KIND_QUERY)
    scene.played.done(await scene.played.turn(), reply=pack(5))
    error = (await reply_of(job)).error
    assert (error.code, error.outcome) == ("Fenced", OUTCOME_NOT_APPLIED)


async def test_a_failed_turn_changes_nothing(scene: SimpleNamespace) -> None:
    """The fault reaches the caller, no server hears of it; the traceback is in the log."""
    holder = await scene.start()
    before = len(scene.servers.frames)
    job = submit(holder)
    fault = tenure_link.Fault(code="ActionFailed", message="ValueError in m: no", details="Traceback ...")
    scene.played.done(await scene.played.turn(), fault=fault)
    error = (await reply_of(job)).error
    assert (error.code, error.outcome, error.retryable) == ("ActionFailed", OUTCOME_NOT_APPLIED, False)
    assert len(scene.servers.frames) == before
    lines = [line.text async for batch in scene.site.logs.read("7", 9, follow=False) for line in batch.lines]
    assert lines == ["ValueError in m: no", "Traceback ..."]


async def test_signals_leave_with_the_state(scene: SimpleNamespace) -> None:
    """In the agent's log, after the commit."""
    holder = await scene.start()
    job = submit(holder)
    signal = tenure_link.Signal(id="x", type="counter.changed", data=pack({"count": 1}))
    scene.played.done(await scene.played.turn(), reply=pack(1), state=pack({"n": 1}), signals=(signal,))
    await reply_of(job)
    lines = [line.text async for batch in scene.site.logs.read("7", 9, follow=False) for line in batch.lines]
    assert lines == ['signal counter.changed {"count":1}']


async def test_a_write_of_settlements_alone_is_waited_for_by_the_next(scene: SimpleNamespace) -> None:
    """Protocol 3, one write per turn [numbers_in_state, keep_box]: a draft that was made while it was under way would
    bring back what it took from the outbox.
    """
    way = scene.site.courier
    scene.site.mirror.rows["shop/b"] = SimpleNamespace(uid="8")
    holder = await scene.start()

    async def turn(key: int) -> Any:
        job = submit(holder, key)
        sends = (tenure_link.Outgoing(to="shop/b", work=b"\x80"),)
        scene.played.done(await scene.played.turn(), reply=pack(key), state=pack({"n": key}), sends=sends)
        return job

    await reply_of(await turn(1))
    scene.servers.writes_answer.clear()
    before = len(scene.servers.frames)
    way.settle(1, Settled(Verdict.APPLIED))
    async with asyncio.timeout(5):
        while len(scene.servers.frames) == before:  # noqa: ASYNC110 - of a fake
            await asyncio.sleep(0.005)
    job = await turn(2)
    scene.servers.writes_answer.set()
    await reply_of(job)
    assert way.released == [1, 2]
    assert len(scene.servers.stored("7", "o/2")) >= 2
    assert holder._parts is not None
    assert list(holder._parts.ledger.book.boxes.out) == [2]


async def test_a_deadline_before_the_write_is_not_applied_and_stays_so(scene: SimpleNamespace) -> None:
    """The worker may end the turn later: its result is dropped, never written."""
    holder = await scene.start()
    before = len(scene.servers.frames)
    job = submit(holder, within_s=0.05)
    turn = await scene.played.turn()
    error = (await reply_of(job)).error
    assert (error.code, error.outcome) == ("DeadlineExceeded", OUTCOME_NOT_APPLIED)
    scene.played.done(turn, reply=pack(1), state=pack({"n": 1}))
    after = submit(holder, key=2)
    scene.played.done(await scene.played.turn(), fault=tenure_link.Fault(code="ActionFailed", message="no"))
    await reply_of(after)
    assert len(scene.servers.frames) == before


async def test_a_deadline_during_the_write_is_unknown(scene: SimpleNamespace) -> None:
    """Then a repetition of the call id finds out."""
    holder = await scene.start()
    before = len(scene.servers.frames)
    scene.servers.writes_answer.clear()
    job = submit(holder)
    scene.played.done(await scene.played.turn(), reply=pack(1), state=pack({"n": 1}))
    while len(scene.servers.frames) < before + 3:  # noqa: ASYNC110 - the write at each server
        await asyncio.sleep(0)
    job.out_of_time()
    error = (await reply_of(job)).error
    assert (error.code, error.outcome) == ("DeadlineExceeded", OUTCOME_UNKNOWN)
    scene.servers.writes_answer.set()
    assert (await reply_of(submit(holder))).recorded


async def test_the_queue_is_bounded(scene: SimpleNamespace) -> None:
    """Busy, not applied, beyond the limit."""
    holder = await scene.start()
    submit(holder, key=0)
    await scene.played.turn()
    waiting = [submit(holder, key=key) for key in range(1, mailbox.CALLS)]
    error = (await reply_of(submit(holder, key=9999))).error
    assert (error.code, error.outcome, error.retryable) == ("Busy", OUTCOME_NOT_APPLIED, True)
    assert not any(job.answered for job in waiting)


async def test_a_holder_that_lost_its_epoch_says_unknown_once_and_serves_nobody(scene: SimpleNamespace) -> None:
    """Protocol 2, owner 5: a refused owner stops; its last write may or may not be adopted."""
    holder = await scene.start()
    scene.servers.seal_above("7", 2)
    job = submit(holder)
    scene.played.done(await scene.played.turn(), reply=pack(1), state=pack({"n": 1}))
    error = (await reply_of(job)).error
    assert (error.code, error.outcome) == ("Fenced", OUTCOME_UNKNOWN)
    assert (await reply_of(submit(holder, key=2))).error.code == "NotReady"
    assert scene.servers.stored("7", "s").count(pack({"n": 1})) == 0


async def test_one_server_away_costs_nothing(scene: SimpleNamespace) -> None:
    """A majority is enough."""
    scene.servers.away.add("s2")
    holder = await scene.start()
    job = submit(holder)
    scene.played.done(await scene.played.turn(), reply=pack(1), state=pack({"n": 1}))
    assert (await reply_of(job)).value == pack(1)


async def test_the_next_holder_goes_on_where_the_last_one_was(scene: SimpleNamespace) -> None:
    """State and marks are adopted: the worker gets the committed bytes, a repeated call its recorded reply."""
    first = await scene.start()
    job = submit(first)
    scene.played.done(await scene.played.turn(), reply=pack(1), state=pack({"n": 1}))
    await reply_of(job)
    await first.stop(finish_turn=True)
    second = await scene.start(epoch=2, ready_epoch=1)
    assert scene.played.heard(tenure_link.Activate)[-1].state == pack({"n": 1})
    assert (await reply_of(submit(second))).recorded


async def test_nothing_where_there_was_something_is_no_beginning(scene: SimpleNamespace) -> None:
    """The registry says that an earlier epoch was Ready, the store has nothing: stay down with the reason."""
    holder = await scene.start(epoch=2, ready_epoch=1)
    assert scene.reports.said[-1][:2] == ("trouble", "StateUnreadable")
    assert not scene.played.heard(tenure_link.Activate)
    assert (await reply_of(submit(holder))).error.code == "NotReady"


async def test_a_record_that_cannot_be_read_is_no_beginning(scene: SimpleNamespace) -> None:
    """Damaged marks: the agent stays down, and the record is left alone."""
    for kept in scene.servers.cells.values():
        kept["7"] = (cells.Cell(1, cells.Version(1, 1)), {"s": pack({"n": 1}), "c": b"\xc1"})
    await scene.start(epoch=2, ready_epoch=1)
    assert scene.reports.said[-1][:2] == ("trouble", "StateUnreadable")


async def test_a_refused_activation_backs_off_and_says_why(scene: SimpleNamespace) -> None:
    """The attempt goes on from where the registry says that the last holder was."""
    scene.played.refusal = tenure_link.Fault(code="StateInvalid", message="n: not a number")
    holder = await scene.start(attempt=2)
    assert scene.reports.said == [("trouble", "StateInvalid", "n: not a number", 3, 4.0)]
    error = (await reply_of(submit(holder))).error
    assert (error.code, error.message) == ("NotReady", "shop/a: backing off (attempt 3, next in 4 s): n: not a number")


async def test_stopping_lets_the_running_turn_end(scene: SimpleNamespace) -> None:
    """Drain: the turn is committed and answered; what waits is refused, not applied; the worker forgets the agent."""
    holder = await scene.start()
    job, waiting = submit(holder), submit(holder, key=2)
    turn = await scene.played.turn()
    stopping = asyncio.ensure_future(holder.stop(finish_turn=True))
    await asyncio.sleep(0)
    scene.played.done(turn, reply=pack(1), state=pack({"n": 1}))
    await stopping
    assert (await reply_of(job)).value == pack(1)
    error = (await reply_of(waiting)).error
    assert (error.code, error.outcome) == ("NotReady", OUTCOME_NOT_APPLIED)
    assert len(scene.played.heard(tenure_link.Deactivate)) == 1


async def test_stopping_at_once_drops_the_running_turn(scene: SimpleNamespace) -> None:
    """Moved away: nothing of the turn is written, its caller hears so."""
    holder = await scene.start()
    before = len(scene.servers.frames)
    job = submit(holder)
    await scene.played.turn()
    await holder.stop(finish_turn=False)
    assert (await reply_of(job)).error.outcome == OUTCOME_NOT_APPLIED
    assert len(scene.servers.frames) == before


async def test_a_turn_that_runs_on_after_its_deadline_costs_the_worker_its_life(
    scene: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would block its agent for good."""
    monkeypatch.setattr("tenured.host.stuck.STUCK_LIMIT_S", 0.05)
    holder = await scene.start()
    job = submit(holder, within_s=0.05)
    await scene.played.turn()
    assert (await reply_of(job)).error.code == "DeadlineExceeded"
    async with asyncio.timeout(5):
        await scene.played.worker.dead.wait()
    assert "ran on" in scene.pool.killed[0]
