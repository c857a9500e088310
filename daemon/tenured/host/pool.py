"""The worker processes of this host: who is connected, who is dying, whom to ask. The other side is `tenure.worker`.

Timing (docs/processes.md): a frozen process is killed after 5 unanswered pings; a lost worker is dead once PID 1 says
so; with PID 1 away, or user code that cannot be imported, and no worker for 2 s the host gives its agents up.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

import tenure_link
from tenured.host.link import Connection
from tenured.host.worker import Pulse, Worker

log = logging.getLogger("tenured.host.pool")

PING_EVERY_S = 1.0
AWAY_LIMIT_S = 2.0
"""Without PID 1 or without importable code, and without a worker, for this long: somebody else should hold the agents.
"""
TRIALS_AT_ONCE = 16
"""Workers of their own that suspects may have at one time; more of them wait. Each is a process, and after the end of a
full worker there may be as many suspects as agents.
"""
REAP_LIMIT_S = 1.0
"""A worker that lost its socket ends within 1 s; one that PID 1 still lists then is killed."""


class PoolEvents(Protocol):
    """What the host does about its workers; called on the loop."""

    def workers_changed(self) -> None:
        """Readiness, classes or the reason why no worker serves may have changed."""

    def workers_gone(self) -> None:
        """Nobody will run agents here soon: release them (API.md section 3)."""

    def worker_terminating(self) -> None:
        """The worker container was told to stop: drain."""

    def worker_said(self, line: tenure_link.LogLine) -> None:
        """A line for an agent's log."""


class _Supervisor:
    """PID 1 of the worker container."""

    def __init__(self, connection: Connection, hello: tenure_link.Hello) -> None:
        self.connection = connection
        self.fault = hello.fault
        self.pids: frozenset[int] | None = None  # None: it has not said yet
        self.pulse = Pulse()


class WorkerPool:
    """Implements `link.Events`."""

    def __init__(self, incarnation: str, lock: str, size: int, events: PoolEvents) -> None:
        self.size = size
        self.classes: tuple[tenure_link.AgentClass, ...] = ()
        self._queries: dict[str, dict[str, bool]] = {}
        self._incarnation = incarnation
        self._lock = lock
        self._events = events
        self._supervisor: _Supervisor | None = None
        self._workers: dict[Connection, Worker] = {}
        self._dying: dict[int, Worker] = {}
        self._trials: list[asyncio.Future[Worker]] = []
        self._available = asyncio.Event()
        self._skew: tenure_link.Fault | None = None
        self._lease_until = 0
        self._away: asyncio.TimerHandle | None = None
        self._stopping = False

    # --- what the host asks ---------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """A worker is connected that can take agents."""
        return self._available.is_set()

    @property
    def fault(self) -> tenure_link.Fault | None:
        """Why no worker serves, if that is known: ImportFailed, VersionSkew."""
        if self._supervisor is not None and self._supervisor.fault is not None:
            return self._supervisor.fault
        return self._skew if not self.ready else None

    def is_query(self, class_name: str, method: str) -> bool | None:
        """Whether the class has that method, and whether it is a query; None: unknown, the worker will say so."""
        return self._queries.get(class_name, {}).get(method)

    async def pick(self) -> Worker:
        """The worker with the fewest agents, as soon as there is one."""
        while True:
            await self._available.wait()
            free = [worker for worker in self._workers.values() if not worker.reserved]
            if free:
                return min(free, key=lambda worker: len(worker.agents))

    async def trial_worker(self) -> Worker:
        """A fresh worker for one agent alone (protocol additions 15). Give it back with `end_trial`."""
        future: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        self._trials.append(future)
        self._ask_for_workers()
        try:
            return await future
        except asyncio.CancelledError:
            if future in self._trials:
                self._trials.remove(future)
                self._ask_for_workers()
            elif future.done() and not future.cancelled():
                self.end_trial(future.result())
            raise

    def end_trial(self, worker: Worker) -> None:
        """The trial is over and its agent has left: the process goes, and nobody takes its place."""
        if worker.lost:
            return
        worker.leaving = True
        self.kill(worker, "the trial of a suspect call is over")
        self._ask_for_workers()  # after the kill: PID 1 is to find neither one too many nor one missing

    def kill(self, worker: Worker, reason: str) -> None:
        """SIGKILL by PID 1; the worker counts as lost from now on."""
        if worker.lost:
            return
        if self._supervisor is not None:
            self._supervisor.connection.send(tenure_link.Kill(pid=worker.pid, reason=reason))
        worker.connection.close(reason)

    def lease(self, until_ns: int) -> None:
        """Passes a renewal on to PID 1, which kills the workers when it passes (protocol additions 4)."""
        self._lease_until = until_ns
        if self._supervisor is not None:
            self._supervisor.connection.send(tenure_link.Lease(until_ns=until_ns))

    def stop(self) -> None:
        """Lets the worker container go: the daemon has drained."""
        self._stopping = True
        if self._supervisor is not None:
            self._supervisor.connection.send(tenure_link.Stop())

    async def keep_pinging(self) -> None:
        """Finds frozen processes. Runs until cancelled."""
        while True:
            await asyncio.sleep(PING_EVERY_S)
            for worker in list(self._workers.values()):
                if worker.pulse.stopped:
                    self.kill(worker, f"worker {worker.pid} answered no ping for 5 s")
                else:
                    worker.connection.send(worker.pulse.next_ping())
            supervisor = self._supervisor
            if supervisor is None:
                continue
            if supervisor.pulse.stopped:
                self._supervisor_frozen(supervisor)
            else:
                supervisor.connection.send(supervisor.pulse.next_ping())

    # --- link.Events ------------------------------------------------------------------------------------------------

    def received(self, connection: Connection, frame: tenure_link.FromProcess) -> None:
        """A frame of a process."""
        worker = self._workers.get(connection)
        if isinstance(frame, tenure_link.Hello):
            known = worker is not None or (self._supervisor is not None and self._supervisor.connection is connection)
            if known:
                connection.close("said Hello twice")
            else:
                self._hello(connection, frame)
        elif worker is not None:
            self._from_worker(worker, frame)
        elif self._supervisor is not None and self._supervisor.connection is connection:
            self._from_supervisor(self._supervisor, frame)
        else:
            connection.close("spoke before Hello")

    def lost(self, connection: Connection) -> None:
        """A connection ended."""
        worker = self._workers.pop(connection, None)
        if worker is not None:
            log.info("worker %d is gone: %s", worker.pid, connection.why_closed or "it closed its socket")
            worker.abandon(connection.why_closed or f"worker {worker.pid} ended")
            self._dying[worker.pid] = worker
            self._bury()
            if not worker.dead.is_set():
                asyncio.get_running_loop().call_later(REAP_LIMIT_S, self._insist, worker)
        elif self._supervisor is not None and self._supervisor.connection is connection:
            log.warning("PID 1 of the workers is gone: %s", connection.why_closed or "it closed its socket")
            self._supervisor = None
        else:
            return
        self._changed()

    # --- one kind of process each -----------------------------------------------------------------------------------

    def _hello(self, connection: Connection, hello: tenure_link.Hello) -> None:
        served = (tenure_link.LINK_VERSION, tenure_link.LINK_VERSION - 1)
        if hello.link_version not in served:
            self._skew = tenure_link.Fault(
                code="VersionSkew",
                message=f"the worker speaks link version {hello.link_version} (tenure {hello.sdk_version}); "
                f"this daemon serves {served[1]} and {served[0]}: use an image with a matching tenure",
            )
            connection.finish(tenure_link.Refused(fault=self._skew), self._skew.message)
            self._changed()
            return
        welcome = tenure_link.Welcome(
            link_version=hello.link_version, incarnation=self._incarnation, lock=self._lock, workers=self._wanted()
        )
        if hello.kind == "supervisor":
            if self._supervisor is not None:
                self._supervisor.connection.close("another PID 1 took its place")
            self._supervisor = _Supervisor(connection, hello)
            connection.send(welcome)
            if self._lease_until:
                connection.send(tenure_link.Lease(until_ns=self._lease_until))
        else:
            self._skew = None
            worker = Worker(connection, hello.pid)
            self._workers[connection] = worker
            self._learn(hello.classes)
            connection.send(welcome)
            self._offer_for_trial(worker)
        self._changed()

    def _from_worker(self, worker: Worker, frame: tenure_link.FromProcess) -> None:
        if isinstance(frame, tenure_link.LogLine):
            self._events.worker_said(frame)
        elif not worker.answered(frame):
            self.kill(worker, f"worker {worker.pid} sent nonsense: {type(frame).__name__}")

    def _from_supervisor(self, supervisor: _Supervisor, frame: tenure_link.FromProcess) -> None:
        match frame:
            case tenure_link.Workers():
                supervisor.pids = frozenset(frame.pids)
                supervisor.fault = frame.fault
                if frame.ended:
                    self._note_end(frame)
                self._bury()
                self._changed()
            case tenure_link.Terminating():
                self._events.worker_terminating()
            case tenure_link.Pong():
                supervisor.pulse.pong(frame.n)
            case _:
                supervisor.connection.close(f"PID 1 of the workers sent nonsense: {type(frame).__name__}")

    def _note_end(self, frame: tenure_link.Workers) -> None:
        """It is reaped, and its connection is lost, or about to be."""
        log.info("worker %d ended: %s", frame.ended, frame.status)
        for worker in (*self._workers.values(), *self._dying.values()):
            if worker.pid == frame.ended:
                worker.no_fault = frame.no_fault
                worker.begun = None if frame.begun is None else frozenset(frame.begun)

    def _learn(self, classes: tuple[tenure_link.AgentClass, ...]) -> None:
        self.classes = classes
        self._queries = {each.name: {method.name: method.query for method in each.methods} for each in classes}

    # --- deaths -----------------------------------------------------------------------------------------------------

    def _bury(self) -> None:
        """Marks as dead who lost its connection and is not among the living that PID 1 reports."""
        living = self._supervisor.pids if self._supervisor is not None else None
        if living is None:
            return
        for pid in [pid for pid in self._dying if pid not in living]:
            worker = self._dying.pop(pid)
            worker.dead.set()
            if worker.reserved:
                self._ask_for_workers()

    def _insist(self, worker: Worker) -> None:
        """The process should have ended by itself when it lost its socket."""
        if not worker.dead.is_set() and self._supervisor is not None:
            reason = f"worker {worker.pid} lives on without its socket"
            self._supervisor.connection.send(tenure_link.Kill(pid=worker.pid, reason=reason))

    def _supervisor_frozen(self, supervisor: _Supervisor) -> None:
        """A frozen PID 1 cannot kill workers when the lease lapses: without their sockets they end by themselves within
        1 s.
        """
        supervisor.connection.close("PID 1 of the workers answered no ping for 5 s")
        for worker in list(self._workers.values()):
            worker.connection.close("its PID 1 is frozen")

    # --- how many, and whether that is enough ---------------------------------------------------------------------

    def _wanted(self) -> int:
        workers = self._workers.values()
        trying = sum(worker.reserved and not worker.leaving for worker in workers)
        size = self.size
        if (
            self._trials
        ):  # a worker too many, of an earlier wish, has agents: it is not the fresh one that is waited for
            size = max(size, sum(not worker.reserved for worker in workers))
        return size + min(len(self._trials) + trying, TRIALS_AT_ONCE)

    def _ask_for_workers(self) -> None:
        if self._supervisor is not None:
            on_trial = tuple(worker.pid for worker in self._workers.values() if worker.reserved and not worker.leaving)
            self._supervisor.connection.send(tenure_link.Spawn(workers=self._wanted(), keep=on_trial))

    def _offer_for_trial(self, worker: Worker) -> None:
        while self._trials:
            future = self._trials.pop(0)
            if not future.done():
                worker.reserved = True
                future.set_result(worker)
                return

    def _changed(self) -> None:
        """Recomputes readiness and tells the host."""
        if any(not worker.reserved for worker in self._workers.values()):
            self._available.set()
        else:
            self._available.clear()
        hopeless = (
            not self.ready and not self._stopping and (self._supervisor is None or self._supervisor.fault is not None)
        )
        if hopeless and self._away is None:
            self._away = asyncio.get_running_loop().call_later(AWAY_LIMIT_S, self._give_up)
        elif not hopeless and self._away is not None:
            self._away.cancel()
            self._away = None
        self._events.workers_changed()

    def _give_up(self) -> None:
        self._away = None
        # Without PID 1 nobody reports deaths, but workers end within 1 s of losing their sockets, and 2 s have passed.
        for worker in self._dying.values():
            worker.dead.set()
        self._dying.clear()
        self._events.workers_gone()
