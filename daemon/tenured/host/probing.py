"""Probes of turns that wait for a reply while others wait for them (protocol 9, rule 12): when they are sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tenured.core import turns, waits
from tenured.core.signals import Signal
from tenured.host.guarding import Guard
from tenured.host.owedjobs import AsideJob
from tenured.host.signaljobs import probe_entry
from tenured.host.telling import Telling

PROBE_S = 1.0
"""A request that has waited for so long may wait for ever: most turns go on much sooner."""


class ProbeJob(AsideJob):
    """Ask along the way of a wait who waits there."""

    label = "a probe"

    def __init__(self, telling: Telling, ended: Callable[[], None]) -> None:
        self._telling = telling
        self._ended = ended

    def apply(self, draft: turns.Draft, reply: bytes) -> None:  # noqa: ARG002 - nobody waits for it
        """It leaves as a signal: once, behind the request, and past the loss of hosts."""
        probe = waits.begin(self._telling.uid, self._telling.agent, draft.journal.journal())
        if probe is not None:
            draft.boxes.send(probe_entry(probe, draft.now))

    def cut_off(self, code: str, message: str) -> None:
        """See Job."""
        super().cut_off(code, message)
        self._ended()


class Probes:
    """Of one activation. Each wait is asked about once more whenever requests have come since [probe_each]."""

    def __init__(
        self, telling: Telling, book: Callable[[], turns.Book], add: Callable[[ProbeJob], None], guard: Guard
    ) -> None:
        self._telling = telling
        self._book = book
        self._add = add
        self._guard = guard
        self._wait = ""
        """Key of the wait that the rest is about."""
        self._seen: dict[int, Signal] = {}
        """The inbox as it was when it was looked at."""
        self._timer: asyncio.TimerHandle | None = None
        self._job: ProbeJob | None = None

    @property
    def due(self) -> bool:
        """One is to be sent: the agent must not go to sleep before."""
        return self._timer is not None or (self._job is not None and not self._job.over)

    def look(self) -> None:
        """After a commit, or at the beginning."""
        journal = self._book().journal
        waiting = journal.owed.waiting if journal.owed is not None else None
        if waiting is None or not waiting.to:
            if self._wait:
                self.stop()
            return
        if waiting.key != self._wait:
            self.stop()
            self._wait = waiting.key
        seen, self._seen = self._seen, journal.inbox
        if seen is not journal.inbox:
            fresh = (signal for k, signal in journal.inbox.items() if seen.get(k) is not signal)
            if any(waits.reply_to(signal) for signal in fresh):
                self._later()

    def stop(self) -> None:
        """Ask nothing more of this wait."""
        self._wait, self._seen, self._job = "", {}, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PROBE_S, self._guard(self._ask))

    def _ask(self) -> None:
        self._timer = None
        self._job = ProbeJob(self._telling, self._later)
        self._add(self._job)
