"""The courier of a host, over wires in memory: here without a network, there through loss, moves and slow agents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from couriers import Host, Sending
from memory_wires import MemoryWire, Scene, turns, two_hosts

from tenure_proto.v1.registry_pb2 import WatchBatch
from tenured.core import signalframes
from tenured.core.signalframes import Batch
from tenured.core.signals import Again
from tenured.host import departures


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with two_hosts() as made:
        yield made


async def test_signals_arrive_in_order_and_are_settled_once(scene: Scene) -> None:
    sender = Sending(scene.a)
    sender.release("50", *range(1, 301))
    assert await sender.all_settled(300) == [(n, "applied") for n in range(1, 301)]
    assert scene.b.agents.applied == [("50", "1", n) for n in range(1, 301)]
    assert sender.out.waiting.unsettled == 0
    assert len(scene.net.dialled) == 1


async def test_many_signals_share_a_frame(scene: Scene) -> None:
    senders = [Sending(scene.a, str(uid)) for uid in range(1, 11)]
    for sender in senders:
        sender.release("50", *range(1, 21))
    for sender in senders:
        await sender.all_settled(20)
    assert len(scene.wire.sent) == 1 + 1  # hello, and one frame of 200
    assert len(scene.wire.peer.sent) == 1 + 1


async def test_signals_to_an_agent_of_this_host_touch_no_network(scene: Scene) -> None:
    scene.a.read(agents={"70": scene.a})
    sender = Sending(scene.a)
    sender.release("70", *range(1, 101))
    await sender.all_settled(100)
    assert scene.a.agents.applied == [("70", "1", n) for n in range(1, 101)]
    assert scene.net.dialled == []
    assert (scene.a.metrics.sent_here, scene.a.metrics.sent_to_hosts) == (100, 0)


async def test_what_a_lost_connection_took_with_it_is_sent_again_in_order(scene: Scene) -> None:
    """Protocol 3 [keep_box]: frames lost on the way there, and answers lost on the way back."""
    sender = Sending(scene.a)
    scene.b.agents.hold.add("51")
    sender.release("51", 1)
    await turns()
    scene.wire.silent = True
    sender.release("50", 2, 3)
    await turns()
    scene.wire.peer.silent = True
    scene.b.agents.let_go()  # 1 is applied, and nobody hears of it
    await turns()
    scene.wire.cut()
    assert sorted(await sender.all_settled(3)) == [(1, "applied"), (2, "applied"), (3, "applied")]
    assert scene.b.agents.applied == [("51", "1", 1), ("50", "1", 2), ("50", "1", 3)]
    scene.a.courier.count()
    assert scene.a.metrics.resent == 3


async def test_a_volatile_senders_signals_are_unknown_after_a_break(scene: Scene) -> None:
    """Protocol 3, volatile agents [vol_once]: at most once."""
    sender = Sending(scene.a, epoch=5)
    sender.release("50", 1)
    await sender.all_settled(1)
    scene.wire.silent = True
    sender.release("50", 2)
    await turns()
    scene.wire.cut()
    assert await sender.all_settled(2) == [(1, "applied"), (2, "unknown")]
    sender.release("50", 3)
    assert (await sender.all_settled(3))[2] == (3, "applied")
    assert scene.b.agents.applied == [("50", "1", 1), ("50", "1", 3)]


async def test_a_stale_route_is_corrected(scene: Scene) -> None:
    """b says `Moved`; nothing fails, and the newer row is followed at once."""
    scene.b.agents.refuse["50"] = Again("Moved", "held by a")
    sender = Sending(scene.a)
    sender.release("50", 1, 2)
    await turns()
    assert sender.out.waiting.stuck == {"50": ("Moved", "held by a")}
    scene.a.read(agents={"50": scene.a}, epoch=2)
    assert await sender.all_settled(2) == [(1, "applied"), (2, "applied")]
    assert scene.a.agents.applied == [("50", "1", 1), ("50", "1", 2)]


async def test_a_registry_that_is_read_anew_moves_nothing(scene: Scene) -> None:
    """A snapshot comes in parts: an agent that it has not brought yet is neither gone nor without a host."""
    scene.b.agents.hold.add("50")
    sender = Sending(scene.a)
    sender.release("50", 1)
    await turns()
    scene.a.read(snapshot=True, revision=200)
    sender.release("51", 2)
    await turns()
    assert "50" not in sender.out.waiting.stuck
    scene.a.read((scene.a, scene.b), {"50": scene.b, "51": scene.b}, synced=True, revision=200)
    await sender.until(lambda: (2, "applied") in sender.settled)
    scene.b.agents.let_go()
    await sender.all_settled(2)
    scene.a.courier.count()
    assert scene.a.metrics.resent == 0


async def test_a_host_whose_lease_ended_is_not_sent_to(scene: Scene) -> None:
    """Its agents wait for their next holder."""
    sender = Sending(scene.a)
    scene.b.agents.refuse["50"] = Again("Fenced")
    sender.release("50", 1)
    await turns()
    row = scene.a.mirror.hosts["b.1"]
    row.expired = True
    scene.a.courier.watched(WatchBatch(hosts=[row]))
    await turns()
    assert sender.out.waiting.stuck["50"][0] == "NotReady"
    scene.a.read(agents={"50": scene.a}, epoch=2)
    await sender.all_settled(1)


async def test_an_agent_without_a_host_is_waited_for(scene: Scene) -> None:
    scene.a.read(agents={"60": None})
    sender = Sending(scene.a)
    sender.release("60", 1)
    await turns()
    assert sender.out.waiting.stuck["60"][0] == "NotReady"
    scene.a.read(agents={"60": scene.b}, epoch=2)
    await sender.all_settled(1)


async def test_a_deleted_receiver_is_unknown_and_one_not_read_is_waited_for(scene: Scene) -> None:
    """Protocol 3, dead letters (c). A uid above what this host has read may be one that it will read."""
    sender = Sending(scene.a)
    sender.release("90", 1)
    sender.release("999", 2)
    assert await sender.all_settled(1) == [(1, "unknown")]
    await turns()
    assert sender.out.waiting.unsettled == 1
    scene.a.read(agents={"999": scene.b}, revision=1000)
    assert (await sender.all_settled(2))[1] == (2, "applied")
    scene.b.agents.refuse["50"] = Again("NotReady")
    sender.release("50", 3)
    await turns()
    scene.a.read(gone=("50",), revision=1001)
    assert (await sender.all_settled(3))[2] == (3, "unknown")


async def test_a_receiver_that_has_ended_is_unknown_though_its_row_stands(scene: Scene) -> None:
    """Protocol 3, ends: whether its last holder had taken it, nobody here knows."""
    sender = Sending(scene.a)
    scene.b.agents.refuse["50"] = Again("NotReady")
    sender.release("50", 1)
    await turns()
    assert sender.out.waiting.unsettled == 1
    scene.a.read(ended=("50",), revision=1001)
    assert await sender.all_settled(1) == [(1, "unknown")]


async def test_a_slow_agent_holds_up_nobody_else(scene: Scene) -> None:
    """No head-of-line blocking on the one connection of the two hosts."""
    scene.b.agents.hold.add("50")
    slow, quick = Sending(scene.a, "1"), Sending(scene.a, "2")
    slow.release("50", *range(1, 2001))
    quick.release("51", *range(1, 501))
    await quick.all_settled(500)
    assert slow.settled == []
    assert slow.out.waiting.unsettled == 2000
    scene.b.agents.let_go()
    await slow.all_settled(2000)


async def test_a_full_agent_is_tried_again_after_a_pause(scene: Scene) -> None:
    scene.b.agents.refuse["50"] = Again("Busy", "128 signals wait")
    sender = Sending(scene.a)
    sender.release("50", 1, 2)
    await turns()
    assert sender.out.waiting.stuck == {"50": ("Busy", "128 signals wait")}
    del scene.b.agents.refuse["50"]
    assert await sender.all_settled(2) == [(1, "applied"), (2, "applied")]


async def test_what_is_forgotten_or_closed_is_not_sent_again(scene: Scene) -> None:
    scene.b.agents.refuse["50"] = Again("NotReady")
    sender = Sending(scene.a)
    sender.release("50", 1)
    await turns()
    sender.out.forget([1])
    assert sender.out.waiting.unsettled == 0
    sender.release("50", 2)
    await turns()
    sender.out.close()
    del scene.b.agents.refuse["50"]
    other = Sending(scene.a, "2")
    other.release("50", 1)
    await other.all_settled(1)
    assert scene.b.agents.applied == [("50", "2", 1)]
    assert sender.settled == []


async def test_a_void_settles_its_number(scene: Scene) -> None:
    """Protocol 3 [void]: under the same number, after the live one was refused."""
    scene.b.agents.refuse["50"] = Again("Paused")
    sender = Sending(scene.a)
    sender.release("50", 1)
    await turns()
    sender.release("50", 1, void=True)
    await turns()
    bodies = [
        (signal.n, signal.void, signal.body)
        for frame in scene.wire.sent[1:]
        if isinstance(batch := signalframes.decode_to_receiver(frame), Batch)
        for signal in batch.signals
    ]
    assert (1, False, b"body") in bodies
    del scene.b.agents.refuse["50"]
    await sender.all_settled(1)
    last = signalframes.decode_to_receiver(scene.wire.sent[-1])
    assert isinstance(last, Batch)
    assert (last.signals[0].void, last.signals[0].body) == (True, b"")


async def test_a_new_start_of_a_host_is_not_taken_for_the_old_one(scene: Scene) -> None:
    """Its address may be the same: who answers says which process start it is."""
    await scene.b.courier.stop()
    again = Host("b", scene.net.wires("b"), scene.b.agents, life=2)
    scene.hosts.append(again)
    await again.courier.start()
    sender = Sending(scene.a)
    sender.release("50", 1)
    await scene.dialled(2)
    await turns()
    assert "b.1 is not here" in sender.out.waiting.stuck["50"][1]
    scene.a.read((again,), {"50": again}, epoch=2)
    await sender.all_settled(1)


async def test_a_host_that_is_gone_is_not_dialled_any_more(scene: Scene) -> None:
    del scene.net.accept["b"]
    sender = Sending(scene.a)
    sender.release("50", 1)
    await turns()
    assert sender.out.waiting.stuck["50"] == ("Unreachable", "b is not there")
    scene.a.read(agents={"50": scene.a}, epoch=2)
    await sender.all_settled(1)
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == "signals to b"]
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks)


async def test_a_defect_in_dialling_is_told_and_tried_again(scene: Scene) -> None:
    accept = scene.net.accept["b"]

    def refuse(_host: str, _wire: MemoryWire) -> None:
        scene.net.accept["b"] = accept
        raise ValueError("no port")

    scene.net.accept["b"] = refuse
    sender = Sending(scene.a)
    sender.release("50", 1)
    await turns()
    assert sender.out.waiting.stuck["50"] == ("Unreachable", "a defect: no port")
    await sender.all_settled(1)


async def test_an_idle_connection_is_closed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departures, "IDLE_S", 0.01)
    sender = Sending(scene.a)
    sender.release("50", 1)
    await sender.all_settled(1)
    sender.out.forget([1])
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == "signals to b"]
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks)
    assert scene.wire.over
    sender.release("50", 2)
    await sender.all_settled(2)
    assert len(scene.net.dialled) == 2


async def test_a_slow_peer_is_not_written_to(scene: Scene) -> None:
    """Back-pressure of the connection itself; what waits stays with its senders."""
    sender = Sending(scene.a)
    sender.release("50", 1)
    await sender.all_settled(1)
    scene.wire.writable = False
    sender.release("50", 2)
    await turns()
    assert len(sender.settled) == 1
    scene.wire.writable = True
    scene.wire.on_writable()
    await sender.all_settled(2)
