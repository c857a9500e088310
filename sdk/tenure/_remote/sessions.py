"""One stream of calls to one peer: many calls in flight, matched by number, sent together when they come together."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence

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


class Session:
    """Opens with the first call. Once lost it stays lost: make another."""

    def __init__(self, channel: Channel, peer: str) -> None:
        self.peer = peer
        self.lost: str = ""
        """Why it ended; empty: it has not."""
        self.heard = float("-inf")
        """When the peer answered something last, on the loop's clock."""
        self._waiting: dict[int, asyncio.Future[calls_pb2.Reply]] = {}
        self._unsent: list[calls_pb2.Call] = []
        self._wake = asyncio.Event()
        self._next = 0
        self._established = False
        self._stream = calls_pb2_grpc.CallsStub(channel).Session()
        self._tasks = [asyncio.create_task(self._send_all()), asyncio.create_task(self._receive_all())]

    @property
    def waiting(self) -> int:
        """How many calls have no answer yet."""
        return len(self._waiting)

    def send(self, call: calls_pb2.Call) -> asyncio.Future[calls_pb2.Reply]:
        """Send a copy of the call; the reply comes in the future, or SessionLost."""
        future: asyncio.Future[calls_pb2.Reply] = asyncio.get_running_loop().create_future()
        if self.lost:
            future.set_exception(SessionLost(self.lost, sent=False))
            return future
        self._next += 1
        numbered = calls_pb2.Call()
        numbered.CopyFrom(call)
        numbered.seq = self._next
        self._waiting[self._next] = future
        future.add_done_callback(functools.partial(self._forget, self._next))
        self._unsent.append(numbered)
        self._wake.set()
        return future

    def _forget(self, number: int, _: object) -> None:
        self._waiting.pop(number, None)

    async def close(self) -> None:
        """End the stream; what waits gets SessionLost."""
        self._fail("the session was closed")
        self._stream.cancel()
        await ended(self._tasks)

    async def _send_all(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                calls, self._unsent = self._unsent, []
                await self._stream.write(calls_pb2.CallBatch(calls=calls))
                self._established = True
        except (RpcError, asyncio.InvalidStateError) as error:
            self._fail(_words(error))

    async def _receive_all(self) -> None:
        try:
            async for batch in self._stream:
                self.heard = asyncio.get_running_loop().time()
                for reply in batch.replies:
                    future = self._waiting.get(reply.seq)
                    if future is not None and not future.done():
                        future.set_result(reply)
        except RpcError as error:
            self._fail(_words(error))
        else:
            self._fail("the peer ended the session")

    def _fail(self, why: str) -> None:
        if not self.lost:
            self.lost = f"{self.peer}: {why}"
            for future in list(self._waiting.values()):
                if not future.done():
                    future.set_exception(SessionLost(self.lost, sent=self._established))
            self._waiting.clear()


def _words(error: Exception) -> str:
    return (error.details() or error.code().name) if isinstance(error, RpcError) else str(error)
