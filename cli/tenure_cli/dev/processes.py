"""One process of a local cluster: started in a session of its own, logged, ended, frozen and restarted."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tenure_cli.dev import watchdog

LOG_BYTES = 5_000_000
"""A log file is turned over at this size; one older file is kept."""
TAIL_LINES = 20
"""Kept in memory of each process, for the message when it cannot start."""
RESTART_DELAYS_S = (0.1, 0.5, 1.0, 2.0, 5.0)
PIPE_END_S = 2.0
PEACE_S = 10.0
"""A process that lived this long starts its restart delays anew."""

LogSink = Callable[[str, str], None]
"""Called with the process's name and one line."""


@dataclass(frozen=True)
class Spec:
    """What to start: `command`, in `directory`, with `environment`; lines of its output go to `log` too."""

    name: str
    command: Sequence[str]
    directory: Path
    environment: Mapping[str, str]
    log: Path


class Watchdog:
    """The process that kills all groups when this one is gone, and removes `files`."""

    def __init__(self) -> None:
        reader, self._writer = os.pipe()
        script = Path(watchdog.__file__)
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and script
            [sys.executable, "-I", "-S", str(script)], stdin=reader, start_new_session=True, stdout=subprocess.DEVNULL
        )
        os.close(reader)

    def add(self, group: int) -> None:
        """Kill `group` when we are gone."""
        self._say(f"+{group}")

    def discard(self, group: int) -> None:
        """`group` has ended."""
        self._say(f"-{group}")

    def remove_at_end(self, file: Path) -> None:
        """Remove `file` when we are gone."""
        self._say(f"FILE {file}")

    def close(self) -> None:
        """Nothing is left to watch: the watchdog kills what is still named and ends."""
        os.close(self._writer)
        self._process.wait()

    def _say(self, line: str) -> None:
        # Less than PIPE_BUF: atomic. A dead watchdog is no reason to stop the cluster.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._writer, f"{line}\n".encode())


class LogFile:
    """A file of bounded size: at `LOG_BYTES` it becomes `<name>.1`, which replaces the one before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = path.open("a", buffering=1, encoding="utf-8", errors="replace")
        self._size = self._file.tell()

    def write(self, line: str) -> None:
        """Append one line."""
        if self._size > LOG_BYTES:
            self._file.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            self._file = self._path.open("a", buffering=1, encoding="utf-8", errors="replace")
            self._size = 0
        self._size += self._file.write(f"{line}\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Process:
    """Keeps one program running until it is told otherwise."""

    def __init__(self, spec: Spec, dog: Watchdog, sink: LogSink, on_change: Callable[[], None] = lambda: None) -> None:
        self.spec = spec
        self.on_change = on_change
        """Called after each start and end, when `pid` is the new one."""
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.pid = 0
        """Of the running process, which leads its own process group; 0 while it is down."""
        self.starts = 0
        self.frozen = False
        self._dog = dog
        self._sink = sink
        self._wanted = False
        self._changed = asyncio.Condition()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """As in the plan: `server-0`, `host-1`."""
        return self.spec.name

    async def start(self) -> None:
        """Start it and keep it running. Returns when the process exists, not when it is ready."""
        self._wanted = True
        before = self.starts
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.name}")
        await self._wait_for(lambda: self.starts > before, "start")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group, if the process is up."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def freeze(self) -> None:
        """A power cut as others see it: the whole group falls silent, its sockets stay open, nothing is reset."""
        self.frozen = True
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """The group runs on, as after a long pause."""
        self.frozen = False
        self.signal(signal.SIGCONT)

    async def kill(self, *, restart: bool) -> None:
        """End the whole group at once, and wait until it is gone (and, with `restart`, started again)."""
        self._wanted = restart
        before, pid = self.starts, self.pid
        self.signal(signal.SIGKILL)
        self.frozen = False
        if pid:
            await self._wait_for(lambda: self.starts > before if restart else self.pid == 0, "end")

    async def stop(self, grace_s: float) -> None:
        """Ask it to end, and kill its group after `grace_s` seconds."""
        self._wanted = False
        if self.pid:
            if self.frozen:
                self.thaw()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._wait_for(lambda: self.pid == 0, "end")
        await self.kill(restart=False)
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper

    async def _keep(self) -> None:
        failures = 0
        while self._wanted:
            began = time.monotonic()
            await self._run_once()
            if not self._wanted:
                return
            failures = 0 if time.monotonic() - began > PEACE_S else failures + 1
            delay = RESTART_DELAYS_S[min(failures, len(RESTART_DELAYS_S) - 1)]
            self._emit(f"tenure dev: {self.name} ended; it is started again in {delay:g} s")
            await asyncio.sleep(delay)

    async def _run_once(self) -> None:
        log = LogFile(self.spec.log)
        try:
            # No preexec_fn: Python then starts it by vfork, which is safe beside threads and gRPC.
            child = await asyncio.create_subprocess_exec(
                *self.spec.command,
                cwd=self.spec.directory,
                env=dict(self.spec.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
            self._dog.add(child.pid)
            await self._note(child.pid)
            pump = asyncio.create_task(self._pump(child.stdout, log))
            await child.wait()
            self.signal(signal.SIGKILL)  # whatever is left of its group
            # Whoever left the group on purpose may still hold the pipe: not a reason to wait for ever.
            await asyncio.wait([pump], timeout=PIPE_END_S)
            pump.cancel()
            self._dog.discard(child.pid)
        finally:
            log.close()
            await self._note(0)

    async def _pump(self, stream: asyncio.StreamReader | None, log: LogFile) -> None:
        if stream is None:
            return
        while True:
            try:
                raw = await stream.readline()
            except ValueError:  # a line beyond the reader's limit: it has been dropped
                continue
            if not raw:
                return
            line = raw.decode(errors="replace").rstrip("\n")
            log.write(line)
            self._emit(line)

    def _emit(self, line: str) -> None:
        self.tail.append(line)
        self._sink(self.name, line)

    async def _note(self, pid: int) -> None:
        async with self._changed:
            self.pid = pid
            self.starts += 1 if pid else 0
            self._changed.notify_all()
        self.on_change()

    async def _wait_for(self, predicate: Callable[[], bool], what: str) -> None:
        async with self._changed:
            try:
                async with asyncio.timeout(30):
                    await self._changed.wait_for(predicate)
            except TimeoutError:
                raise TimeoutError(f"{self.name} did not {what} within 30 s") from None
