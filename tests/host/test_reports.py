"""What a host says of its agents: the latest word of each, and a count that no word loses."""

from __future__ import annotations

import asyncio

from tenure_proto.v1.hostlink_pb2 import AgentReport, CommandResult, HostFrame, ServerFrame, Trouble
from tenured.host.reports import GATHERED, Patience, Reporter
from tenured.simulation.timeline import NS, Clock, ProcessLoop, Timeline


class Links:
    """A leader that notes what it takes."""

    leader = "server-1"
    connected = frozenset({"server-1"})

    def __init__(self) -> None:
        self.taken: list[AgentReport] = []

    async def request(self, server: str, frame: HostFrame, timeout_s: float) -> ServerFrame:
        self.taken += frame.agent_reports.reports
        return ServerFrame(result=CommandResult(ok=True))


async def told(say: object) -> list[AgentReport]:
    links = Links()
    reporter = Reporter(links, "inc")  # type: ignore[arg-type] # the part of it that is used
    say(reporter)  # type: ignore[operator] # a test's own
    task = asyncio.ensure_future(reporter.run())
    await reporter.settled()
    task.cancel()
    return links.taken


async def test_a_count_goes_with_the_word_that_waits() -> None:
    """In either order: neither overwrites the other."""

    def say(reporter: Reporter) -> None:
        reporter.ready("1", 4)
        reporter.dead_letters("1", 4, 2)
        reporter.dead_letters("2", 1, 3)
        reporter.trouble("2", 1, Trouble(phase="Paused", reason="Paused"))

    first, second = await told(say)
    assert (first.ready, first.dead_letters) == (True, 2)
    assert (second.trouble.phase, second.dead_letters) == ("Paused", 3)


async def test_a_count_of_an_earlier_epoch_is_dropped() -> None:
    """The new activation has read the record and counts itself."""

    def say(reporter: Reporter) -> None:
        reporter.dead_letters("1", 4, 2)
        reporter.hibernated("1", 5, 99.5)

    (report,) = await told(say)
    assert (report.epoch, report.hibernated.wake_at, report.HasField("dead_letters")) == (5, 99.5, False)


async def test_no_letters_are_a_count_too() -> None:
    def say(reporter: Reporter) -> None:
        reporter.dead_letters("1", 4, 0)

    (report,) = await told(say)
    assert report.HasField("dead_letters")
    assert report.WhichOneof("what") is None


async def test_a_word_that_is_in_no_hurry_goes_soon_and_with_what_comes_meanwhile() -> None:
    """A new agent has answered by then: its Ready is out of the way of that, and of one entry with others."""
    (report,) = await told(lambda reporter: reporter.ready("1", 1, patience=GATHERED))
    assert report.ready

    def say(reporter: Reporter) -> None:
        reporter.ready("1", 1, patience=GATHERED)
        reporter.ready("2", 1)

    assert [report.uid for report in await told(say)] == ["1", "2"]


async def test_a_word_that_can_wait_holds_up_none_that_can_wait_less() -> None:
    """And goes with it."""

    def say(reporter: Reporter) -> None:
        reporter.ready("1", 1, patience=Patience(1000, 1000))
        reporter.ready("2", 1, patience=Patience(0.001, 0.001))
        reporter.ready("3", 1, patience=Patience(1000, 1000))

    async with asyncio.timeout(10):
        assert [report.uid for report in await told(say)] == ["1", "2", "3"]


def test_new_agents_that_keep_coming_are_told_together_and_none_waits_longer_than_a_second() -> None:
    """ADR 0033, 5: an entry for every few of them would be in the way of the replies to the next ones."""
    timeline = Timeline()
    loop = ProcessLoop(timeline, Clock(1.0, 0), "host", lambda *_: None)
    links = Links()
    made: dict[str, float] = {}
    told: dict[str, float] = {}
    frames: list[int] = []

    async def request(server: str, frame: HostFrame, timeout_s: float) -> ServerFrame:
        frames.append(len(frame.agent_reports.reports))
        told.update({report.uid: loop.time() for report in frame.agent_reports.reports})
        return ServerFrame(result=CommandResult(ok=True))

    links.request = request  # type: ignore[method-assign]

    async def story() -> None:
        reporter = Reporter(links, "inc")  # type: ignore[arg-type] # the part of it that is used
        loop.create_task(reporter.run())
        for number in range(300):
            made[str(number)] = loop.time()
            reporter.ready(str(number), 1, patience=GATHERED)
            await asyncio.sleep(0.01)

    with loop.running():
        loop.create_task(story())
    loop.call_soon(lambda: None)
    while timeline.next_at is not None and timeline.now < 10 * NS:
        timeline.step()
    assert len(told) == 300
    assert len(frames) <= 4
    assert max(told[uid] - made[uid] for uid in made) < 1.01
    assert told["299"] - made["299"] < 0.2, "nothing came behind it"
