"""Sessions with one peer: many requests in flight, answers matched by number; and that of calls by a gRPC stream."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from tenure._remote.channels import Channel, RpcError
from tenure_proto.v1 import calls_pb2, calls_pb2_grpc


class SessionLost(ConnectionError):
    """The stream ended. `sent`: the peer may have seen the call; False: it never was connected."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


CLOSE_S = 1.0
"""How long closing waits for what it has cancelled. gRPC's own tasks swallow a cancellation now and then and go on
waiting; a client that closes, and a call that wants another session, must not wait with them."""


async def ended(tasks: Sequence[asyncio.Task[None]], within_s: float = CLOSE_S) -> None:
    """Cancel tasks and wait until they have ended, at most `within_s` seconds. Their exceptions are dropped."""
    for task in tasks:
        task.cancel()
    if tasks:
        done, _ = await asyncio.wait(tasks, timeout=within_s)
        for task in done:
            if not task.cancelled():
                task.exception()  # taken note of, or the loop would log it


class Answer(Protocol):
    """Of a peer."""

    @property
    def seq(self) -> int:
        """The number of what it answers."""
        ...


AnswerT = TypeVar("AnswerT", bound=Answer)


class Numbered(Generic[AnswerT]):
    """A session as it knows what was asked. Once lost it stays lost: make another."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.lost: str = ""
        """Why it ended; empty: it has not."""
        self.opened = False
        """It stood, if only for a moment: before that what is cancelled never leaves."""
        self._waiting: dict[int, asyncio.Future[AnswerT]] = {}
        self._next = 0

    @property
    def waiting(self) -> int:
        """How many requests have no answer yet."""
        return len(self._waiting)

    def _expect(self) -> tuple[int, asyncio.Future[AnswerT]]:
        """The next number, and where its answer comes, or SessionLost."""
        self._next += 1
        future: asyncio.Future[AnswerT] = asyncio.get_running_loop().create_future()
        self._waiting[self._next] = future
        future.add_done_callback(functools.partial(self._forget, self._next))
        return self._next, future

    def _forget(self, number: int, _: object) -> None:
        self._waiting.pop(number, None)

    def _wanted(self, number: int) -> bool:
        """Whether somebody waits for its answer."""
        future = self._waiting.get(number)
        return future is not None and not future.done()

    def _answered(self, answers: Iterable[AnswerT]) -> None:
        for answer in answers:
            future = self._waiting.get(answer.seq)
            if future is not None and not future.done():
                future.set_result(answer)

    def _fail(self, why: str) -> None:
        if not self.lost:
            self.lost = f"{self.peer}: {why}"
            for future in list(self._waiting.values()):
                if not future.done():
                    future.set_exception(SessionLost(self.lost, sent=self.opened))
            self._waiting.clear()


class Session(Numbered[calls_pb2.Reply]):
    """Calls by a gRPC stream, sent together when they come together. Opens with the first call."""

    def __init__(self, channel: Channel, peer: str) -> None:
        super().__init__(peer)
        self.heard = float("-inf")
        """When the peer answered something last, on the loop's clock."""
        self._unsent: list[calls_pb2.Call] = []
        self._wake = asyncio.Event()
        self._channel = channel
        self._stream = calls_pb2_grpc.CallsStub(channel).Session()
        self._tasks = [asyncio.create_task(self._send_all()), asyncio.create_task(self._receive_all())]

    def send(self, call: calls_pb2.Call) -> asyncio.Future[calls_pb2.Reply]:
        """Send a copy of the call; the reply comes in the future, or SessionLost."""
        if self.lost:
            return failed(SessionLost(self.lost, sent=False))
        number, future = self._expect()
        numbered = calls_pb2.Call()
        numbered.CopyFrom(call)
        numbered.seq = number
        self._unsent.append(numbered)
        self._wake.set()
        return future

    async def close(self) -> None:
        """End the stream; what waits gets SessionLost."""
        self._fail("the session was closed")
        self._stream.cancel()
        await ended(self._tasks)

    async def _send_all(self) -> None:
        try:
            # What is given to gRPC before there is a connection leaves whenever there is one, wanted or not.
            await self._channel.channel_ready()
            self.opened = True
            while True:
                await self._wake.wait()
                self._wake.clear()
                calls, self._unsent = self._unsent, []
                await self._stream.write(calls_pb2.CallBatch(calls=[call for call in calls if self._wanted(call.seq)]))
        except (RpcError, asyncio.InvalidStateError) as error:
            self._fail(_words(error))

    async def _receive_all(self) -> None:
        try:
            async for batch in self._stream:
                self.heard = asyncio.get_running_loop().time()
                self._answered(batch.replies)
        except RpcError as error:
            self._fail(_words(error))
        else:
            self._fail("the peer ended the session")


def failed(error: Exception) -> asyncio.Future[calls_pb2.Reply]:
    """The future of a call that does not leave."""
    future: asyncio.Future[calls_pb2.Reply] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future


def _words(error: Exception) -> str:
    return (error.details() or error.code().name) if isinstance(error, RpcError) else str(error)
