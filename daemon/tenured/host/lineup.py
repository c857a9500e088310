"""The jobs of one agent in their order: those under way, each on the draft that the one before left, then those that
wait. What did not happen goes back to the front, with all that ran on its draft, as if it had not begun.
"""

from __future__ import annotations

from collections.abc import Sequence

from tenured.host.flights import Flight
from tenured.host.jobs import Job, Stage
from tenured.host.judging import Judge
from tenured.host.owedjobs import InboxJob
from tenured.host.waitlist import Waitlist
from tenured.host.worker import Worker


class Lineup:
    """Of one activation."""

    __slots__ = ("_judge", "_uid", "flights", "queue", "worker")

    def __init__(self, uid: str, judge: Judge) -> None:
        self.flights: Waitlist[Flight] = Waitlist()
        self.queue: Waitlist[Job] = Waitlist()
        self.worker: Worker | None = None
        """In whose memory the drafts are."""
        self._uid = uid
        self._judge = judge

    def running(self) -> Flight | None:
        """The turn that the worker is at."""
        return next((flight for flight in self.flights if flight.done is None and flight.number), None)

    def put_first(self, jobs: Sequence[Job]) -> None:
        """In this order, before all others."""
        self.queue.extendleft(reversed(jobs))

    def ended(self, job: Job) -> None:
        """Its turn is settled: repetitions of it may be judged."""
        self.queue.extendleft(self._judge.ended(job))

    def requeue(self, *jobs: Job) -> None:
        """Put them before all others, in this order, as if they had not begun."""
        for job in reversed(jobs):
            self.ended(job)
            if not job.answered:
                job.stage = Stage.QUEUED
                self.queue.appendleft(job)

    def cut(self, flight: Flight, *, keep: bool) -> None:
        """This turn and all later ones did not happen; they go back to the queue, this one only to be kept."""
        at = self.flights.index(flight)
        gone = [self.flights.pop() for _ in range(len(self.flights) - at)][::-1]
        for one in gone:
            one.cut = True
        if not keep:
            self.ended(flight.job)
        self.requeue(*(one.job for one in gone if one is not flight or keep))
        numbers = [one.number for one in gone if one.number]
        if numbers and self.worker is not None:
            for number in numbers:
                self.worker.forget(number)
            self.worker.drop(min(numbers), self._uid)

    def cut_behind(self, flight: Flight) -> None:
        """All turns after this one did not happen; they go back to the queue."""
        later = self.flights.index(flight) + 1
        if later < len(self.flights):
            self.cut(self.flights[later], keep=True)

    def undrafted(self) -> tuple[list[Job], list[Job]]:
        """The worker is gone, with every draft: what ran there, if somebody waits for it, and what is to begin anew.
        One of the inbox that ran there is in both, `suspected`, if others are to run before it [inbox_order].
        """
        running = self.running()
        doubted: list[Job] = []
        again: list[Job] = []
        for flight in self.flights:
            flight.cut, job = True, flight.job
            if flight is not running or job.answered:
                again.append(job)
                continue
            doubted.append(job)
            job.suspected = isinstance(job, InboxJob) and bool(again)
            if job.suspected:
                again.append(job)
            else:
                self.ended(job)
        self.flights.clear()
        return doubted, again
