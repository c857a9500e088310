"""Model L, poison (protocol 3, dead letters; additions 15): one signal kills what runs it, another one is innocent.

Their agents share a worker. After its end both are suspects, and each is run alone in a worker of its own; only an end
there counts. The count is written down before the signal is run again, since it may take the whole host with it; and so
a host tries one suspect at a time. An innocent signal whose host dies of something else in `limit` of its trials is
blamed all the same: nobody can tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from models.explore import Model, Step, put


class Signal(NamedTuple):
    """One signal."""

    state: str = "waits"  # waits, runs, alone (running in a worker of its own), done, dead
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

    power, limit, crashes = "worker", 2, 1
    live = True
    FAST = ({}, {"power": "host"})
    SMALL = ({"limit": 3, "crashes": 2}, {"limit": 3, "crashes": 2, "power": "host"})
    BIG = {"limit": 9, "crashes": 8, "power": "host"}
    GUARDS = {"alone": {}, "count_first": {"power": "host"}, "count": {}, "one_trial": {"power": "host"}}

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
                if self.on("one_trial") and any(other.state == "alone" for other in s.signals):
                    continue
                yield f"{name} is run alone, attempt written", swap(self.attempt(signal)._replace(state="alone"))
            elif signal.state == "waits":
                yield f"{name} is run", swap(signal._replace(state="runs"))
            elif signal.state in ("runs", "alone") and i != POISON:
                yield f"{name} is applied", swap(signal._replace(state="done"))
            elif signal.state in ("runs", "alone"):
                yield f"the poison kills its {self.power}", self.killed(s, alone=signal.state == "alone")

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
        hit = tuple(
            self.suspected(signal) if signal.state == ("alone" if alone and i == POISON else "runs") else signal
            for i, signal in enumerate(s.signals)
        )
        return s._replace(signals=hit)

    def suspected(self, signal: Signal) -> Signal:
        """It was running in the worker that ended. Without [alone] that counts against it."""
        new = signal._replace(state="waits", suspect=True)
        return new if self.on("alone") else self.attempt(new)

    def fresh(self, s: World) -> World:
        """Another host goes on; it knows the records only, so each first signal is a suspect."""
        alive = ("runs", "alone")
        signals = tuple(
            v._replace(state="waits" if v.state in alive else v.state, suspect=True, counted=0) for v in s.signals
        )
        return s._replace(signals=signals)
