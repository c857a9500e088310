"""PID 1 of the worker container: keeps workers alive while the lease holds, kills them when it passes. No user code.

One thread, one selector. It is the parent of all: the fork server forks twice, so that workers become its children and
are reaped here; when it ends, the kernel ends them (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys

from tenure.worker import linux
from tenure.worker.begun import NO_PAGE, Notebook
from tenure.worker.config import Config
from tenure.worker.daemon_link import REFUSED_NS, DaemonLink
from tenure.worker.fleet import MS, Fleet
from tenure.worker.forkserver import Broken, Forked
from tenure.worker.linux import boot_ns
from tenure.worker.nursery import Nursery
from tenure.worker.process import run_worker
from tenure_link import Fault, FromDaemon, Kill, Lease, Ping, Pong, Refused, Spawn, Stop, Terminating, Welcome, Workers

LONGEST_SLEEP_NS = 500 * MS
"""The selector sleeps on CLOCK_MONOTONIC, which stands still with the machine; leases run on CLOCK_BOOTTIME."""


class Supervisor:
    """The loop: frames, children, lease, in this order: a renewal that has come counts before the lease is judged."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._fleet = Fleet()
        self._link = DaemonLink(config.socket)
        self._notebook = Notebook()
        self._nursery = Nursery(config, run_worker, self._notebook)
        self._selector = selectors.DefaultSelector()
        self._wake, self._wake_write = socket.socketpair()
        self._killed: dict[int, str] = {}
        self._for_no_fault: set[int] = set()
        """Of these: whom nobody asked us to kill."""
        self._pages: dict[int, int] = {}
        """PID -> page of its notes."""
        self._orphan_ends: dict[int, str] = {}
        self._leave_at: int | None = None
        self._terminating = False
        self._stopped = False

    def run(self) -> int:
        """Until Stop, or SIGTERM without a daemon to say it. Returns the exit status."""
        linux.adopt_orphans()
        for end in (self._wake, self._wake_write):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        for number in linux.SUPERVISED:
            signal.signal(number, linux.note_signal)
        self._selector.register(self._wake, selectors.EVENT_READ, self._on_signals)
        self._begin_import()
        while not self._stopped:
            self._turn()
        self._end_all()
        return 0

    def _turn(self) -> None:
        now = boot_ns()
        if self._link.socket is None and now >= self._link.retry_at and self._link.connect(now, self._nursery.fault):
            self._watch_link()
        for key, _ in self._selector.select(self._sleep(boot_ns())):
            key.data()
        self._reap()
        self._enforce()
        if self._leave_at is not None and self._link.socket is None and boot_ns() >= self._leave_at:
            self._stopped = True

    def _sleep(self, now: int) -> float:
        times = [now + LONGEST_SLEEP_NS]
        if (wake := self._fleet.wake_at(now)) is not None:
            times.append(wake)
        if self._link.socket is None:
            times.append(self._link.retry_at)
        if self._nursery.retry_at is not None:
            times.append(self._nursery.retry_at)
        return max(0, min(times) - now) / 1e9

    # --- the daemon ---

    def _watch_link(self) -> None:
        if self._link.socket is not None:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._link.pending else 0)
            if self._link.socket.fileno() in self._selector.get_map():
                self._selector.modify(self._link.socket, events, self._on_link)
            else:
                self._selector.register(self._link.socket, events, self._on_link)

    def _on_link(self) -> None:
        if self._link.socket is None:
            return  # lost in the same turn of the loop
        frames = self._link.read()
        if frames is None or not self._link.flush():
            self._lose_link()
            return
        self._watch_link()
        for frame in frames:
            self._handle(frame)

    def _lose_link(self, wait_ns: int = 50 * MS) -> None:
        """The daemon is gone: its workers have nobody to work for, and must not outlive its lease."""
        if self._link.socket is not None:
            self._selector.unregister(self._link.socket)
        self._link.close(boot_ns(), wait_ns=wait_ns)
        self._fleet.disconnect()
        self._kill_surplus("the daemon is gone")

    def _handle(self, frame: FromDaemon) -> None:
        match frame:
            case Lease(until_ns):
                self._fleet.renew(until_ns)
            case Welcome(workers=workers):
                self._fleet.connect(workers)
                self._report(fault=self._nursery.fault)
                if self._terminating:
                    self._link.send(Terminating())
            case Spawn(workers, keep):
                self._fleet.wanted, self._fleet.kept = workers, frozenset(keep)
                self._kill_surplus("fewer workers are wanted")
            case Kill(pid, reason):
                if pid in self._fleet.alive:
                    self._kill(pid, f"killed: {reason}", asked=True)
            case Ping(n):
                self._link.send(Pong(n))
            case Stop():
                self._stopped = True
            case Refused(fault):
                _say(f"the daemon refused: {fault.message}")
                self._lose_link(REFUSED_NS)
            case _:
                pass  # for workers

    def _report(self, fault: Fault | None = None) -> None:
        self._tell(Workers(tuple(self._fleet.alive), fault=fault))

    def _report_end(self, pid: int, status: str, *, no_fault: bool = False) -> None:
        begun = self._notebook.read(self._pages.pop(pid, NO_PAGE))
        self._tell(Workers(tuple(self._fleet.alive), pid, status, no_fault=no_fault, begun=begun))

    def _tell(self, workers: Workers) -> None:
        if self._fleet.connected:
            self._link.send(workers)
            self._watch_link()

    # --- children ---

    def _begin_import(self) -> None:
        self._nursery.begin()
        if self._nursery.control is not None:
            self._selector.register(self._nursery.control, selectors.EVENT_READ, self._on_nursery)

    def _on_nursery(self) -> None:
        reports = self._nursery.read()
        if reports is None:
            self._close_nursery()
            return
        for report in reports:
            match report:
                case Forked(pid, page):
                    self._add_worker(pid, page)
                case Broken(fault):
                    _say(fault.message)
                    self._report(fault=fault)
                case _:
                    pass
        self._fleet.importable = self._nursery.ready

    def _close_nursery(self) -> None:
        """The fork server has ended or is about to be reaped; what it was asked for will not come."""
        if self._nursery.control is not None:
            self._selector.unregister(self._nursery.control)
        self._nursery.close()
        self._fleet.starting = 0
        self._fleet.importable = self._nursery.ready

    def _add_worker(self, pid: int, page: int) -> None:
        self._fleet.started(pid, boot_ns())
        self._pages[pid] = page
        early = self._orphan_ends.pop(pid, None)
        if not self._fleet.starting:
            self._orphan_ends.clear()
        if early is not None:
            self._fleet.ended(pid, boot_ns(), by_us=False)
            self._report_end(pid, early)
        else:
            self._report()

    def _enforce(self) -> None:
        """Make the fleet what it should be."""
        now = boot_ns()
        if self._fleet.lapsed(now):
            self._kill_surplus("lease lapsed")
        elif self._fleet.surplus(now):  # one was being forked when fewer were wanted, or the daemon went
            self._kill_surplus("fewer workers are wanted" if self._fleet.connected else "the daemon is gone")
        if self._nursery.retry_at is not None and now >= self._nursery.retry_at and self._nursery.pid == 0:
            self._begin_import()
        for _ in range(self._fleet.missing(now)):
            page = self._notebook.take()
            try:
                pid = self._nursery.spawn(page)
            except OSError as error:
                self._notebook.read(page)
                _say(f"cannot start a worker: {error}")
                return
            self._fleet.starting += 1
            if pid:
                self._add_worker(pid, page)

    def _kill_surplus(self, why: str) -> None:
        for pid in self._fleet.surplus(boot_ns()):
            self._kill(pid, why)
        self._kill_strangers()

    def _kill(self, pid: int, why: str, *, asked: bool = False) -> None:
        """Ours to kill by number: nobody else reaps it, so the number is not another process's."""
        if pid not in self._killed:
            self._killed[pid] = why
            if not asked:
                self._for_no_fault.add(pid)
        self._fleet.killed(pid)
        os.kill(pid, signal.SIGKILL)

    def _kill_strangers(self) -> None:
        """Processes that user code started and whose worker is gone have become our children: they end as it did."""
        if self._fleet.starting:
            return  # one of them may be a worker whose number is not known yet
        for pid in linux.children() - set(self._fleet.alive) - {self._nursery.pid}:
            os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._ended(pid, linux.describe_end(status))

    def _ended(self, pid: int, how: str) -> None:
        if pid == self._nursery.pid:
            self._on_fork_server_end(how)
            return
        why, no_fault = self._killed.pop(pid, None), pid in self._for_no_fault
        self._for_no_fault.discard(pid)
        if self._fleet.ended(pid, boot_ns(), by_us=why is not None):
            if why is None:
                _say(f"worker {pid} ended: {how}")
            self._report_end(pid, why or how, no_fault=no_fault)
            self._kill_strangers()
        elif self._fleet.starting:
            self._orphan_ends[pid] = how

    def _on_fork_server_end(self, how: str) -> None:
        while (reports := self._nursery.read()) is not None and reports:
            for report in reports:  # what it said before it ended
                if isinstance(report, Forked):
                    self._add_worker(report.pid, report.page)
                elif isinstance(report, Broken):
                    _say(report.fault.message)
                    self._report(fault=report.fault)
        broken = self._nursery.fault
        self._close_nursery()
        self._nursery.ended(how)
        if self._nursery.fault is not None and self._nursery.fault is not broken:
            _say(self._nursery.fault.message)
            self._report(fault=self._nursery.fault)
        if self._nursery.control is not None:
            self._selector.register(self._nursery.control, selectors.EVENT_READ, self._on_nursery)
        self._fleet.importable = self._nursery.ready

    # --- signals ---

    def _on_signals(self) -> None:
        try:
            numbers = set(self._wake.recv(4096))
        except BlockingIOError:
            return
        if signal.SIGHUP in numbers:
            self._reload()
        if numbers & {signal.SIGTERM, signal.SIGINT} and not self._terminating:
            self._terminating = True
            self._leave_at = boot_ns() + int(self._config.exit_deadline_s * 1e9)
            if self._fleet.connected:
                self._link.send(Terminating())
                self._watch_link()

    def _reload(self) -> None:
        """Import the modules anew and replace all workers: agents continue from their committed state."""
        _say("reloading the modules")
        self._nursery.reload()
        for pid in self._fleet.alive:
            self._kill(pid, "reload")

    def _end_all(self) -> None:
        self._fleet.disconnect()
        self._nursery.stop()
        self._kill_surplus("stop")
        for pid in linux.children():
            os.kill(pid, signal.SIGKILL)
        while linux.children() or self._fleet.alive:
            try:
                pid, _ = os.wait()
            except ChildProcessError:
                break
            self._fleet.ended(pid, boot_ns(), by_us=True)
        self._link.close(boot_ns())


def _say(text: str) -> None:
    print(f"tenure.worker: {text}", file=sys.stderr, flush=True)  # noqa: T201
