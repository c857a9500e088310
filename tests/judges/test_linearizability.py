"""Histories of real servers under faults, judged by Porcupine; and histories that are wrong, seen by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from local_servers import LocalServers, until

from tenure_proto.v1 import registry_pb2
from tools.judge import Operation, Verdict, judge

MANY = 320
"""Operations of a history that says something."""
Settled = Callable[[LocalServers, Any], Awaitable[Verdict]]


def sound(verdict: Verdict) -> None:
    assert verdict.decided, verdict
    assert verdict.linearizable, verdict.bad


@pytest.mark.cluster
async def test_histories_under_killed_and_frozen_servers_are_linearizable(
    own: LocalServers, make_load: Any, settled: Settled
) -> None:
    load = make_load(own, seed=1)
    load.start()
    await load.progress()
    leader = await own.leader()
    await own.kill(leader)
    await load.progress()
    await own.start(leader)
    await own.ready(leader)
    leader = await own.leader()
    own.freeze(leader)
    await load.progress()
    own.thaw(leader)  # it believes that it leads, and its clients ask it
    await load.progress()
    follower = next(name for name in own.servers if name != leader)
    await own.kill(follower)
    await load.progress()
    await own.start(follower)
    await own.ready(follower)
    await load.reach(MANY)  # how fast it gets there says how long the servers were away
    for name in own.servers:
        await own.kill(name)
    verdict = await settled(own, load)
    sound(verdict)
    assert verdict.operations >= MANY, load.counts


async def another_leads(servers: LocalServers, former: str) -> None:
    """As the others see it: the cut is one."""
    other = next(name for name in servers.servers if name != former)
    stub = servers.registry(name=other)

    async def another() -> bool:
        return (await stub.Status(registry_pb2.StatusRequest())).leader not in ("", former)

    await until(another, 60, lambda: f"{former} still leads")


@pytest.mark.cluster
async def test_histories_under_cut_lines_are_linearizable(proxied: Any, make_load: Any, settled: Settled) -> None:
    load = make_load(proxied, seed=2)
    load.start()
    await load.progress()
    leader = await proxied.leader()
    proxied.isolate(leader)
    await another_leads(proxied, leader)
    await load.progress()
    proxied.heal()
    await load.progress()
    leader = await proxied.leader()
    for other in proxied.servers:
        if other != leader:
            proxied.cut(leader, other)  # it hears, and is not heard
    await another_leads(proxied, leader)
    await load.progress()
    proxied.heal()
    await load.progress()
    leader = await proxied.leader()
    for other in proxied.servers:
        if other != leader:
            proxied.cut(other, leader)  # it is heard, and hears nothing
    await another_leads(proxied, leader)
    await load.progress()
    proxied.heal()
    sound(await settled(proxied, load))


# ---- the judge can say no ------------------------------------------------------------------------------------------


def op(number: int, kind: str, outcome: str, value: int = 0, uid: str = "", *, until: int = 0) -> Operation:
    """One that begins at `number` and ends before the next number, or at `until`."""
    return Operation(0, "shop/a", kind, value, 10 * number, 10 * (until or number) + 5, outcome, uid)


GOOD = (
    op(1, "put", "created", 1, "5"),
    op(2, "put", "unchanged", 1, "5"),
    op(3, "put", "configured", 2, "5"),
    op(4, "delete", "gone", 0, "5"),
    op(5, "read", "absent"),
    op(6, "put", "unknown", 3),
    op(7, "read", "absent"),
    op(8, "put", "configured", 4, "9"),
    op(9, "read", "present", 4, "9"),
)


def test_a_sound_history_is_linearizable() -> None:
    """The open put took effect after 7, at which nobody saw it: an open interval has no end."""
    sound(judge(GOOD))


@pytest.mark.parametrize(
    ("place", "change"),
    [
        (1, {"outcome": "configured"}),  # an acknowledged write was lost
        (1, {"outcome": "created", "uid": "6"}),  # the row was created twice
        (2, {"outcome": "unchanged"}),  # a value that nobody wrote
        (3, {"uid": "4"}),  # another row was deleted
        (4, {"outcome": "present", "value": 2, "uid": "5"}),  # a stale read
        (5, {"outcome": "created", "uid": "4"}),  # a uid went back
        (6, {"outcome": "present", "value": 4, "uid": "9"}),  # a read from the future
        (8, {"outcome": "absent"}),  # an acknowledged row is gone
    ],
)
def test_a_broken_history_is_not_linearizable(place: int, change: dict[str, Any]) -> None:
    history = list(GOOD)
    history[place] = dataclasses.replace(history[place], **change)
    verdict = judge(history)
    assert verdict.decided
    assert not verdict.linearizable
    assert verdict.bad == ("shop/a",)


def test_overlapping_operations_may_take_effect_in_any_order() -> None:
    first, second = op(1, "put", "configured", 1, "5", until=3), op(2, "put", "created", 2, "5", until=3)
    sound(judge((first, second)))
    late = dataclasses.replace(second, call=100, end=105)
    assert not judge((first, late)).linearizable


def test_a_history_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot read the history"):
        judge([dataclasses.replace(GOOD[0], call="soon")])  # type: ignore[arg-type]
