"""What others ask of one activation: calls, operations and signals, as far as there is room for them. They wait here
until the record is adopted; from then on the runner of its turns has them.
"""

from __future__ import annotations

from tenure_proto.v1.calls_pb2 import CALL_KIND_ACTION, CALL_KIND_CONTROL, CALL_KIND_QUERY, Call
from tenured.core.signals import Signal
from tenured.host.arrivals import Answered
from tenured.host.controls import Refused, refusal
from tenured.host.failures import not_applied
from tenured.host.jobs import CallJob, Job, Kind
from tenured.host.parts import Parts
from tenured.host.pool import WorkerPool
from tenured.host.rows import Row
from tenured.host.signaljobs import SignalJob
from tenured.host.waitlist import Waitlist

CALLS = 128
"""Calls that may wait for one agent; more get `Busy`."""
SIGNALS = 1024
"""Signals that may wait for one agent here; their senders keep the rest."""


class Mailbox:
    """Of one activation."""

    __slots__ = ("_agent", "_class", "_parts", "_pool", "_queue")

    def __init__(self, row: Row, pool: WorkerPool) -> None:
        self._agent = row.id
        self._class = row.kind.name
        self._pool = pool
        self._parts: Parts | None = None
        self._queue: Waitlist[Job] = Waitlist()
        """What came before the record was adopted."""

    def adopted(self, parts: Parts) -> None:
        """The record is adopted: what has come by then, and what comes from now on, is for its runner."""
        self._parts = parts
        while self._queue:
            parts.runner.add(self._queue.popleft())

    def call(self, call: Call, caller: str, deadline_ns: int, unavailable: str | None) -> CallJob:
        """Queue a call; it is answered by its turn, or at once with why not.

        `unavailable`: why nothing is taken now; None: it is.
        """
        job = CallJob(call, self._kind(call), caller, deadline_ns)
        if unavailable is not None:
            job.fail(not_applied("NotReady", unavailable))
        elif call.kind == CALL_KIND_CONTROL:
            return self._control(job)
        else:
            self._take(job, CALLS, "calls")
        return job

    def signal(self, signal: Signal, unavailable: str | None, answered: Answered) -> None:
        """Queue a signal; it is answered after its commit, or at once with why not."""
        job = SignalJob(signal, answered)
        if unavailable is not None:
            job.cut_off("NotReady", unavailable)
        else:
            self._take(job, SIGNALS, "signals")

    def refuse(self, code: str, message: str) -> None:
        """Answer everything that has not begun."""
        while self._queue:
            self._queue.popleft().refuse(code, message)
        if self._parts is not None:
            self._parts.runner.refuse_all(code, message, queued_only=True)

    def close(self) -> None:
        """Its agent leaves: what waits here is refused. That of the runner is the runner's."""
        self._parts = None
        self.refuse("NotReady", f"{self._agent} has left this host")

    def _take(self, job: Job, limit: int, what: str) -> None:
        if self._parts is None:
            waiting, add = len(self._queue), self._queue.append
        else:
            waiting, add = self._parts.runner.waiting, self._parts.runner.add
        if waiting >= limit:
            job.refuse("Busy", f"{limit} {what} wait for {self._agent}")
        else:
            add(job)

    def _control(self, job: CallJob) -> CallJob:
        """An operation by this host, on what is committed."""
        if self._parts is None or self._parts.ledger.first is not None:
            if self._parts is not None:
                self._parts.runner.write_first()
            job.fail(not_applied("NotReady", f"{self._agent} is starting"))
            return job
        try:
            asked = self._parts.controls.job(job.call, job.caller, job.deadline_ns)
        except Refused as refused:
            refusal(job, refused)
            return job
        if isinstance(asked, bytes):
            job.answer(asked)
            return job
        self._parts.runner.add(asked)
        return asked

    def _kind(self, call: Call) -> Kind:
        """What the worker is asked for; a name is looked up here, so that a query by name costs no commit."""
        if call.kind == CALL_KIND_ACTION:
            return "action"
        if call.kind == CALL_KIND_QUERY:
            return "query"
        query = self._pool.is_query(self._class, call.method)
        return "by_name" if query is None else "query" if query else "action"
