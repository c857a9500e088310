"""What a peer of a host's courier may say, and what becomes of the connection when it says something else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from couriers import Sending
from memory_wires import Scene, turns, two_hosts

from tenured.core import signalframes
from tenured.core.signalframes import Answers, Batch, Hello, Refused, Welcome
from tenured.core.signals import Again, Signal
from tenured.host.arrivals import Answered


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with two_hosts() as made:
        yield made


def hello(version: int = signalframes.VERSION, to: str = "b.1", incarnation: str = "x.1") -> bytes:
    return signalframes.encode(Hello(version, incarnation, to))


def batch(first: int = 1, n: int = 1) -> bytes:
    return signalframes.encode(Batch(first, [Signal("1", "50", n, 0, 1.0)]))


@pytest.mark.parametrize(
    ("frames", "sentence"),
    [
        ([hello(version=99)], "version 1, not 99"),
        ([hello(to="b.0")], "b.0 is not here, this is b.1"),
    ],
)
async def test_who_does_not_fit_is_refused_with_a_sentence(scene: Scene, frames: list[bytes], sentence: str) -> None:
    wire = await scene.net.wires("x").dial("b", "")
    heard: list[bytes] = []
    wire.on_frame = heard.append
    for frame in frames:
        wire.send(frame)
    await turns()
    said = signalframes.decode_to_sender(heard[0])
    assert isinstance(said, Refused)
    assert sentence in said.message
    assert wire.over


@pytest.mark.parametrize(
    "frames",
    [
        [b"\xc1garbage"],
        [batch()],
        [hello(), hello()],
        [hello(), batch(first=2)],
        [hello(), batch(), batch(first=1)],
        [hello(), b"\xff" * 100],
    ],
)
async def test_what_breaks_the_rules_ends_the_connection_and_nothing_else(scene: Scene, frames: list[bytes]) -> None:
    wire = await scene.net.wires("x").dial("b", "")
    for frame in frames:
        wire.send(frame)
    await turns()
    assert wire.over
    sender = Sending(scene.a)
    sender.release("51", 1)
    await sender.all_settled(1)


@pytest.mark.parametrize(
    "answer",
    [
        b"\xc1garbage",
        signalframes.encode(Welcome(1, 1)),
        signalframes.encode(Answers(7, 9000, 1 << 30, [])),
        signalframes.encode(Answers(2, 9000, 1 << 30, [(1, 1 << 40, Again("Busy"))])),
    ],
)
async def test_answers_that_cannot_be_end_the_connection_and_lose_nothing(scene: Scene, answer: bytes) -> None:
    sender = Sending(scene.a)
    sender.release("50", 1)
    await sender.all_settled(1)
    scene.b.agents.hold.add("50")
    sender.release("50", 2)
    await turns()
    scene.wire.peer.send(answer)
    await scene.dialled(2)
    scene.b.agents.let_go()
    assert await sender.all_settled(2) == [(1, "applied"), (2, "applied")]


async def test_a_newer_connection_of_a_host_ends_its_older_one(scene: Scene) -> None:
    first = await scene.net.wires("x").dial("b", "")
    first.send(hello())
    await turns()
    second = await scene.net.wires("x").dial("b", "")
    second.send(hello())
    await turns()
    assert first.over
    assert not second.over


async def test_a_delivery_that_fails_settles_nothing(scene: Scene) -> None:
    """A defect of the receiver's host is no verdict."""

    def deliver(signal: Signal, answered: Answered) -> None:
        if broken:
            broken.pop()
            raise RuntimeError("at once")
        working(signal, answered)

    broken, working = [1, 2], scene.b.agents.deliver
    scene.b.courier._arrivals.deliver = deliver
    sender = Sending(scene.a)
    sender.release("50", 1)
    assert await sender.all_settled(1) == [(1, "applied")]


async def test_what_is_counted(scene: Scene) -> None:
    scene.b.agents.refuse["50"] = Again("Paused")
    sender = Sending(scene.a)
    sender.release("51", 1, 2)
    sender.release("50", 3)
    await sender.all_settled(2)
    await turns()
    for host in scene.hosts:
        host.courier.count()
    text = "\n".join([*scene.a.metrics.lines(), *scene.b.metrics.lines()])
    for line in (
        'tenure_host_signals_sent_total{to="hosts"} 3',
        'tenure_host_signals_settled_total{verdict="applied"} 2',
        'tenure_host_signals_refused_total{code="Paused"} 1',
        "tenure_host_signals_unsettled 1",
        "tenure_host_signals_received_total 3",
        'tenure_host_signal_credits{host="b"} ',
    ):
        assert line in text
