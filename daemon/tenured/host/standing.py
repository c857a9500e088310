"""How one activation stands, and what the registry and the agent's log are told of it."""

from __future__ import annotations

import asyncio
import logging
from enum import StrEnum

from tenure_api.reasons import Reason
from tenure_proto.v1.hostlink_pb2 import Trouble
from tenured.core import boxes, endings, turns
from tenured.host.judging import paused
from tenured.host.reports import Patience
from tenured.host.site import Site
from tenured.host.telling import Telling

log = logging.getLogger("tenured.host.holder")

WOKEN_S = 0.1
"""Until the registry is told that an agent is awake."""


class Phase(StrEnum):
    """Of an activation, as metrics and refusals name it."""

    STARTING = "Starting"
    READY = "Running"
    PAUSED = "Paused"
    BACKOFF = "Backoff"
    ENDING = "Terminating"
    """It has ended by itself, and something is still on its way."""
    DOWN = "Unavailable"
    """Its state cannot be read: it stays down until somebody acts."""


class Standing:
    """Of one activation."""

    def __init__(self, site: Site, telling: Telling, told: turns.Wake | None) -> None:
        self.phase = Phase.STARTING
        self.trouble = ""
        """Why nothing is served, for who asks."""
        self.told = told
        """The registry believes that it sleeps until then; None: it knows better."""
        self._reports = site.reports
        self._telling = telling
        self._uid, self._agent, self._epoch = telling.uid, telling.agent, telling.epoch
        self._letters = 0
        self._woken: asyncio.TimerHandle | None = None

    @property
    def settled(self) -> bool:
        """It is Ready, and the registry knows it."""
        return self.phase is Phase.READY and self.told is None

    def was_ready(self, found: boxes.Boxes) -> None:
        """It was Ready before, and all of this has been told."""
        self.phase, self._letters = Phase.READY, len(found.letters)

    def ready(self, found: boxes.Boxes, *, patience: Patience | None = None) -> None:
        """It serves, and what it begins with is durable [ready_written]. `patience`: how long that is no news yet."""
        self.trouble = ""
        if self.phase not in (Phase.READY, Phase.PAUSED):
            self.phase = Phase.READY
            if self.told is None:
                self._reports.ready(self._uid, self._epoch, patience=patience)
            elif self._woken is None:
                self._woken = asyncio.get_running_loop().call_later(WOKEN_S, self._report_woken)
        self.tell_boxes(found)

    def committed(self, found: boxes.Boxes) -> None:
        """A commit while it serves, or ends."""
        if self.phase in (Phase.READY, Phase.PAUSED, Phase.ENDING):
            self.tell_boxes(found)

    def tell_boxes(self, found: boxes.Boxes) -> None:
        """The registry knows how many dead letters there are, and whether the agent is paused."""
        if len(found.letters) != self._letters:
            self._letters = len(found.letters)
            self._reports.dead_letters(self._uid, self._epoch, self._letters)
        if found.held is not None and self.phase is Phase.READY:
            self.phase = Phase.PAUSED
            text = paused(self._agent, found.held)
            log.warning("%s", text)
            self._telling.say("error", text)
            message = f"{found.held.what} failed {found.held.attempts} times: {found.held.message}"
            self._report(
                Trouble(phase=Phase.PAUSED, reason=Reason.PAUSED, message=message, attempt=found.held.attempts)
            )
        elif found.held is None and self.phase is Phase.PAUSED:
            self.phase = Phase.READY
            self._reports.ready(self._uid, self._epoch)

    def ending(self, found: boxes.Boxes, ended: endings.Ended) -> None:
        """It has ended; what keeps it."""
        left = f"on their way: {len(found.out)}, dead letters: {len(found.letters)}"
        message = f"{ended.reason} ({left})" if found.out or found.letters else ended.reason
        self._report(Trouble(phase=Phase.ENDING, reason=Reason.ENDED, message=message))
        self.tell_boxes(found)

    def backs_off(self, reason: str, message: str, attempt: int, pause_s: float) -> None:
        """It could not be brought up, and is tried again after a pause."""
        self.phase = Phase.BACKOFF
        self.trouble = f"backing off (attempt {attempt}, next in {pause_s:g} s): {message}"
        log.warning("%s: %s", self._agent, self.trouble)
        self._telling.say("error", self.trouble)
        self._report(
            Trouble(phase=self.phase, reason=reason, message=message, attempt=attempt, retry_in_seconds=pause_s)
        )

    def down(self, message: str) -> None:
        """It stays down until somebody acts."""
        self.phase = Phase.DOWN
        self.trouble = message
        log.error("%s stays down: %s", self._agent, message)
        self._report(Trouble(phase=self.phase, reason=Reason.STATE_UNREADABLE, message=message))

    def close(self) -> None:
        """It has left."""
        if self._woken is not None:
            self._woken.cancel()

    def _report_woken(self) -> None:
        """Most go to sleep again, or have served what woke them: that must not wait for a commit of the registry."""
        self.told = None
        if self.phase is Phase.READY:
            self._reports.ready(self._uid, self._epoch)

    def _report(self, trouble: Trouble) -> None:
        self.told = None
        self._reports.trouble(self._uid, self._epoch, trouble)
