"""A TCP proxy on loopback that a test cuts, or whose answers it holds back."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self


class CuttingProxy:
    """Use as an async context manager. `port` leads to `target`; 0: one that is free."""

    def __init__(self, target: int, port: int = 0) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers = asyncio.Event()
        self._answers.set()
        self._reached = asyncio.Event()
        self.port = port

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hold_answers(self) -> None:
        """What is asked arrives; what is answered does not."""
        self._answers.clear()
        self._reached.clear()

    async def answered(self) -> None:
        """Until an answer is being held back: what was asked has been done."""
        await self._reached.wait()

    def cut(self) -> None:
        """Every connection breaks, with what was held back."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def pass_answers(self) -> None:
        """Of connections from now on, and those that were not cut."""
        self._answers.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        for source, sink, answers in ((reader, back, False), (there, writer, True)):
            task = asyncio.ensure_future(self._pump(source, sink, answers=answers))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                if answers and not self._answers.is_set():
                    self._reached.set()
                    await self._answers.wait()
                sink.write(data)
                await sink.drain()
        sink.close()
