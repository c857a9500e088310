"""`tenure.testing` for local agents, and its pytest plugin: what a test of agents can see, move, and break."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pydantic
import pytest

import tenure
from tenure import errors, sensors
from tenure.signals import Signal
from tenure.storage import SQLiteStorage, Storage, StorageError, StorageUnreadable
from tenure.testing import FakeSensor, FakeStorage, LocalFaults, Recorder, SignalSpy, StorageContract, VirtualRuntime
from tenure_pytest import RuntimeFactory


class Work(tenure.State):
    count: int = 0
    starts: list[bool] = pydantic.Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Page(tenure.Directive):
    """A directive of one's own."""

    number: str


class Worker(tenure.Agent[Work], subscribes=["work.*"]):
    """Counts, plans, and can hang."""

    def on_start(self, ctx: tenure.Context) -> None:
        self.state.starts.append(ctx.recovered)

    @tenure.on("work.wanted")
    @tenure.action
    def work(self, ctx: tenure.Context, by: int = 1) -> int:
        self.state.count += by
        ctx.emit("worked", {"count": self.state.count})
        return self.state.count

    @tenure.action
    def later(self, ctx: tenure.Context, seconds: float) -> None:
        ctx.after(seconds, Worker.work(), name="later")

    @tenure.action
    def page(self, ctx: tenure.Context) -> None:
        ctx.do(Page("112"))

    @tenure.action
    async def hang(self) -> None:
        await asyncio.Event().wait()

    @tenure.action(max_retries=3, backoff=30)
    def unlucky(self) -> None:
        raise ConnectionError("no line")

    @tenure.action
    def listen(self, ctx: tenure.Context) -> None:
        ctx.start_sensor("beat", sensors.Heartbeat(interval=10, type="work.wanted"))

    @tenure.action
    def listen_to(self, ctx: tenure.Context) -> None:
        ctx.start_sensor("door", FakeSensor([sensors.Report("work.wanted", {"by": 7})]))

    @tenure.query
    def count(self) -> int:
        return self.state.count


# --- time ---


async def test_time_stands_still_until_it_is_moved(runtime: VirtualRuntime) -> None:
    assert runtime.now == datetime(2024, 1, 1, tzinfo=UTC)
    worker = await runtime.create(Worker, "w")
    await worker.later(3600)
    await runtime.advance(3599.5)
    assert runtime.state(worker).count == 0
    await runtime.advance_to(runtime.now + timedelta(hours=1))
    assert runtime.state(worker).count == 1
    assert runtime.now == datetime(2024, 1, 1, 1, 59, 59, 500_000, tzinfo=UTC)
    with pytest.raises(errors.UsageError, match="is past"):
        await runtime.advance_to(datetime(2023, 1, 1, tzinfo=UTC))
    with pytest.raises(errors.UsageError, match="no time zone"):
        await runtime.advance_to(datetime(2025, 1, 1))  # noqa: DTZ001


async def test_waits_between_attempts_take_no_time(runtime: VirtualRuntime) -> None:
    worker = await runtime.create(Worker, "w")
    with pytest.raises(errors.ActionFailed, match="no line"):
        await worker.unlucky()


async def test_sensors_live_in_the_time_of_the_runtime(runtime: VirtualRuntime) -> None:
    worker = await runtime.create(Worker, "w")
    await worker.listen()
    await runtime.advance(35)
    assert runtime.state(worker).count == 3
    await worker.listen_to()
    await runtime.idle()
    assert runtime.state(worker).count == 10


async def test_waiting_for_a_condition_lets_time_go_on(runtime: VirtualRuntime) -> None:
    worker = await runtime.create(Worker, "w")
    await worker.later(30)
    await runtime.until(lambda: runtime.state(worker).count == 1)
    assert (runtime.now - datetime(2024, 1, 1, tzinfo=UTC)).total_seconds() == 30
    await worker.later(100)
    with pytest.raises(errors.WaitTimeout) as caught:
        await runtime.until(lambda: runtime.state(worker).count == 2, what="a count of 2")
    assert "a count of 2 did not come within 60 s" in str(caught.value)
    assert "next event: in 40 s" in str(caught.value)
    assert caught.value.diagnosis["agents"] == {"default/w": "idle, 0 waiting"}


async def test_a_wait_for_a_turn_that_hangs_names_it() -> None:
    async with VirtualRuntime(patience=0.05) as runtime:
        worker = await runtime.create(Worker, "w")
        call = asyncio.create_task(worker.hang())
        waiting = asyncio.create_task(worker.work())
        await asyncio.sleep(0)
        with pytest.raises(errors.WaitTimeout, match=r"still running after 0.05 s: default/w hang, default/w work"):
            await runtime.idle()
        assert runtime.diagnosis()["agents"] == {"default/w": "processing, 1 waiting"}
    results = await asyncio.gather(call, waiting, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, asyncio.CancelledError]


# --- signals ---


async def test_the_spy_sees_everything_and_waits(runtime: VirtualRuntime, signals: SignalSpy) -> None:
    worker = await runtime.create(Worker, "w")
    signals.assert_none()
    await worker.later(20)
    found = await signals.wait_for("worked", where=lambda signal: signal.data == {"count": 1})
    assert found.source == "default/w"
    await runtime.publish(Signal.new("work.wanted", {"by": 4}, source="test"))
    await signals.wait_for("worked", where=lambda signal: signal.data["count"] == 5)
    assert signals.types == ["worked", "work.wanted", "worked"]
    with pytest.raises(AssertionError, match=r"no work\.\* was to come, and 1 did"):
        signals.assert_none("work.*")
    with pytest.raises(AssertionError, match=r"a signal order\.\* did not come within 5 s(?s:.*)signals seen: worked"):
        await signals.wait_for("order.*", within=5)
    signals.clear()
    signals.assert_none()


async def test_nothing_is_said_to_be_missing_while_turns_run(runtime: VirtualRuntime, signals: SignalSpy) -> None:
    await runtime.create(Worker, "w")
    await runtime.publish(Signal.new("work.wanted", source="test"))
    with pytest.raises(AssertionError, match=r"nobody can tell yet: .*work\.wanted"):
        signals.assert_none("worked")
    await runtime.idle()
    assert signals.seen("worked")


# --- fakes ---


@pytest.fixture
def pages() -> Recorder[Page]:
    return Recorder(Page)


@pytest.fixture
def runtime_options(pages: Recorder[Page]) -> Mapping[str, Any]:
    return {"executors": pages.executors}


async def test_executors_are_recorded(runtime: VirtualRuntime, pages: Recorder[Page], signals: SignalSpy) -> None:
    worker = await runtime.create(Worker, "w")
    await worker.page()
    assert pages.seen == [("default/w", Page("112"))]
    pages.error = OSError("no line")
    await worker.page()
    assert pages.directives == [Page("112"), Page("112")]
    signals.assert_none()


class TestFakeStorage(StorageContract):
    """A storage that has no script is as good as any."""

    durable = False

    async def make(self) -> Storage:
        return FakeStorage()


class TestFakeStorageAroundAnother(StorageContract):
    """So is one around another."""

    @pytest.fixture(autouse=True)
    def _path(self, tmp_path: Path) -> None:
        self.path = tmp_path / "agents.db"

    async def make(self) -> Storage:
        return FakeStorage(SQLiteStorage(self.path))


async def test_a_storage_fails_by_script(runtime: VirtualRuntime, storage: FakeStorage) -> None:
    worker = await runtime.create(Worker, "w")
    storage.full(after=1, times=2)
    assert await worker.work() == 1
    for _ in range(2):
        with pytest.raises(errors.Unavailable, match="the disk is full"):
            await worker.work()
    assert await worker.work() == 2
    storage.slow(10)
    before = runtime.now
    call = asyncio.create_task(worker.work())
    await runtime.advance(9)
    assert not call.done()
    await runtime.advance(1)
    assert (await call, (runtime.now - before).total_seconds()) == (3, 10)
    assert set(storage.writes) == {"default/w"}


async def test_somebody_else_writes(runtime: VirtualRuntime, storage: FakeStorage) -> None:
    """Whoever lost the race is told, and goes on only from what is stored."""
    worker = await runtime.create(Worker, "w")
    storage.conflict(after=1)
    assert await worker.work() == 1
    with pytest.raises(errors.Fenced, match="another process has written"):
        await worker.work()
    assert not runtime.alive(worker)
    await runtime.create(Worker, "w")
    assert await worker.work() == 2


async def test_what_is_torn_is_no_empty_state(runtime: VirtualRuntime, storage: FakeStorage) -> None:
    worker = await runtime.create(Worker, "w")
    await worker.work()
    storage.tear("default/w")
    with pytest.raises(StorageUnreadable):
        await runtime.restart()
    assert not runtime.alive(worker)
    storage.heal()
    await runtime.create(Worker, "w")
    assert await worker.count() == 1


# --- faults ---


async def test_a_crash_before_the_commit(runtime: VirtualRuntime, faults: LocalFaults, signals: SignalSpy) -> None:
    """Nothing of the turn is kept; the agent begins again, and whoever waits gets there."""
    worker = await runtime.create(Worker, "w")
    faults.crash_turn(Worker.work, after=1)
    results = await asyncio.gather(*(worker.work() for _ in range(4)), return_exceptions=True)
    assert [result for result in results if isinstance(result, int)] == [1, 2, 3]
    assert isinstance(results[1], errors.WorkerCrashed)
    assert runtime.state(worker) == Work(count=3, starts=[False, True])
    assert signals.types == ["worked"] * 3


async def test_a_crash_after_the_commit(runtime: VirtualRuntime, faults: LocalFaults, signals: SignalSpy) -> None:
    """State and signals are there, and the caller cannot know."""
    worker = await runtime.create(Worker, "w")
    await worker.later(10)
    faults.crash_turn("Worker.work", when="after_commit")
    with pytest.raises(errors.Unavailable) as caught:
        await worker.work()
    assert caught.value.outcome == "unknown"
    assert (await worker.count(), signals.types) == (1, ["worked"])
    await runtime.advance(10)
    assert await worker.count() == 2, "its timer has outlived the crash"


async def test_a_crash_in_the_turn_of_a_signal(runtime: VirtualRuntime, faults: LocalFaults) -> None:
    worker = await runtime.create(Worker, "w")
    faults.crash_turn("work.wanted")
    with pytest.raises(errors.WorkerCrashed):
        await runtime.signal(worker, Signal.new("work.wanted", source="test"))
    assert await runtime.signal(worker, Signal.new("work.wanted", source="test")) == 1


async def test_turns_take_their_time(runtime: VirtualRuntime, faults: LocalFaults) -> None:
    worker = await runtime.create(Worker, "w")
    faults.delay(Worker.work, 20)
    call = asyncio.create_task(worker.work())
    await runtime.idle()
    assert await worker.count() == 0
    await runtime.advance(20)
    assert await call == 1
    faults.delay(Worker.work, 31)
    call = asyncio.create_task(worker.work())
    await runtime.advance(40)
    with pytest.raises(errors.DeadlineExceeded):
        await call
    assert await worker.count() == 1


async def test_a_restart(runtime: VirtualRuntime, faults: LocalFaults, signals: SignalSpy) -> None:
    """Agents, references, timers, spies and configuration go on; calls that were under way are told."""
    worker = await runtime.create(Worker, "w", state={"count": 4})
    await worker.later(10)
    call = asyncio.create_task(worker.hang())
    await asyncio.sleep(0)
    await faults.restart()
    with pytest.raises(errors.Unavailable, match="the runtime ended in the turn"):
        await call
    assert runtime.state(worker) == Work(count=4, starts=[False, True])
    await runtime.advance(10)
    assert await worker.count() == 5
    assert signals.types == ["worked"]
    assert [signal.type for signal in runtime.signals] == ["worked"]


class Boss(tenure.Agent[Work]):
    """Has a child."""

    @tenure.action
    def hire(self, ctx: tenure.Context) -> None:
        ctx.spawn(Worker, "child", tag="worker", state={"count": 10})

    @tenure.on("tenure.child.**")
    @tenure.action
    def told(self, signal: Signal) -> None:
        self.state.count += signal.type == "tenure.child.ended"


async def test_a_crash_is_no_end(runtime: VirtualRuntime, faults: LocalFaults) -> None:
    """Parents are not told of crashes and restarts: a child that begins again has not ended."""
    boss = await runtime.create(Boss, "boss")
    await boss.hire()
    await runtime.idle()
    child = runtime.agent(Worker, "child")
    faults.crash_turn(Worker.work)
    with pytest.raises(errors.WorkerCrashed):
        await child.work()
    assert await child.work() == 11
    await faults.restart()
    assert await child.work() == 12
    await runtime.idle()
    assert runtime.state(boss).count == 0
    await runtime.stop(boss)
    await runtime.idle()
    assert not runtime.alive(child), "they still belong together"


async def test_a_storage_that_cannot_be_told(runtime_factory: RuntimeFactory, tmp_path: Path) -> None:
    runtime = runtime_factory(storage=SQLiteStorage(tmp_path / "a.db"))
    with pytest.raises(errors.UsageError, match="FakeStorage"):
        runtime.faults.fail_storage()
    assert await (await runtime.create(Worker, "w")).work() == 1
    await runtime.restart()
    assert await runtime.agent(Worker, "w").work() == 2
    await runtime.storage.close()


async def test_an_error_of_ones_own_for_a_storage(runtime: VirtualRuntime, faults: LocalFaults) -> None:
    worker = await runtime.create(Worker, "w")
    faults.fail_storage(error=StorageError("the bank is closed"))
    with pytest.raises(errors.Unavailable, match="the bank is closed"):
        await worker.work()


async def test_runtimes_are_isolated(runtime_factory: RuntimeFactory) -> None:
    one, two = runtime_factory(), runtime_factory(namespace="shop")
    assert await (await one.create(Worker, "w")).work() == 1
    assert await (await two.create(Worker, "w")).work() == 1
    assert two.alive("shop/w")
    assert not one.alive("shop/w")
