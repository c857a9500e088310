"""Changes on a stream: what came in one message shares a log entry where it can; answers that wait share a message."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Protocol

from google.protobuf.message import DecodeError

from tenure_api.identity import Identity
from tenure_frames import FrameStream
from tenure_proto.v1.changes_pb2 import Change, ChangeBatch, Changed, ChangedBatch
from tenure_proto.v1.common_pb2 import OUTCOME_NOT_APPLIED, Error
from tenure_proto.v1.registry_pb2 import (
    ApplyAgentsRequest,
    ApplyAgentsResponse,
    DeleteAgentsRequest,
    DeleteAgentsResponse,
)
from tenured.transport.outbox import Outbox
from tenured.transport.serving import Duplex, Refusal

_log = logging.getLogger(__name__)

UNDER_WAY = 4096
"""Changes of one stream whose answer was not yet written. Beyond it no more is read: the sender feels it."""
GROUP_ROWS = 200
"""Rows of changes that share an entry."""


class Changer(Protocol):
    """The part of Api that is used here. Both may raise Refusal."""

    async def apply_agents(self, peer: Identity, request: ApplyAgentsRequest) -> ApplyAgentsResponse:
        """Create or change rows."""
        ...

    async def delete_agents(self, peer: Identity, request: DeleteAgentsRequest) -> DeleteAgentsResponse:
        """Mark rows for deletion."""
        ...


class Changing:
    """Serves the streams of one server, on gRPC and on framed TLS."""

    def __init__(self, changer: Changer) -> None:
        self._changer = changer

    async def serve(self, peer: Identity, stream: Duplex[ChangeBatch, ChangedBatch]) -> None:
        """One stream of gRPC, until the sender ends it; what is under way then is still answered."""
        answers: Outbox[Changed] = Outbox(2 * UNDER_WAY)

        def deliver(found: list[Changed]) -> None:
            for answer in found:
                answers.put(answer)

        session = _Session(self._changer, peer, deliver)
        writing = asyncio.ensure_future(_write(session, answers, stream))
        try:
            async for batch in stream:
                session.take(batch.changes)
                await session.until(UNDER_WAY)
            await session.until(0)
        finally:
            session.close()
            answers.close()
            writing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writing

    def accept(self, peer: Identity, stream: FrameStream) -> None:
        """One stream of framed TLS: a frame is a ChangeBatch, answers are frames of ChangedBatch. Returns at once.

        It ends with the connection; what is under way then goes on, and nobody hears of it.
        """

        def deliver(found: list[Changed]) -> None:
            stream.send(ChangedBatch(answers=found).SerializeToString())
            session.answered(len(found))
            if session.open <= UNDER_WAY:
                stream.resume()

        def on_frame(frame: bytes) -> None:
            try:
                batch = ChangeBatch.FromString(frame)
            except DecodeError as error:
                _log.warning("%s sent a frame that is no change: %s", peer.uri, error)
                stream.cut()
                return
            session.take(batch.changes)
            if session.open > UNDER_WAY:
                stream.pause()

        session = _Session(self._changer, peer, deliver)
        stream.on_frame = on_frame
        stream.lost.add_done_callback(lambda _: session.close())


async def _write(session: _Session, answers: Outbox[Changed], stream: Duplex[ChangeBatch, ChangedBatch]) -> None:
    while found := await answers.take():
        await stream.write(ChangedBatch(answers=found))
        session.answered(len(found))


class _Session:
    def __init__(self, changer: Changer, peer: Identity, deliver: Callable[[list[Changed]], None]) -> None:
        self._changer = changer
        self._peer = peer
        self._deliver = deliver
        self._tasks: set[asyncio.Task[None]] = set()
        self._fewer = asyncio.Event()
        self.open = 0
        """Changes whose answer was not yet written."""

    def take(self, changes: Iterable[Change]) -> None:
        for group in _groups(changes):
            self.open += len(group)
            self._spawn(self._carry_out(group))

    def answered(self, count: int) -> None:
        self.open -= count
        self._fewer.set()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def until(self, most: int) -> None:
        while self.open > most:
            self._fewer.clear()
            await self._fewer.wait()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, group: list[Change]) -> None:
        try:
            answers = await self._answer(group)
        except Refusal as error:
            refused = Error(code="Refused", message=str(error), outcome=OUTCOME_NOT_APPLIED)
            answers = [Changed(seq=change.seq, error=refused) for change in group]
        self._deliver(answers)

    async def _answer(self, group: list[Change]) -> list[Changed]:
        first = group[0]
        match first.WhichOneof("what"):
            case "apply" if len(group) == 1:
                return [Changed(seq=first.seq, applied=await self._changer.apply_agents(self._peer, first.apply))]
            case "apply":
                return await self._together(group)
            case "delete":
                return [Changed(seq=first.seq, deleted=await self._changer.delete_agents(self._peer, first.delete))]
            case _:
                raise Refusal("A change says neither apply nor delete.")

    async def _together(self, group: list[Change]) -> list[Changed]:
        """Rows are judged one by one, also within an entry: what shares it with others ends as it would alone."""
        request = ApplyAgentsRequest(managed_by=group[0].apply.managed_by)
        for change in group:
            request.agents.extend(change.apply.agents)
        response = await self._changer.apply_agents(self._peer, request)
        rows = iter(response.results)
        return [
            Changed(
                seq=change.seq,
                applied=ApplyAgentsResponse(
                    results=[next(rows) for _ in change.apply.agents], revision=response.revision
                ),
            )
            for change in group
        ]


def _groups(changes: Iterable[Change]) -> Iterator[list[Change]]:
    """Neighbours that can share an entry. Not: what has a command id of its own, and two changes of one row."""
    group: list[Change] = []
    ids: set[str] = set()
    for change in changes:
        rows = [spec.id for spec in change.apply.agents]
        alone = change.WhichOneof("what") != "apply" or bool(change.apply.command_id)
        fits = group and change.apply.managed_by == group[0].apply.managed_by and ids.isdisjoint(rows)
        if group and (alone or not fits or len(ids) + len(rows) > GROUP_ROWS):
            yield group
            group, ids = [], set()
        if alone:
            yield [change]
        else:
            group.append(change)
            ids.update(rows)
    if group:
        yield group
