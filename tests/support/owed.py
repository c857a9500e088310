"""What tests of owed turns share: turns that have come to their first step, waits, an agent that pauses."""

from __future__ import annotations

from typing import Any

import msgspec
from playing import Scene

import tenure_link
from tenure_proto.v1.registry_pb2 import AgentSpec, Delivery
from tenured.core.signals import Settled, Verdict

pack = msgspec.msgpack.encode
APPLIED = Settled(Verdict.APPLIED)
PAUSE = AgentSpec(on_exhausted="Pause", delivery=Delivery(max_attempts=1))
SLEEP = tenure_link.Wait(position=0, name="sleep", until=150.0)
APPROVAL = tenure_link.Wait(position=0, name="wait", types=("approved",))


def signal_work(type_: str) -> tenure_link.Work:
    return tenure_link.Work(signal=pack({"type": type_}))


async def owed_call(play: Scene, *, key: int = 1) -> tuple[Any, tenure_link.Turn]:
    """A call whose turn has come to its first step."""
    job = play.call(key)
    return job, await play.accepted()


async def accepting(play: Scene) -> tuple[Any, tenure_link.Turn]:
    """A call whose turn has come to its first step; that is being written."""
    job = play.call(1)
    turn = await play.turn()
    play.servers.writes_answer.clear()
    play.progress(turn)
    await play.quiet()
    return job, turn
