"""The life of a session over framed TLS: connect, hear answers, end once (`tenure_frames`, ADR 0013)."""

from __future__ import annotations

import abc
import asyncio
import ssl
from collections.abc import Iterable

from google.protobuf.message import DecodeError

from tenure._remote.sessions import AnswerT, Numbered, ended
from tenure_frames import FrameStream, NotOpened, opened


class OverFrames(Numbered[AnswerT], abc.ABC):
    """Connects when it is made."""

    def __init__(self, peer: str, expected: str, context: ssl.SSLContext) -> None:
        """`peer`: host:port; `expected`: the DNS name in its certificate."""
        super().__init__(peer)
        self._stream: FrameStream | None = None
        self._task = asyncio.get_running_loop().create_task(self._connect(expected, context))

    async def close(self) -> None:
        """End the connection; what waits gets SessionLost."""
        self._fail("the session was closed")
        await ended([self._task])

    @abc.abstractmethod
    def _listen(self, stream: FrameStream) -> None:
        """Have `_came` called for each frame; its limit too is the session's own."""

    @abc.abstractmethod
    def _read(self, frame: bytes) -> Iterable[AnswerT]:
        """The answers in a frame. Raises DecodeError."""

    @abc.abstractmethod
    def _stood(self) -> None:
        """It stands now, and what came by then has been heard."""

    async def _connect(self, expected: str, context: ssl.SSLContext) -> None:
        try:
            stream, early = await opened(self.peer, expected, context)
        except NotOpened as error:
            self._fail(str(error))
            return
        try:
            self.opened, self._stream = True, stream
            self._listen(stream)
            for frame in early:
                stream.on_frame(frame)
            self._stood()
            await stream.lost
            self._fail("the connection ended")
        finally:
            stream.cut()

    def _came(self, frame: bytes) -> None:
        try:
            answers = self._read(frame)
        except DecodeError as error:
            self._fail(f"sent what is no answer: {error}")
            return
        self._answered(answers)

    def _fail(self, why: str) -> None:
        if self._stream is not None:
            self._stream.cut()
        super()._fail(why)
