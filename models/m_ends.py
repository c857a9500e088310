"""Model M, agents that end themselves (protocol 3, ends): one agent, a turn that ends it, two signals that come, one
that it has accepted before, one that the turn sends; hosts that die; an operator that applies the agent's object again.

The mark of the end is in the commit of the turn that asked for it. What the record owes is done first, then the row
goes; whoever holds the record meanwhile sees the mark.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from models.explore import Model, Step, put


class World(NamedTuple):
    """A state of the whole."""

    heard: tuple[str, ...] = ("", "")  # what the senders of two signals were told: applied, not applied
    ran: tuple[bool, ...] = (False, False)  # in the record: their marks
    asked: bool = True  # the ending turn has not run for good
    draft: bool = False  # in the holder's memory: it has run, and is not committed
    late: bool = False  # in the holder's memory: the mark is still to be written
    mark: bool = False  # in the record
    told: bool = False  # the reply of the ending turn has left
    box: bool = False  # in the record: what it sends
    sent: str = ""  # what became of that: taken, lost
    inbox: str = "waits"  # what was accepted before: waits, run, lost
    row: str = "held"  # held, ended, gone
    born_again: bool = False
    after: bool = False  # a turn ran although the end was told
    crashes: int = 0


class Ends(Model[World]):
    """See the module. `object`: the row belongs to a Kubernetes object, which stays."""

    object, crashes = False, 1
    live = True
    FAST = ({}, {"object": True})
    SMALL = ({"crashes": 3}, {"object": True, "crashes": 3})
    BIG = {"object": True, "crashes": 6}
    GUARDS = {
        "end_in_commit": {},
        "end_committed": {},
        "end_kept": {},
        "box_first": {},
        "accepted_first": {},
        "row_stays": {"object": True},
    }

    def init(self) -> World:
        """It runs, and has accepted a signal."""
        return World()

    def check(self, s: World) -> str | None:
        """Told means ended, refused means not applied, owed means done."""
        if any(ran and heard == "not applied" for ran, heard in zip(s.ran, s.heard, strict=True)):
            return 'a signal was called "not applied", and is applied'
        if s.after:
            return "its end was told, and it runs on"
        if s.sent == "lost":
            return "what the last turn sent is lost"
        if s.inbox == "lost":
            return "what was accepted is lost"
        return "an agent that has ended was made again" if s.born_again else None

    def goal(self, s: World) -> bool:
        """It is over, and everybody knows."""
        return s.row != "held" and all(s.heard) and s.sent == "taken" and s.inbox == "run"

    def steps(self, s: World) -> Iterator[Step[World]]:
        """Turns, refusals, deliveries, the end of the row, crashes."""
        if s.row != "held":
            yield from self.without_row(s)
            return
        ended = s.mark and self.on("end_kept")
        yield from self.signals(s, ended)
        if s.asked and not s.draft and not ended:
            yield "the ending turn runs", s._replace(draft=True)
        if s.draft:
            whole = self.on("end_in_commit")
            done = s._replace(draft=False, asked=False, box=True, mark=whole, late=not whole)
            yield "its commit", done
        if s.late:
            yield "the mark is written by itself", s._replace(late=False, mark=True)
        if not s.asked and not s.told:
            yield "its reply leaves", s._replace(told=True)
        if s.box:
            yield "what it sent is taken", s._replace(box=False, sent="taken")
        if s.inbox == "waits":
            yield "what was accepted is run", s._replace(inbox="run")
        if s.mark and not (s.box and self.on("box_first")) and not (s.inbox == "waits" and self.on("accepted_first")):
            stays = self.object and self.on("row_stays")
            lost = s._replace(
                row="ended" if stays else "gone",
                sent="lost" if s.box else s.sent,
                inbox="lost" if s.inbox == "waits" else s.inbox,
            )
            yield "its holder reports the end", lost
        if s.crashes < self.crashes:
            fresh = s._replace(draft=False, late=False, crashes=s.crashes + 1)
            yield "!the host dies, another one holds it", fresh

    def signals(self, s: World, ended: bool) -> Iterator[Step[World]]:
        """One that comes is applied, or refused for good. Turns wait for the ending one: they would run behind it."""
        refuses = ended if self.on("end_committed") else ended or s.draft
        for i, heard in enumerate(s.heard):
            if heard:
                continue
            if s.ran[i]:
                yield f"signal {i} is acknowledged", s._replace(heard=put(s.heard, i, "applied"))
            elif refuses:
                yield f'signal {i} is "not applied"', s._replace(heard=put(s.heard, i, "not applied"))
            elif not s.draft:
                yield f"signal {i} is applied", s._replace(ran=put(s.ran, i, True), after=s.told)
        if not self.on("end_committed"):  # a copy that was on its way
            for i, heard in enumerate(s.heard):
                if heard == "not applied" and not s.ran[i] and not ended and not s.draft:
                    yield f"a copy of signal {i} is applied", s._replace(ran=put(s.ran, i, True))

    def without_row(self, s: World) -> Iterator[Step[World]]:
        """Who still waits is told that nobody knows; an operator applies what has no row."""
        for i, heard in enumerate(s.heard):
            if not heard:
                yield f"signal {i} is unknown", s._replace(heard=put(s.heard, i, "unknown"))
        if self.object and s.row == "gone" and not s.born_again:
            yield "the operator applies its object", s._replace(row="held", born_again=True)
