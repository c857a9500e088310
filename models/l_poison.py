"""Model L, poison (protocol 3, dead letters; additions 15): one signal kills what runs it, another one is innocent.

Their agents share a worker. After its end both are suspects if they had begun there, and each is run alone in a worker
of its own; only an end there counts. What had begun is noted before it begins, where the note outlives the worker;
without notes all that was sent is suspected. The count is written down before the signal is run again, since it may
take the whole host with it; and so one that was counted before is tried with nobody else on its host. First tries run
side by side: an innocent signal may be counted once for the end of the poison, and is blamed if its host dies of
something else in `limit - 1` of its trials, where one trial at a time (`strict`) would take `limit`: nobody can tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from models.explore import Model, Step, put


class Signal(NamedTuple):
    """One signal."""

    state: str = "waits"  # waits, sent (to the worker, not begun), runs, alone (in a worker of its own), done, dead
    noted: bool = False  # in memory that outlives the worker
    suspect: bool = False  # in the host's memory
    attempts: int = 0  # in the record
    counted: int = 0  # in the host's memory


class World(NamedTuple):
    """A state of the whole."""

    signals: tuple[Signal, ...] = (Signal(), Signal())
    crashes: int = 0


POISON = 0


class Poison(Model[World]):
    """See the module. `power`: what the poison kills, its worker or the whole host."""

    power, limit, crashes, notes, strict = "worker", 3, 1, True, False
    live = True
    FAST = ({}, {"power": "host"}, {"notes": False}, {"power": "host", "limit": 2, "strict": True})
    SMALL = ({"limit": 4, "crashes": 2}, {"limit": 4, "crashes": 2, "power": "host"})
    BIG = {"limit": 9, "crashes": 8, "power": "host"}
    GUARDS = {
        "alone": {},
        "note_first": {},
        "count_first": {"power": "host"},
        "count": {},
        "one_trial": {"power": "host"},
    }

    def init(self) -> World:
        """Both wait."""
        return World()

    def check(self, s: World) -> str | None:
        """The innocent one is never blamed."""
        return "an innocent signal ended as a dead letter" if s.signals[1].state == "dead" else None

    def goal(self, s: World) -> bool:
        """The poison has stopped, the other one is applied."""
        return s.signals[POISON].state == "dead" and s.signals[1].state == "done"

    def steps(self, s: World) -> Iterator[Step[World]]:
        """Run, alone or not; end; kill."""
        if s.crashes < self.crashes:
            yield "!the host dies of something else", self.fresh(s)._replace(crashes=s.crashes + 1)
        for i, signal in enumerate(s.signals):

            def swap(new: Signal, i: int = i) -> World:
                return s._replace(signals=put(s.signals, i, new))

            name = "the poison" if i == POISON else "the innocent one"
            attempts = signal.attempts if self.on("count_first") else signal.counted
            if signal.state == "waits" and attempts >= self.limit:
                yield f"{name} becomes a dead letter", swap(signal._replace(state="dead"))
            elif signal.state == "waits" and (signal.suspect or signal.attempts) and self.on("alone"):
                if self.on("one_trial") and any(self.apart(signal, v) for v in s.signals if v.state == "alone"):
                    continue
                yield f"{name} is run alone, attempt written", swap(self.attempt(signal)._replace(state="alone"))
            elif signal.state == "waits":
                yield f"{name} is sent", swap(signal._replace(state="sent"))
            elif signal.state == "sent":
                yield f"{name} begins", swap(signal._replace(state="runs", noted=self.on("note_first")))
            elif signal.state in ("runs", "alone") and i != POISON:
                yield f"{name} is applied", swap(signal._replace(state="done"))
            elif signal.state in ("runs", "alone"):
                yield f"the poison kills its {self.power}", self.killed(s, alone=signal.state == "alone")

    def apart(self, signal: Signal, trial: Signal) -> bool:
        """Whether the signal must wait for the end of that trial."""
        return self.strict or signal.attempts > 0 or trial.attempts > 1

    def attempt(self, signal: Signal) -> Signal:
        """Count the attempt: in the record, before it runs; or in memory."""
        if not self.on("count"):
            return signal
        if self.on("count_first"):
            return signal._replace(attempts=signal.attempts + 1)
        return signal._replace(counted=signal.counted + 1)

    def killed(self, s: World, *, alone: bool) -> World:
        """The end of a worker, or of the host with all that it remembers."""
        if self.power == "host":
            return self.fresh(s)
        if alone:
            return s._replace(signals=put(s.signals, POISON, self.lost(s.signals[POISON]._replace(noted=True))))
        return s._replace(
            signals=tuple(self.lost(signal) if signal.state in ("sent", "runs") else signal for signal in s.signals)
        )

    def lost(self, signal: Signal) -> Signal:
        """Its worker has ended. One that had begun there is a suspect; without [alone] that counts against it."""
        new = signal._replace(state="waits", noted=False)
        if self.notes and not signal.noted:
            return new
        new = new._replace(suspect=True)
        return new if self.on("alone") else self.attempt(new)

    def fresh(self, s: World) -> World:
        """Another host goes on; it knows the records only, so each first signal is a suspect."""
        alive = ("sent", "runs", "alone")
        signals = tuple(
            v._replace(state="waits" if v.state in alive else v.state, noted=False, suspect=True, counted=0)
            for v in s.signals
        )
        return s._replace(signals=signals)
