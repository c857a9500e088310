"""The supervisor's system calls. Single-threaded and without an event loop, so that `fork` is safe and nothing can
block it.

Signals are blocked and read one at a time by `sigwaitinfo`: there is no handler, so there is no code that runs at a bad
moment. Waiting for a time is waiting for SIGALRM. Not `sigtimedwait`: that of Python 3.11 returns whatever was in
memory as a signal when its time runs out while the process is stopped.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import NoReturn

from tenured.supervisor import plan

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_WATCHED = (signal.SIGCHLD, signal.SIGALRM, *_PASSED_ON)
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
        self._started_at = now
        self.pid = _spawn(self.command, self.environment())

    def environment(self) -> dict[str, str]:
        """Of the program."""
        return dict(os.environ)

    def prepare(self, now: int) -> int:  # noqa: ARG002 - for those who can
        """Does what can be done ahead of the next start; returns when to ask again, 0: when something happened."""
        return 0

    def reaped(self, pid: int, status: int, now: int) -> None:
        """Takes note of the end, if it was this child's, and plans the next start."""
        if pid != self.pid:
            return
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


class Daemon(Child):
    """A child with a warm spare: the next daemon, which has imported everything and waits for a byte on a pipe.

    Python needs 0.4 s of processor time to import grpc and asyncio: seconds on a busy node, with the agents down.
    """

    def __init__(self, name: str, command: list[str]) -> None:
        super().__init__(name, command)
        self._spare = 0
        self._go = -1
        self._spare_at = 0
        self._spare_restarts = plan.Restarts()
        self._spare_started_at = 0

    def start(self, now: int) -> None:
        """Lets the spare go, or starts a process from nothing."""
        self._spare_at = now + plan.SPARE_AFTER
        if not self._spare:
            super().start(now)
            return
        self._started_at = now
        self.pid, self._spare = self._spare, 0
        try:
            os.write(self._go, b"g")
        except BrokenPipeError:
            pass  # it has just ended: reaped like any daemon
        finally:
            os.close(self._go)

    def prepare(self, now: int) -> int:
        """Starts a spare once the daemon has had the processor for itself for a while."""
        if self._spare or not self.pid:
            return 0
        if now < self._spare_at:
            return self._spare_at
        read, self._go = os.pipe()
        os.set_inheritable(read, True)
        self._spare_started_at = now
        self._spare = _spawn(self.command, {**os.environ, plan.GO_VARIABLE: str(read)})
        os.close(read)
        return 0

    def reaped(self, pid: int, status: int, now: int) -> None:
        """Also takes note of the end of a spare: the next one comes when its turn is."""
        if pid != self._spare:
            super().reaped(pid, status, now)
            return
        os.close(self._go)
        self._spare = 0
        self._spare_at = now + plan.SPARE_AFTER + self._spare_restarts.delay_after(now - self._spare_started_at)
        _log(f"the spare {self.name} ended: {plan.describe(status)}")

    def send(self, number: int) -> None:
        """A signal to stop ends the spare at once."""
        super().send(number)
        if self._spare and number in (signal.SIGTERM, signal.SIGINT):
            os.kill(self._spare, signal.SIGKILL)


def _spawn(command: list[str], environment: dict[str, str]) -> int:
    """Forks and executes; returns the PID."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(command, environment, parent)
    return pid


def _become(command: list[str], environment: dict[str, str], parent: int) -> NoReturn:
    """In the fork: arms the parent-death signal (Linux prctl(2)) and executes. Never returns."""
    try:
        import ctypes  # noqa: PLC0415 - only the fork needs it; the supervisor itself stays small

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if os.getppid() == parent:
            os.execve(command[0], command, environment)  # noqa: S606 - our own interpreter and our own modules
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
            signal.setitimer(signal.ITIMER_REAL, self._patience(now))
            received = signal.sigwaitinfo(_WATCHED).si_signo
            if received in _PASSED_ON:
                self._pass_on(received)
            self._reap()

    def _patience(self, now: int) -> float:
        """Seconds until there is something to do without a signal."""
        waits = [60.0]
        if not self._stopping:
            waits += [(child.start_at - now) / plan.SECOND for child in self._children if not child.pid]
            waits += [(at - now) / plan.SECOND for child in self._children if (at := child.prepare(now))]
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
                child.reaped(pid, status, time.monotonic_ns())

    def _end_left_over_worker(self, now: int) -> None:
        """The daemon is gone and will not come back: nobody else would let the worker container go."""
        if self._daemon.pid or self._worker is None or not self._worker.pid:
            return
        if not self._kill_worker_at:
            self._kill_worker_at = now + _GRACE_AFTER_DAEMON
        elif now >= self._kill_worker_at:
            self._worker.send(signal.SIGKILL)


class Workers(Child):
    """PID 1 of the workers."""

    def environment(self) -> dict[str, str]:
        """Without what is the daemon's own."""
        return plan.for_workers(os.environ)


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
        worker = Workers(
            "worker",
            [sys.executable, "-m", "tenure.worker", "--socket", socket, "--modules", ",".join(modules)],
        )
    # -P: the daemon must not import what lies in the user's directory.
    return Supervisor(Daemon("daemon", [sys.executable, "-P", "-m", "tenured", *command]), worker).run()
