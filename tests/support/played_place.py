"""Around one agent, what takes agents in and lets them go on a host: for tests of agents that sleep or rest."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from played import pack

from tenure_proto.v1.calls_pb2 import CALL_KIND_ACTION, Call
from tenure_proto.v1.registry_pb2 import AgentRow, AgentSpec, HostRow, WatchBatch
from tenured.host.activations import Activations
from tenured.host.leasing import boot_ns
from tenured.host.mirror import Mirror

IDLE_S = 0.05


@asynccontextmanager
async def activating(scene: SimpleNamespace) -> AsyncIterator[Any]:
    """The host's activations, and what its mirror says, around a scene of `played`."""
    scene.slept = asyncio.Event()
    scene.reports.hibernated = lambda uid, epoch, at: (
        scene.reports.said.append(("hibernated", uid, epoch, at)),
        scene.slept.set(),
    )
    scene.reports.released = lambda uid, epoch: scene.reports.said.append(("released", uid, epoch))
    mirror = Mirror("h.1")
    object.__setattr__(scene.site, "mirror", mirror)
    scene.activations = Activations(scene.site)

    def mirror_is(*rows: AgentRow) -> None:
        batch = WatchBatch(revision=9, snapshot=True, synced=True, agents=rows, hosts=[HostRow(incarnation="h.1")])
        scene.activations.rows_changed(mirror.apply(batch))

    scene.assign = scene.mirror_is = mirror_is
    running = asyncio.ensure_future(scene.activations.run())
    yield scene
    scene.activations.abort()
    running.cancel()


def row(epoch: int = 1, **more: Any) -> AgentRow:
    spec = AgentSpec(id="shop/a", idle_timeout_s=IDLE_S, **{"class": "C"})
    return AgentRow(uid="7", epoch=epoch, spec=spec, host="h", incarnation="h.1", **more)


async def asleep(place: Any) -> None:
    async with asyncio.timeout(5):
        await place.slept.wait()
    place.slept.clear()


def call(place: Any, key: int) -> Any:
    made = Call(agent="shop/a", kind=CALL_KIND_ACTION, method="m", arguments=b"\x80", client_id="c", key=key, born=99.0)
    return place.activations.find("7").submit(made, "spiffe://x", boot_ns() + 5_000_000_000)


async def answered(place: Any, job: Any, state: Any) -> Any:
    place.played.done(await place.played.turn(), reply=pack(1), state=pack(state))
    async with asyncio.timeout(5):
        return await job.reply


def asked(place: Any, *kinds: str) -> int:
    """Frames to the servers of these kinds: seal, read, write."""
    return sum(frame.WhichOneof("body") in kinds for _, frame in place.servers.frames)


def said(place: Any) -> list[str]:
    """What the registry was told."""
    return [one[0] for one in place.reports.said]
