"""A joining server without processes: real disks, and other servers that fail as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from tenure_api.identity import Identity, Role
from tenure_proto.v1 import store_pb2
from tenured.core import commands as c
from tenured.core.agentspec import AgentSpec
from tenured.core.cells import Version
from tenured.raft import Applied, NotApplied, Outcome
from tenured.server import joining
from tenured.server.joining import Joining
from tenured.server.lending import Lender
from tenured.server.replica import Replica
from tenured.storage import AdoptItem, Reading, Register
from tenured.transport.errors import NotConnected

ASKER = Identity("demo.shop", Role.SERVER, "s0")


class Log:
    """One registry that all servers share, and entries that are decided at once."""

    def __init__(self) -> None:
        self.replica = Replica()
        self.index = 0
        self.voter = True
        self.decides = True

    async def propose(self, command: bytes, timeout_s: float, *, term: int | None = None) -> Outcome:
        if not self.decides:
            return NotApplied("there is no leader")
        self.index += 1
        return Applied(self.index, self.replica.apply(self.index, command))

    def place(self, command: c.Command) -> None:
        self.index += 1
        self.replica.apply(self.index, c.encode(command))

    def role(self) -> object:
        return SimpleNamespace(voter=self.voter, ready=True)


class Other:
    """Another server: its disk, what it lends, and how it fails."""

    def __init__(self, log: Log, register: Register) -> None:
        self.register = register
        self.lender = Lender(log.replica, register)
        self.down = False
        self.unreadable: set[str] = set()
        self.fetched: list[str] = []
        self.before_list: Callable[[], None] = lambda: None

    async def list_records(
        self, request: store_pb2.ListRecordsRequest, timeout_s: float
    ) -> store_pb2.ListRecordsResponse:
        self.before_list()
        if self.down:
            raise NotConnected("nobody answers")
        return await self.lender.list_records(ASKER, request)

    async def fetch_records(
        self, request: store_pb2.FetchRecordsRequest, timeout_s: float
    ) -> store_pb2.FetchRecordsResponse:
        if self.down:
            raise NotConnected("nobody answers")
        self.fetched += request.uids
        answer = await self.lender.fetch_records(ASKER, request)
        for item in answer.items:
            if item.uid in self.unreadable:
                item.message = "damaged"
                item.ClearField("entries")
        return answer

    async def close(self) -> None:
        pass


class Scene:
    def __init__(self, log: Log, own: Register, others: dict[str, Other]) -> None:
        self.log, self.own, self.others = log, own, others
        registration = c.RegisterServer(name="s0", incarnation="")
        connect = {name: (lambda other=other: other) for name, other in others.items()}
        self.joining = Joining(registration, log.replica, log, own, connect)

    async def put(self, server: str, uid: str, sealed: int, seq: int) -> None:
        item = AdoptItem(uid=uid, sealed=sealed, version=Version(1, seq), entries={"s": f"{uid}.{seq}".encode()})
        await self.others[server].register.adopt([item], 0, "")

    async def run(self) -> None:
        async with asyncio.timeout(30):
            await self.joining.run()

    async def waits(self, sentence: str) -> asyncio.Task[None]:
        """Start joining, and return when it says this."""
        task = asyncio.create_task(self.run())
        await self.says(sentence)
        return task

    async def says(self, sentence: str) -> None:
        async with asyncio.timeout(30):
            while sentence not in self.joining.trouble:  # noqa: ASYNC110 - nobody is told when a sentence changes
                await asyncio.sleep(0.01)

    async def reading(self, uid: str) -> Reading:
        return (await self.own.read_many([uid]))[0]


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Register]:
    register = Register(path.with_suffix(".db"))
    await register.open()
    yield register
    await register.close()


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    """s0 had a disk that is lost; s1 and s2 have theirs."""
    monkeypatch.setattr(joining, "PAUSE_S", 0.01)
    monkeypatch.setattr(joining, "PAGE", 3)
    log = Log()
    async with opened(tmp_path / "s0") as own, opened(tmp_path / "s1") as one, opened(tmp_path / "s2") as two:
        for name, incarnation in (("s0", "the lost disk"), ("s1", one.incarnation), ("s2", two.incarnation)):
            log.place(c.RegisterServer(name=name, incarnation=incarnation))
        await one.admit()
        await two.admit()
        log.place(
            c.ApplyAgents(agents=tuple(AgentSpec(id=f"shop/a{n}", class_name="A") for n in range(9)), managed_by="API")
        )
        yield Scene(log, own, {"s1": Other(log, one), "s2": Other(log, two)})


async def test_the_highest_seal_and_version_of_the_others_are_taken_over(scene: Scene) -> None:
    """Rejoin 4: a seal of one, a version of the other, and a record that only one of them has."""
    await scene.put("s1", "5", sealed=3, seq=1)
    await scene.put("s2", "5", sealed=1, seq=2)
    await scene.put("s2", "6", sealed=1, seq=7)
    for number in range(7, 14):
        await scene.put("s1", str(number), sealed=1, seq=1)
    await scene.run()
    reading = await scene.reading("5")
    assert (reading.version, dict(reading.entries)) == (Version(1, 2), {"s": b"5.2"})
    assert dict((await scene.reading("6")).entries) == {"s": b"6.7"}
    page = await scene.own.page("", 100)
    assert page is not None
    assert {head.uid: head.sealed for head in page.heads}["5"] == 3
    assert len(page.heads) == 9
    assert scene.log.replica.registry.view == 2
    assert not scene.own.joining
    assert not scene.log.replica.registry.servers["s0"].joining


async def test_nothing_is_taken_over_without_a_majority_of_the_others(scene: Scene) -> None:
    """With three servers both others, each in the new view."""
    await scene.put("s1", "5", sealed=1, seq=1)
    scene.others["s2"].down = True
    task = await scene.waits("read from 2 other servers; not from s2 now")
    assert scene.own.joining
    assert (await scene.reading("5")).version == Version()
    scene.others["s2"].down = False
    await task
    assert (await scene.reading("5")).version == Version(1, 1)


async def test_a_record_that_one_holder_cannot_read_comes_from_another(scene: Scene) -> None:
    """And what only a damaged disk holds keeps the server out, with a sentence, until it can be read."""
    for server in ("s1", "s2"):
        await scene.put(server, "5", sealed=1, seq=1)
    await scene.put("s2", "6", sealed=1, seq=1)
    scene.others["s2"].unreadable = {"5", "6"}
    task = await scene.waits("record 6 cannot be read from s2")
    assert (await scene.reading("5")).version == Version(1, 1)
    before = len(scene.others["s1"].fetched)
    scene.others["s2"].unreadable.clear()
    await task
    assert scene.others["s1"].fetched[before:] == [], "what has come is not fetched again"


async def test_the_vote_comes_first_and_one_disk_at_a_time(scene: Scene) -> None:
    """Rejoin 2: no new view without a vote, nor while another server is joining."""
    scene.log.voter = False
    task = await scene.waits("it waits for its vote in Raft first")
    assert scene.log.replica.registry.view == 1
    scene.log.place(c.ReplaceServer(name="s1", incarnation="another disk"))
    scene.log.voter = True
    await scene.says("while s1 still reads its own anew")
    assert scene.log.replica.registry.view == 2
    scene.log.place(c.ServerJoined(name="s1", incarnation="another disk"))
    await task
    assert scene.log.replica.registry.view == 3


async def test_a_crash_in_the_middle_goes_on_under_the_same_view(scene: Scene, tmp_path: Path) -> None:
    """Each page is synced with how far it got: the next process asks for what comes after."""
    for number in range(5, 13):
        for server in ("s1", "s2"):
            await scene.put(server, str(number), sealed=1, seq=1)
    pages = 0

    def crash() -> None:
        nonlocal pages
        pages += 1
        if pages == 3:
            raise asyncio.CancelledError  # the process ends here

    scene.others["s1"].before_list = crash
    with pytest.raises(asyncio.CancelledError):
        await scene.run()
    scene.others["s1"].before_list = lambda: None
    fetched = {uid for other in scene.others.values() for uid in other.fetched}
    assert 0 < len(fetched) < 8
    await scene.own.close()
    again = Register(tmp_path / "s0.db")
    await again.open()
    assert again.joining
    assert again.joined == (2, max(fetched))
    for other in scene.others.values():
        other.fetched.clear()
    second = Scene(scene.log, again, scene.others)
    await second.run()
    assert not fetched & {uid for other in scene.others.values() for uid in other.fetched}
    assert scene.log.replica.registry.view == 2, "the same disk needs no other view"
    assert len(await again.uids()) == 8
    await again.close()


async def test_another_new_disk_of_the_same_server_begins_anew(scene: Scene, tmp_path: Path) -> None:
    """It may be replaced again while it joins: another view, and nothing of the first attempt counts."""
    await scene.put("s1", "5", sealed=1, seq=1)
    scene.others["s2"].down = True
    task = await scene.waits("not from s2 now")
    task.cancel()
    scene.others["s2"].down = False
    async with opened(tmp_path / "s0 again") as disk:
        await Scene(scene.log, disk, scene.others).run()
        assert scene.log.replica.registry.view == 3
        assert await disk.uids() == ["5"]
