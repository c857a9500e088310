"""The supervisor's system calls. Single-threaded and without an event loop, so that `fork` is safe and nothing can
block it.

Signals are blocked and read one at a time by `sigtimedwait`: there is no handler, so there is no code that runs at a
bad moment.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import NoReturn

from tenured.supervisor import plan

_WATCHED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1
_GRACE_AFTER_DAEMON = 2 * plan.SECOND
"""How long a worker container of our own may live on after the daemon left."""


def _log(text: str) -> None:
    os.write(2, f"supervisor: {text}\n".encode())


class Child:
    """One supervised program: its command, its process if it runs, its next start if it does not."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.command = command
        self.pid = 0
        self.status = 0
        self.start_at = 0
        self._restarts = plan.Restarts()
        self._started_at = 0

    def start(self, now: int) -> None:
        """Forks and executes; the child dies with us, as it would when PID 1 of a container dies."""
        parent = os.getpid()
        self._started_at = now
        self.pid = os.fork()
        if self.pid == 0:
            _become(self.command, parent)

    def ended(self, status: int, now: int) -> None:
        """Takes note of the end and plans the next start."""
        self.pid = 0
        self.status = status
        delay = self._restarts.delay_after(now - self._started_at)
        self.start_at = now + delay
        when = f"in {delay / plan.SECOND:g} s" if delay else "at once"
        _log(f"{self.name} ended: {plan.describe(status)}; next start {when}")

    def send(self, number: int) -> None:
        """Sends a signal if the process runs."""
        if self.pid:
            os.kill(self.pid, number)


def _become(command: list[str], parent: int) -> NoReturn:
    """In the fork: arms the parent-death signal (Linux prctl(2)) and executes. Never returns."""
    try:
        import ctypes  # noqa: PLC0415 - only the fork needs it; the supervisor itself stays small

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if os.getppid() == parent:
            os.execv(command[0], command)  # noqa: S606 - our own interpreter and our own modules
    finally:
        os._exit(127)


class Supervisor:
    """Keeps the daemon, and under `tenure dev` the worker container's PID 1, running until it is told to stop."""

    def __init__(self, daemon: Child, worker: Child | None) -> None:
        self._daemon = daemon
        self._children = [daemon] if worker is None else [daemon, worker]
        self._worker = worker
        self._stopping = False
        self._kill_worker_at = 0

    def run(self) -> int:
        """Until a requested stop is done; returns the daemon's exit code."""
        while True:
            now = time.monotonic_ns()
            if self._stopping:
                if not any(child.pid for child in self._children):
                    return plan.exit_code(self._daemon.status)
                self._end_left_over_worker(now)
            else:
                for child in self._children:
                    if not child.pid and now >= child.start_at:
                        child.start(now)
            received = signal.sigtimedwait(_WATCHED, self._patience(now))
            if received is not None and received.si_signo != signal.SIGCHLD:
                self._pass_on(received.si_signo)
            self._reap()

    def _patience(self, now: int) -> float:
        """Seconds until there is something to do without a signal."""
        waits = [60.0]
        if not self._stopping:
            waits += [(child.start_at - now) / plan.SECOND for child in self._children if not child.pid]
        elif self._kill_worker_at:
            waits.append((self._kill_worker_at - now) / plan.SECOND)
        return max(min(waits), 0.001)

    def _pass_on(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._daemon.send(number)
            return
        self._stopping = True
        for child in self._children:
            child.send(number)

    def _reap(self) -> None:
        """Reaps our children and, as PID 1, whatever was left to us."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self._children:
                if child.pid == pid:
                    child.ended(status, time.monotonic_ns())

    def _end_left_over_worker(self, now: int) -> None:
        """The daemon is gone and will not come back: nobody else would let the worker container go."""
        if self._daemon.pid or self._worker is None or not self._worker.pid:
            return
        if not self._kill_worker_at:
            self._kill_worker_at = now + _GRACE_AFTER_DAEMON
        elif now >= self._kill_worker_at:
            self._worker.send(signal.SIGKILL)


def main(arguments: list[str]) -> int:
    """`tenured supervise`: the exit code is the daemon's after a requested stop, 2 for a bad command line."""
    environment = dict(os.environ)
    try:
        modules, command = plan.parse(arguments, environment)
    except plan.UsageError as error:
        _log(str(error))
        return 2
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    worker = None
    if modules:
        # One process group of daemon and worker: freezing or killing the group is a power cut (docs/architecture.md).
        if os.getpid() not in (os.getpgrp(), os.getsid(0)):
            os.setpgid(0, 0)
        socket = os.path.join(plan.run_directory(command, environment), "worker.sock")  # noqa: PTH118 - pathlib costs 10 ms
        worker = Child(
            "worker",
            [sys.executable, "-m", "tenure.worker", "--socket", socket, "--modules", ",".join(modules)],
        )
    # -P: the daemon must not import what lies in the user's directory.
    return Supervisor(Child("daemon", [sys.executable, "-P", "-m", "tenured", *command]), worker).run()
