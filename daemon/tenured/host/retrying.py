"""What becomes of a turn that failed in user code: it is tried again, ends as a dead letter, or its caller is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import tenure_link
from tenured.host.flights import Flight
from tenured.host.jobs import Job, Stage
from tenured.host.judging import Judge
from tenured.host.lineup import Lineup
from tenured.host.telling import Telling

NO_ROOM_S = 5.0
"""Until what has no room in the record, not even as a dead letter, is tried again."""


class Retries:
    """Of one activation."""

    def __init__(self, telling: Telling, judge: Judge, lineup: Lineup, again: Callable[[Iterable[Job]], None]) -> None:
        """`again(jobs)`: run them now, in this order, before all others."""
        self._telling = telling
        self._judge = judge
        self._lineup = lineup
        self._again = again

    def failed(self, flight: Flight, done: tenure_link.TurnDone, fault: tenure_link.Fault) -> None:
        """A failure in user code. The draft is as the turn found it, but for what its class makes of the failure."""
        self._telling.failed(fault)
        job = flight.job
        retry_s = self._judge.failed(job, fault)
        if done.stop is not None:
            retry_s = None  # its class ends the agent for it
        if retry_s is None and job.planned and done.state is None:  # its plan is still in the state
            retry_s = 0.0 if job.poisoned is None else NO_ROOM_S
            job.poisoned, job.needs_worker = job.poisoned or fault, True
        if retry_s is None and job.ends_in_letter:
            flight.letter, flight.pauses = fault, done.stop is None and self._judge.pauses(job)
            return
        if retry_s is not None:
            # What ran on this draft may include later signals of the same sender, which must not overtake it [prev].
            self._lineup.cut(flight, keep=False)
            self._park(job, retry_s)
            return
        if done.state is not None or done.sends or done.stop is not None:
            flight.silent = True
        else:
            self._lineup.flights.remove(flight)
        self._lineup.ended(job)
        job.refuse(fault.code, fault.message)

    def without_room(self, job: Job) -> None:
        """The record has no room for it: try it again in a while."""
        self._park(job, NO_ROOM_S)

    def _park(self, job: Job, seconds: float) -> None:
        job.stage = Stage.QUEUED
        self._judge.park(job, seconds, self._judge.guard(self._again))
