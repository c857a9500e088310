"""A scene around one agent, for tests of signals, timers and owed turns: that of `played`, with a mirror and a courier
that the test plays too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
from played import FakeLease, FakeReports, MemoryServers, PlayedWorker, pack, site_of, submit

import tenure_link
from tenure_proto.v1.calls_pb2 import CALL_KIND_ACTION, CALL_KIND_CONTROL, Call
from tenure_proto.v1.registry_pb2 import AgentRow, AgentSpec
from tenured.clocks import boot_ns
from tenured.core import turns
from tenured.core.signals import Settled, Signal, Verdict
from tenured.host.events import Events
from tenured.host.holder import Holder
from tenured.host.rows import Row, row_of

FAIL = tenure_link.Fault("ActionFailed", "ValueError in m: no")
STATE = pack({"n": 1})


class PlayedMirror:
    """Agents that this host has heard of, by id."""

    def __init__(self) -> None:
        self.synced = True
        self.rows: dict[str, Row] = {}

    def know(self, agent: str, uid: str) -> None:
        self.rows[agent] = row_of(AgentRow(uid=uid, spec=AgentSpec(id=agent)))

    def agent(self, agent_id: str) -> Row | None:
        return self.rows.get(agent_id)

    def subscribers(self, type_: str, namespace: str) -> list[Row]:
        return []

    def everyone(self, namespace: str) -> list[Row]:
        return list(self.rows.values())


class PlayedCourier:
    """Keeps what is to be carried; the test settles it. As strict about the order as the real one."""

    def __init__(self) -> None:
        self.carried: dict[int, Any] = {}
        self.log: list[tuple[int, str, bool]] = []
        self.settle: Any = None

    def open(self, uid: str, source: str, tenant: str, settle: Any, *, epoch: int = 0) -> Any:
        self.settle = settle
        self.carried = {}
        return self

    def release(self, entries: Any) -> None:
        for one in entries:
            known = self.carried.get(one.n)
            last = max((n for n, each in self.carried.items() if each.receiver == one.receiver), default=0)
            if known is None and last > one.n:
                raise ValueError(f"signal {one.n} was released after {last}")
            self.carried[one.n] = one
            self.log.append((one.n, one.receiver, one.void))

    def forget(self, ns: Any) -> None:
        for n in ns:
            self.carried.pop(n, None)

    def close(self) -> None:
        self.carried = {}

    def answer(self, n: int, verdict: Verdict = Verdict.APPLIED) -> None:
        self.settle(n, Settled(verdict))


class Pool:
    """Workers that the test plays, one after the other; each is reaped as soon as it is gone."""

    def __init__(self) -> None:
        self.workers: deque[PlayedWorker] = deque()
        self.played = PlayedWorker()
        self.trials = 0

    async def pick(self) -> Any:
        if self.played.worker.lost:
            self.played = PlayedWorker()
        return self.played.worker

    async def trial_worker(self) -> Any:
        self.trials += 1
        worker = await self.pick()
        worker.reserved = True
        return worker

    def end_trial(self, worker: Any) -> None:
        worker.reserved = False

    def is_query(self, class_name: Any, method: str) -> Any:
        return None

    def kill(self, worker: Any, reason: str) -> None:
        worker.abandon(reason)
        worker.dead.set()


class Reports(FakeReports):
    """With what is said of dead letters."""

    def dead_letters(self, uid: str, epoch: int, count: int) -> None:
        self.said.append(("dead_letters", count))


class Scene(SimpleNamespace):
    """One agent, uid 7, `shop/a`."""

    holder: Holder
    pool: Pool

    @property
    def played(self) -> PlayedWorker:
        return self.pool.played

    async def start(self, epoch: int = 1, *, heard: bool = True, **row: Any) -> Holder:
        """`heard`: until it has reported something. `over`: why it ended by itself, once its holder says so."""
        self.reports.first.clear()
        given = AgentSpec(id="shop/a", **{"class": "C"})
        given.MergeFrom(row.pop("more", AgentSpec()))
        self.over: list[str] = []
        agent = row_of(AgentRow(**{"uid": "7", "epoch": epoch, "spec": given, **row}))
        self.holder = Holder(self.site, agent, events=Events(ended=lambda _, reason: self.over.append(reason)))
        self.made.append(self.holder)
        if heard:
            async with asyncio.timeout(5):
                await self.reports.first.wait()
        return self.holder

    async def take_over(self, epoch: int, **row: Any) -> Holder:
        await self.holder.stop(finish_turn=False)
        return await self.start(epoch, ready_epoch=epoch - 1, **row)

    def book(self) -> turns.Book:
        """What the next holder would find: the newest of the servers'."""
        return turns.load(self.entries())

    def entries(self) -> dict[str, bytes]:
        found = max(
            (cells["7"] for cells in self.servers.cells.values() if "7" in cells), key=lambda one: one[0].version
        )
        return found[1]

    def call(self, key: int = 1, client: str = "c", within_s: float = 5.0, kind: Any = CALL_KIND_ACTION) -> Any:
        return submit(self.holder, key, kind, client, within_s)

    def control(self, method: str, **arguments: Any) -> Any:
        call = Call(agent="shop/a", kind=CALL_KIND_CONTROL, method=method, arguments=pack(arguments))
        return self.holder.submit(call, "spiffe://x", boot_ns() + int(5e9))

    def send(self, n: int, prev: int = 0, sender: str = "5", **more: Any) -> asyncio.Future[Any]:
        work = more.pop("work", tenure_link.Work(name=f"do{n}"))
        body = b"" if more.get("void") else pack(work)
        signal = Signal(sender, "7", n, prev, 99.0, body, source=f"shop/s{sender}", **more)
        return delivered(self.holder, signal)

    async def turn(self) -> tenure_link.Turn:
        await self.until(lambda: not self.played.worker.lost)
        return await self.played.turn()

    async def end(self, turn: Any = None, **what: Any) -> tenure_link.Turn:
        """The next turn ends."""
        turn = turn or await self.turn()
        self.played.done(turn, **({"reply": pack(None), "state": STATE} | what))
        return turn

    def progress(self, turn: Any, position: int = 0, entry: Any = None, lasts: float = 60.0) -> None:
        frame = tenure_link.Progress(turn.turn, "7", position, entry, lasts)
        assert self.played.worker.answered(frame)

    async def accepted(self, turn: Any = None) -> tenure_link.Turn:
        """The next turn comes to its first step; that is durable."""
        turn = turn or await self.turn()
        self.progress(turn)
        await self.until(lambda: any(one.turn == turn.turn for one in self.played.heard(tenure_link.Progressed)))
        return turn

    async def stepped(self, turn: Any, position: int, name: str, result: Any) -> None:
        before = len(self.played.heard(tenure_link.Progressed))
        self.progress(turn, position, tenure_link.Entry(name, pack(result)))
        await self.until(lambda: len(self.played.heard(tenure_link.Progressed)) > before)

    async def until(self, condition: Any, within_s: float = 5.0) -> Any:
        """Let callbacks run until it holds; its value."""
        async with asyncio.timeout(within_s):
            while not (value := condition()):  # noqa: ASYNC110 - callbacks, of no event that a test could see
                await asyncio.sleep(0.001)
        return value

    async def quiet(self) -> None:
        """Whatever can happen now has happened."""
        for _ in range(50):
            await asyncio.sleep(0)

    def no_turn(self) -> bool:
        return self.played.turns.empty()

    def lose_worker(self, begun: Any = None, *, no_fault: bool = False) -> None:
        """`begun`: turns that had begun there; None: nobody knows. `no_fault`: PID 1 had reasons of its own."""
        self.played.worker.begun = None if begun is None else frozenset(begun)
        self.played.worker.no_fault = no_fault
        self.pool.kill(self.played.worker, "gone")


def named(turn: Any) -> str:
    """The action that it asks for."""
    return msgspec.msgpack.decode(turn.arguments, type=tenure_link.Work).name


def sends(to: str, name: str = "x", **more: Any) -> tuple[tenure_link.Outgoing, ...]:
    return (tenure_link.Outgoing(to=to, work=pack(tenure_link.Work(name=name)), **more),)


def delivered(to: Any, signal: Signal) -> asyncio.Future[Any]:
    """The answer to it; a second one would be an error."""
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    to.deliver(signal, answer.set_result)
    return answer


@asynccontextmanager
async def playing() -> AsyncIterator[Scene]:
    servers, lease, reports, pool = MemoryServers(), FakeLease(), Reports(), Pool()
    mirror, courier = PlayedMirror(), PlayedCourier()
    made: list[Holder] = []
    played_parts = {"lease": lease, "pool": pool, "reports": reports, "mirror": mirror, "courier": courier}
    site = site_of(servers, **played_parts, random=lambda: 0.0)
    yield Scene(
        servers=servers,
        lease=lease,
        reports=reports,
        pool=pool,
        mirror=mirror,
        courier=courier,
        site=site,
        made=made,
    )
    for holder in made:
        await holder.stop(finish_turn=False)
