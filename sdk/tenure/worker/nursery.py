"""Where workers come from: the fork server, or a process of its own for each where the imports leave threads."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from typing import NoReturn

from tenure.worker import forkserver, linux
from tenure.worker.begun import Notebook, Notes
from tenure.worker.config import Config
from tenure.worker.forkserver import Broken, Classes, Forked, Imported, Report
from tenure.worker.linux import boot_ns
from tenure_link import AgentClass, Fault, Splitter

RETRY_NS = (1_000_000_000, 2_000_000_000, 5_000_000_000, 10_000_000_000)
"""Waits between imports that fail; the last one repeats."""

Run = Callable[[Config, Classes, tuple[AgentClass, ...], Notes], NoReturn]


class Nursery:
    """Starts the fork server and asks it for workers. Its socket is for the supervisor's selector."""

    def __init__(self, config: Config, run: Run, notebook: Notebook) -> None:
        self._config = config
        self._run = run
        self._notebook = notebook
        self._splitter = Splitter()
        self._failures = 0
        self._was_ready = False
        self._reloading = False
        self.control: socket.socket | None = None
        self.pid = 0
        """Of the fork server; 0: none."""
        self.ready = False
        """Workers can be started."""
        self.threaded = False
        self.fault: Fault | None = None
        """Why the modules cannot be imported."""
        self.retry_at: int | None = None

    def begin(self) -> None:
        """Start a fork server, which imports the modules. The old one, if any, must be stopped."""
        ours, theirs = socket.socketpair()
        supervisor = os.getpid()
        self.retry_at = None
        self.pid = os.fork()
        if self.pid == 0:
            forkserver.child(lambda: self._serve(theirs, supervisor))
        theirs.close()
        ours.setblocking(False)
        self.control = ours
        self._splitter = Splitter()

    def stop(self) -> None:
        """Kill the fork server; the supervisor reaps it. Workers are not touched."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
        self.close()

    def reload(self) -> None:
        """Import anew: the fork server is killed, and started again once it is reaped."""
        self.threaded = self.ready = False
        self.fault = None
        self._reloading = True
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
        else:
            self.retry_at = boot_ns()

    def close(self) -> None:
        """Forget the socket."""
        if self.control is not None:
            self.control.close()
        self.control = None
        self.ready = self.threaded

    def spawn(self, page: int) -> int:
        """Start one worker, its notes on that page. Its PID if it is there at once, 0 if a `Forked` will follow. Raises
        OSError.
        """
        if self.threaded:
            return self._spawn_alone(page)
        if self.control is None:
            raise BrokenPipeError("there is no fork server")
        self.control.send(bytes((page,)))
        return 0

    def _spawn_alone(self, page: int) -> int:
        supervisor = os.getpid()
        pid = os.fork()
        if pid == 0:
            forkserver.child(lambda: self._work_alone(supervisor, page))
        return pid

    def _work_alone(self, supervisor: int, page: int) -> NoReturn:
        _become_child(-1)
        forkserver.follow(supervisor)
        self._run(self._config, *forkserver.load(self._config), self._notebook.notes(page))

    def _serve(self, control: socket.socket, supervisor: int) -> NoReturn:
        _become_child(control.fileno())
        forkserver.follow(supervisor)
        notes = self._notebook.notes
        forkserver.serve(control, self._config, supervisor, lambda c, d, p: self._run(self._config, c, d, notes(p)))

    def read(self) -> list[Report] | None:
        """What the fork server reports; None: it has closed."""
        if self.control is None:
            return None
        try:
            data = self.control.recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        reports = [forkserver.decode_report(body) for body in self._splitter.feed(data)]
        for report in reports:
            self._note(report)
        return reports

    def _note(self, report: Report) -> None:
        match report:
            case Imported(threaded):
                self.ready, self.threaded, self.fault, self._failures = True, threaded, None, 0
                self._was_ready = True
            case Broken(fault):
                self.fail(fault)
            case Forked():
                pass

    def fail(self, fault: Fault) -> None:
        """The import failed: try again later, in a new process."""
        self.ready, self.fault = False, fault
        self.retry_at = boot_ns() + RETRY_NS[min(self._failures, len(RETRY_NS) - 1)]
        self._failures += 1

    def ended(self, how: str) -> None:
        """The fork server was reaped. One that had imported the modules is replaced at once."""
        was_ready, self.pid = self._was_ready, 0
        self._was_ready = False
        self.close()
        again, self._reloading = self._reloading or was_ready, False
        if self.threaded or self.retry_at is not None:
            return
        if again:
            self.begin()
        else:
            self.fail(Fault("ImportFailed", f"importing {', '.join(self._config.modules)} ended the process: {how}"))


def _become_child(keep: int) -> None:
    """Drop what belongs to the supervisor: its sockets, its wake-up pipe, its handlers."""
    signal.set_wakeup_fd(-1)
    for number in linux.SUPERVISED:
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the supervisor decides when its children end
    low = 3
    for fd in sorted(int(name) for name in os.listdir("/proc/self/fd")):  # noqa: PTH208 - numbers
        if fd >= low and fd != keep:
            try:
                os.close(fd)
            except OSError:
                continue  # the directory's own descriptor
