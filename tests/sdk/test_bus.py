"""`tenure.signals.Bus`: publish, subscribe, stream, replay, spy."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest

from tenure.signals import Bus, Overflow, Signal


def signal(type_: str, data: object = None, *, at: datetime | None = None) -> Signal:
    return Signal.new(type_, data, source="shop/a", time=at)


async def test_everybody_who_subscribed_hears_in_order() -> None:
    bus, heard = Bus(), list[str]()

    async def slow(one: Signal) -> None:
        await asyncio.sleep(0)
        heard.append(f"slow {one.data}")

    bus.subscribe("order.*", slow)
    bus.subscribe("**", lambda one: heard.append(f"first {one.data}"), priority=10)
    await bus.publish(signal("order.paid", 1), signal("other", 2), signal("order.sent", 3))
    assert heard == ["first 1", "slow 1", "first 2", "first 3", "slow 3"]


async def test_a_subscription_ends_once_and_alone() -> None:
    bus, heard = Bus(), list[Signal]()
    first = bus.subscribe("a", heard.append)
    with bus.subscribe("a", heard.append):
        await bus.publish(signal("a"))
    assert len(heard) == 2, "the same function twice is two subscriptions"
    await bus.publish(signal("a"))
    first.close()
    first.close()
    await bus.publish(signal("a"))
    assert len(heard) == 3


async def test_a_subscriber_that_raises_hurts_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    bus, heard = Bus(), list[Signal]()

    def broken(_: Signal) -> None:
        raise RuntimeError("of its own")

    bus.subscribe("a", broken, priority=1)
    bus.subscribe("a", heard.append)
    with caplog.at_level(logging.ERROR, "tenure.signals"):
        await bus.publish(signal("a"))
    assert len(heard) == 1
    assert "of its own" in caplog.text


async def test_a_stream_gives_what_came_and_then_what_comes() -> None:
    bus = Bus()
    stream = bus.stream("a.*")
    await bus.publish(signal("a.b", 1), signal("c"), signal("a.b", 2))
    stream.close()
    await bus.publish(signal("a.b", 3))
    assert [one.data async for one in stream] == [1, 2]


async def test_a_slow_reader_is_cut_off_and_told() -> None:
    bus = Bus()
    stream = bus.stream(limit=2)
    await bus.publish(*(signal("a", number) for number in range(5)))
    reader = aiter(stream)
    assert [(await anext(reader)).data, (await anext(reader)).data] == [0, 1]
    with pytest.raises(Overflow, match="more than 2"):
        await anext(reader)
    missed = [one.data for one in bus.replay(after=next(iter(bus.replay(limit=1))).id)]
    assert missed == [1, 2, 3, 4]


async def test_replay_by_pattern_time_and_place() -> None:
    bus, began = Bus(log_limit=3), datetime(2026, 1, 1, tzinfo=UTC)
    past = [signal(f"a.{number}", number, at=began + timedelta(seconds=number)) for number in range(5)]
    await bus.publish(*past)
    assert [one.data for one in bus.replay()] == [2, 3, 4], "the log is bounded: the oldest went"
    assert [one.data for one in bus.replay("a.3")] == [3]
    assert [one.data for one in bus.replay(since=began + timedelta(seconds=3))] == [3, 4]
    assert [one.data for one in bus.replay(after=past[3].id)] == [4]
    assert [one.data for one in bus.replay(after=past[0].id)] == [2, 3, 4], "gone from the log: all that is there"
    assert [one.data for one in bus.replay(limit=2)] == [2, 3]


async def test_a_spy_waits_for_what_crosses() -> None:
    bus = Bus()
    with bus.spy() as spy:
        waiting = asyncio.create_task(spy.wait_for("order.*", lambda one: one.data == 2))
        await bus.publish(signal("order.paid", 1), signal("order.paid", 2))
        assert (await waiting).data == 2
        assert [one.data for one in spy.seen("order.paid")] == [1, 2]
        with pytest.raises(AssertionError, match=r"the last signals: order\.paid, order\.paid"):
            await spy.wait_for("other", timeout=0)
    await bus.publish(signal("order.paid", 3))
    assert len(spy.signals) == 2
