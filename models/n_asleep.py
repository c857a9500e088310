"""Model N, moved asleep (protocol 2, bulk take-over): what the registry says of an agent is late, its record is not.

Holders report that an agent sleeps, or is awake again, in the background, and never wait for it. So the row may say
that an agent sleeps which has been woken, and has committed a signal or the acceptance of a turn that nobody but itself
goes on with. Its holder is lost; the next one leaves it asleep, as the row says, and reads from the record's clear
field when it must be awake.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from models.explore import Model, Step


class World(NamedTuple):
    """A state of the whole."""

    epoch: int = 1
    memory: str = "awake"  # of the holder: awake, asleep, none (lost, nobody has taken over yet)
    owes: bool = False  # in the record: something of it is under way
    says: bool = False  # in the record's clear field: it must be awake at once
    report: str = ""  # on its way to the registry; only the last one counts
    row: str = "awake"  # what the registry says
    sent: int = 0


class Asleep(Model[World]):
    """See the module."""

    epochs, turns = 2, 1
    live = True
    FAST = ({}, {"turns": 2})
    SMALL = ({"epochs": 3, "turns": 2}, {"epochs": 4, "turns": 3})
    BIG = {"epochs": 9, "turns": 9}
    GUARDS = {"wake_owing": {}, "sleep_owing": {}}

    def init(self) -> World:
        """In memory at its first holder."""
        return World()

    def check(self, s: World) -> str | None:
        """Nobody but the agent itself goes on with what it owes."""
        return "an agent sleeps, and what it owes is under way for ever" if s.memory == "asleep" and s.owes else None

    def goal(self, s: World) -> bool:
        """All was sent, and nothing is owed."""
        return s.sent == self.turns and not s.owes

    def steps(self, s: World) -> Iterator[Step[World]]:
        """Turns, sleep, reports, and the loss of the holder."""
        if s.memory == "awake" and s.owes:
            yield "what it owed is settled", s._replace(owes=False, says=False)
        elif s.memory == "awake" and s.sent < self.turns:
            new = s._replace(owes=True, says=self.on("wake_owing"), sent=s.sent + 1)
            yield "a turn commits what it owes", new
        if s.memory == "awake" and not (s.owes and self.on("sleep_owing")):
            yield "it falls asleep", s._replace(memory="asleep", report="asleep")
        if s.memory == "asleep":
            yield "a call wakes it", s._replace(memory="awake", report="awake")
        if s.report:
            yield f"the registry hears that it is {s.report}", s._replace(row=s.report, report="")
        if s.memory != "none" and s.epoch < self.epochs:
            yield "!its holder is lost", s._replace(memory="none", report="", epoch=s.epoch + 1)
        if s.memory == "none":
            now = "asleep" if s.row == "asleep" and not s.says else "awake"
            yield f"epoch {s.epoch} takes it over {now}", s._replace(memory=now, report=now)
