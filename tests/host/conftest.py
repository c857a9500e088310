"""Fixtures for the host and its supervisor: real processes where death and freezing are the subject, a fake worker
elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from played import one_agent
from played_place import activating
from playing import playing

import tenure_link

DEADLINE_S = 20.0


class FakeProcess:
    """The other end of the worker link, by hand: says what a test tells it to, keeps what it heard."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._splitter = tenure_link.Splitter()
        self._ready: list[tenure_link.FromDaemon] = []
        self.answer_pings = True

    def say(self, frame: tenure_link.Frame) -> None:
        self.writer.write(tenure_link.encode(frame))

    async def hear(self, kind: Any, *, skip: Any = ()) -> Any:
        """The next frame, which must be of this kind; pings are answered on the way."""
        while True:
            frame = await self._next()
            if isinstance(frame, tenure_link.Ping):
                if self.answer_pings:
                    self.say(tenure_link.Pong(n=frame.n))
                if kind is not tenure_link.Ping:
                    continue
            if skip and isinstance(frame, skip):
                continue
            assert isinstance(frame, kind), frame
            return frame

    async def closed(self) -> None:
        """Until the daemon has ended the connection."""
        async with asyncio.timeout(DEADLINE_S):
            while await self._reader.read(65536):
                pass

    async def _next(self) -> Any:
        async with asyncio.timeout(DEADLINE_S):
            while not self._ready:
                data = await self._reader.read(65536)
                assert data, "the daemon closed the connection"
                self._ready += map(tenure_link.decode_from_daemon, self._splitter.feed(data))
        return self._ready.pop(0)


@pytest.fixture
async def dial() -> AsyncIterator[Any]:
    """dial(path) -> FakeProcess; closed at the end of the test."""
    opened = []

    async def connect(path: Path) -> FakeProcess:
        reader, writer = await asyncio.open_unix_connection(str(path))
        opened.append(writer)
        return FakeProcess(reader, writer)

    yield connect
    for writer in opened:
        writer.close()


def hello(
    kind: Any = "worker", pid: int = 4711, version: int = tenure_link.LINK_VERSION, **more: Any
) -> tenure_link.Hello:
    """A good Hello, unless told otherwise."""
    return tenure_link.Hello(
        link_version=version, kind=kind, pid=pid, sdk_version="0.1.0", python_version="3.11", **more
    )


@pytest.fixture
def make_hello() -> Any:
    return hello


async def eventually(condition: Any, deadline_s: float = DEADLINE_S) -> Any:
    """Polls a condition of another process until it is true; its value."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, "the condition did not come true"
        await asyncio.sleep(0.01)
    return value


@pytest.fixture(name="eventually")
def eventually_fixture() -> Any:
    return eventually


class Group:
    """A process in a group of its own."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)


@pytest.fixture
async def spawn(tmp_path: Path) -> AsyncIterator[Any]:
    """spawn(args, env) -> asyncio process with its output in .log; its whole group is killed at the end."""
    started = []

    async def start(*arguments: str, env: Any = None, log_name: Any = "out.log") -> Any:
        log = tmp_path / log_name
        with log.open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                *arguments,
                stdout=out,
                stderr=out,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        process.log = log
        started.append(process)
        return process

    yield start
    for process in started:
        for number in (signal.SIGCONT, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
        await process.wait()


@pytest.fixture
async def scene() -> AsyncIterator[Any]:
    """See `played.one_agent`."""
    async with one_agent() as made:
        yield made


@pytest.fixture
async def place(scene: Any) -> AsyncIterator[Any]:
    """See `played_place.activating`."""
    async with activating(scene) as made:
        yield made


@pytest.fixture
async def play() -> AsyncIterator[Any]:
    """See `playing.Scene`."""
    async with playing() as scene:
        yield scene
