"""Background processes that later invocations of the harness find again."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from tools.k8s.shell import Argument, HarnessError, wait_for


def started_at(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot, as text; None when it is gone or a zombie."""
    with contextlib.suppress(OSError):
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else fields[18]
    return None


class Daemon:
    """A process whose PID and start time are kept in a file: a reused PID is not mistaken for it."""

    def __init__(self, state: Path, name: str) -> None:
        self.name, self.file, self.log = name, state / "run" / name, state / "log" / f"{name}.log"

    @property
    def pid(self) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            pid, started = self.file.read_text().split()
            return int(pid) if started_at(int(pid)) == started else None
        return None

    def start(self, *arguments: Argument, env: dict[str, str] | None = None) -> None:
        """Start it unless it runs; its output is appended to its log."""
        if self.pid:
            return
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [str(word) for word in arguments],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
            )
        self.file.write_text(f"{process.pid} {started_at(process.pid)}")
        process.returncode = 0  # it outlives this object on purpose: no warning that it still runs

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 10.0) -> None:
        """Signal it, and kill it when it has not ended after `seconds`."""
        if pid := self.pid:
            os.kill(pid, number)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            with contextlib.suppress(HarnessError):
                wait_for(f"{self.name} to end", lambda: not self.alive(pid), seconds, 0.02)
            if self.alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.file.unlink(missing_ok=True)

    def alive(self, pid: int) -> bool:
        """Whether `pid` still runs; reaps it if it is a child of this process."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return started_at(pid) is not None
