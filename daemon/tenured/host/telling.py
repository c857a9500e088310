"""What one activation says of itself in its agent's log."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

import tenure_link
from tenured.host.site import Site


class Telling:
    """One agent at one epoch, and its log."""

    def __init__(self, site: Site, uid: str, agent: str, epoch: int) -> None:
        self.uid = uid
        self.agent = agent
        self.epoch = epoch
        self._site = site

    def say(self, level: str, text: str) -> None:
        """A line."""
        self._site.logs.add(self.uid, self.agent, self.epoch, level, text)

    def failed(self, fault: tenure_link.Fault) -> None:
        """A failure in user code: its sentence, and its traceback."""
        self.say("error", fault.message)
        if fault.details:
            self.say("error", fault.details)

    def emitted(self, signals: Iterable[tenure_link.Signal]) -> None:
        """What left with a commit."""
        for signal in signals:
            self.say("signal", f"signal {signal.type} {_readable(signal.data)}")

    def name(self) -> str:
        """A name for something of this activation that no other one has."""
        return f"{self.epoch}-{next(self._site.turns)}"


def _readable(data: bytes) -> str:
    """The signal's data as JSON, for people."""
    try:
        return msgspec.json.encode(msgspec.msgpack.decode(data)).decode()
    except (msgspec.DecodeError, TypeError, ValueError):
        return f"({len(data)} bytes)"
