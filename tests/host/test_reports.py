"""What a host says of its agents: the latest word of each, and a count that no word loses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

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


def played(story: Callable[[Reporter], Coroutine[None, None, None]]) -> list[tuple[float, list[str]]]:
    """Of each frame that the leader takes within 10 s of virtual time: when, and of whom."""
    timeline = Timeline()
    loop = ProcessLoop(timeline, Clock(1.0, 0), "host", lambda *_: None)
    frames: list[tuple[float, list[str]]] = []

    class Noting(Links):
        async def request(self, server: str, frame: HostFrame, timeout_s: float) -> ServerFrame:
            frames.append((loop.time(), [report.uid for report in frame.agent_reports.reports]))
            return await super().request(server, frame, timeout_s)

    async def begun() -> None:
        reporter = Reporter(Noting(), "inc")  # type: ignore[arg-type] # the part of it that is used
        loop.create_task(reporter.run())
        await story(reporter)

    with loop.running():
        loop.create_task(begun())
    loop.call_soon(lambda: None)
    while timeline.next_at is not None and timeline.now < 10 * NS:
        timeline.step()
    return frames


def test_a_word_that_is_in_no_hurry_goes_soon_and_with_what_comes_meanwhile() -> None:
    """A new agent has answered by then: its Ready is out of the way of that, and of one entry with others."""

    async def alone(reporter: Reporter) -> None:
        reporter.ready("1", 1, patience=GATHERED)

    ((when, uids),) = played(alone)
    assert uids == ["1"]
    assert 0.1 <= when < 0.2

    async def with_another(reporter: Reporter) -> None:
        reporter.ready("1", 1, patience=GATHERED)
        reporter.ready("2", 1)

    ((when, uids),) = played(with_another)
    assert uids == ["1", "2"]
    assert when < 0.01


def test_a_word_that_can_wait_holds_up_none_that_can_wait_less() -> None:
    """And goes with it."""

    async def story(reporter: Reporter) -> None:
        reporter.ready("1", 1, patience=Patience(1000, 1000))
        reporter.ready("2", 1, patience=Patience(0.5, 0.5))
        reporter.ready("3", 1, patience=Patience(1000, 1000))

    ((when, uids),) = played(story)
    assert uids == ["1", "2", "3"]
    assert 0.5 <= when < 0.51


def test_a_host_that_leaves_waits_for_no_others() -> None:
    """Until all is committed, and what would wait for company goes at once."""

    async def story(reporter: Reporter) -> None:
        reporter.ready("1", 1, patience=Patience(1000, 1000))
        await reporter.settled()
        reporter.ready("2", 1)

    assert [uids for _, uids in played(story)] == [["1"], ["2"]]


def test_new_agents_that_keep_coming_are_told_together_and_none_waits_longer_than_a_second() -> None:
    """ADR 0033, 5: an entry for every few of them would be in the way of the replies to the next ones."""

    async def story(reporter: Reporter) -> None:
        for number in range(300):
            reporter.ready(str(number), 1, patience=GATHERED)
            await asyncio.sleep(0.01)  # virtual

    frames = played(story)
    told = {int(uid): when for when, uids in frames for uid in uids}
    assert len(told) == 300
    assert len(frames) <= 4
    assert max(when - number * 0.01 for number, when in told.items()) < 1.05
    assert told[299] - 2.99 < 0.2, "nothing came behind it"
