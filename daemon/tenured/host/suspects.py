"""What was running in a worker when that ended: to be tried alone, unless it had not begun (protocol 3, poison)."""

from __future__ import annotations

from collections.abc import Sequence

from tenured.host.jobs import Job
from tenured.host.owedjobs import InboxJob
from tenured.host.waitlist import Waitlist


class Suspects(Waitlist[Job]):
    """Of one activation, in the order of their trials."""

    __slots__ = ("_in_doubt",)

    def __init__(self) -> None:
        super().__init__()
        self._in_doubt: list[Job] = []
        """Those of a worker that is lost, until it is known what had begun there."""

    def doubt(self, jobs: Sequence[Job], queries: Sequence[Job]) -> None:
        """Their worker is lost. Those that are to be tried in their turn only (`suspected`) are in the queue."""
        self._in_doubt = [*jobs, *queries]
        self[:] = [*(job for job in jobs if not job.suspected), *self, *queries]

    def take_inbox(self) -> list[Job]:
        """Those of the inbox: they are tried when their turn comes."""
        inbox: list[Job] = [job for job in self if isinstance(job, InboxJob)]
        self[:] = [job for job in self if job not in inbox]
        return inbox

    def acquit(self, begun: frozenset[int] | None) -> list[Job]:
        """The worker is dead, and this had begun there (None: all of it, maybe): the rest of what it was sent did not
        end it, and is no suspect any more [note_first].
        """
        doubted, self._in_doubt = self._in_doubt, []
        innocent = [] if begun is None else [job for job in doubted if job.sent_as not in begun]
        for job in innocent:
            job.suspected = False
        innocent = [job for job in innocent if job in self]
        for job in innocent:
            self.remove(job)
        return innocent
