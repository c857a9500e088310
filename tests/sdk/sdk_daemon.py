"""A daemon that is no daemon: it speaks the worker link to real processes of `tenure.worker`."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from tenure_link import (
    LINK_VERSION,
    Activate,
    Activated,
    Commit,
    FromProcess,
    Hello,
    Lease,
    Splitter,
    Stop,
    Turn,
    TurnDone,
    Welcome,
    Workers,
    decode_from_process,
    encode,
)

F = TypeVar("F", bound=FromProcess)
DEADLINE_S = 30.0
FAR_S = 120.0
SECOND = 1_000_000_000

AGENTS = """
import asyncio, logging, os, subprocess, time
import tenure

class CounterState(tenure.State):
    count: int = 0

class Counter(tenure.Agent[CounterState]):
    @tenure.action
    async def increment(self, ctx: tenure.Context, by: int = 1) -> int:
        self.state.count += by
        ctx.emit("counter.changed", self.state.count)
        return self.state.count

    @tenure.action
    async def speak(self, ctx: tenure.Context) -> None:
        print("printed")
        ctx.log.warning("logged %d", 1)

    @tenure.action(blocking=True)
    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    @tenure.action
    def block(self, seconds: float) -> None:
        open("blocked", "w").close()
        time.sleep(seconds)

    @tenure.action
    async def forever(self) -> None:
        self.state.count = -1
        await asyncio.Event().wait()

    @tenure.action
    def leave(self, status: int) -> None:
        os._exit(status)

    @tenure.action
    def child(self) -> int:
        return subprocess.Popen(["sleep", "1000"]).pid

    @tenure.query
    def value(self) -> int:
        return self.state.count
"""


MOUNTED = (
    AGENTS
    + """
class Mounted(Counter):
    async def on_start(self, ctx: tenure.Context) -> None:
        self.state.count += 100 if ctx.recovered else 1
        if self.state.count > 1000:
            ctx.emit("mounted.much")
"""
)
LATE = (
    AGENTS
    + """
class Late(Counter):
    async def on_start(self, ctx: tenure.Context) -> None:
        await asyncio.Event().wait()
"""
)
MINED = (
    AGENTS
    + """
import pydantic
from tenure.worker import lines, resident

class MinedState(tenure.State):
    count: int = 0

    @pydantic.field_validator("count")
    @classmethod
    def checked(cls, count: int) -> int:
        if os.path.exists("mine"):
            os._exit(3)
        if os.path.exists("leave"):
            raise SystemExit(4)
        return count

class Mined(tenure.Agent[MinedState]):
    @tenure.query
    def value(self) -> int:
        return self.state.count

lines.DOZE_S = 0.01
doze = resident.Resident.doze

def mining(self):
    open("mine", "w").close()
    return doze(self)

resident.Resident.doze = mining
"""
)
"""To wake one of it ends the process, while there is a mine."""


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def exists(pid: int) -> bool:
    """Lives, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until(holds: Callable[[], bool], what: str) -> None:
    """Wait until it is so; a pidfd would tell of ends only, this tells of anything."""
    end = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.01)


class Conversation:
    """One connection of a process."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self._splitter = Splitter()
        self._frames: list[FromProcess] = []
        self.hello: Hello
        self._turns = 0

    def send(self, frame: Any) -> None:
        self.writer.write(encode(frame))

    async def next(self, kind: type[F], holds: Callable[[F], object] = lambda _: True) -> F:
        """The next frame of this kind that is so; others before it are dropped. Raises EOFError at the end."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                while self._frames:
                    frame = self._frames.pop(0)
                    if isinstance(frame, kind) and holds(frame):
                        return frame
                data = await self._reader.read(65536)
                if not data:
                    raise EOFError
                self._frames += [decode_from_process(body) for body in self._splitter.feed(data)]

    async def ended(self) -> None:
        """Wait for the end of the connection."""
        with contextlib.suppress(EOFError, ConnectionResetError):
            while True:
                await self.next(Hello)

    def turn(self, method: str, **arguments: object) -> int:
        """Send a turn to agent "7"; its number."""
        self._turns += 1
        packed = msgspec.msgpack.encode(arguments)
        self.send(Turn(self._turns, "7", "by_name", method, packed, boot_ns() + 60 * SECOND, caller="tester"))
        return self._turns

    async def do(self, method: str, **arguments: object) -> Any:
        """A turn from its start to its commit; the reply."""
        number = self.turn(method, **arguments)
        done = await self.next(TurnDone)
        assert done.fault is None, done.fault
        self.send(Commit(number, "7"))
        return msgspec.msgpack.decode(done.reply or b"")

    async def activate(self, state: bytes | None = None, class_name: str = "Counter") -> Activated:
        self.send(Activate("7", 3, "shop/c", class_name, state))
        return await self.next(Activated)


class Daemon:
    """The socket and the lock, and the supervisor's process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "worker.sock"
        self.lock = directory / "incarnation.lock"
        self.process: asyncio.subprocess.Process
        self._waiting: list[Conversation] = []
        self._came = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._away = False

    async def __aenter__(self) -> Self:
        self.lock.touch()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.away()
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        for _ in range(5):  # what was accepted in the last moment is heard of, and closed
            await asyncio.sleep(0)

    def write(self, code: str) -> None:
        (self.directory / "pool_agents.py").write_text(code)

    async def start(self, *options: str) -> None:
        command = [sys.executable, "-m", "tenure.worker", "--socket", str(self.socket), "--modules", "pool_agents"]
        with (self.directory / "stderr").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command, *options, cwd=self.directory, stderr=log, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
            )

    async def listen(self) -> None:
        self.socket.unlink(missing_ok=True)
        self._away = False
        self._server = await asyncio.start_unix_server(self._connected, self.socket)

    async def away(self) -> None:
        """As a daemon that died: no socket, no connections."""
        self._away = True
        if self._server is not None:
            self._server.close()
            self.socket.unlink(missing_ok=True)
        for one in self.all:
            one.writer.transport.abort()
        self.all.clear()
        self._waiting.clear()

    @property
    def all(self) -> list[Conversation]:
        return self.__dict__.setdefault("_all", [])

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._away:  # it was accepted before, and is heard of now
            writer.transport.abort()
            return
        conversation = Conversation(reader, writer)
        self.all.append(conversation)
        try:
            conversation.hello = await conversation.next(Hello)
        except (EOFError, ConnectionResetError):
            return
        async with self._came:
            self._waiting.append(conversation)
            self._came.notify_all()

    async def accept(self, kind: str) -> Conversation:
        """The next process of this kind that says Hello."""
        async with asyncio.timeout(DEADLINE_S), self._came:
            while True:
                for conversation in self._waiting:
                    if conversation.hello.kind == kind:
                        self._waiting.remove(conversation)
                        return conversation
                await self._came.wait()

    async def welcome(self, *, workers: int = 1, lease_s: float = FAR_S) -> tuple[Conversation, Conversation]:
        """Take in the supervisor and its first worker."""
        supervisor = await self.accept("supervisor")
        supervisor.send(Welcome(LINK_VERSION, "one", str(self.lock), workers))
        supervisor.send(Lease(boot_ns() + int(lease_s * SECOND)))
        return supervisor, await self.worker()

    async def worker(self) -> Conversation:
        worker = await self.accept("worker")
        worker.send(Welcome(LINK_VERSION, "one", str(self.lock)))
        return worker

    async def stop(self, supervisor: Conversation) -> int:
        supervisor.send(Stop())
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()

    def said(self) -> str:
        return (self.directory / "stderr").read_text()


@contextlib.asynccontextmanager
async def running(directory: Path, code: str = AGENTS, *options: str) -> AsyncIterator[Daemon]:
    """A listening daemon and a supervisor with this module."""
    async with Daemon(directory) as daemon:
        daemon.write(code)
        await daemon.listen()
        await daemon.start(*options)
        yield daemon


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def ended(frame: Workers) -> bool:
    return frame.ended != 0
