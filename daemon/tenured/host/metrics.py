"""Counters and histograms of a host in the Prometheus text format. By hand: the client library costs 80 ms of every
restart.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds in seconds."""


class Histogram:
    """Durations in seconds."""

    def __init__(self, name: str, text: str) -> None:
        self._name, self._text = name, text
        self._counts = [0] * (len(_BUCKETS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Counts one."""
        self._counts[bisect_left(_BUCKETS, seconds)] += 1
        self._sum += seconds

    def lines(self) -> Iterable[str]:
        """The exposition."""
        yield f"# HELP {self._name} {self._text}"
        yield f"# TYPE {self._name} histogram"
        total = 0
        for bound, count in zip((*map(str, _BUCKETS), "+Inf"), self._counts, strict=True):
            total += count
            yield f'{self._name}_bucket{{le="{bound}"}} {total}'
        yield f"{self._name}_sum {self._sum:.6f}"
        yield f"{self._name}_count {total}"


class Counter:
    """Counts by one label."""

    def __init__(self, name: str, label: str, text: str) -> None:
        self._name, self._label, self._text = name, label, text
        self._values: dict[str, int] = {}
        self.total = 0

    def add(self, value: str, number: int = 1) -> None:
        """Counts so many under this label value, which comes from a fixed catalogue."""
        self._values[value] = self._values.get(value, 0) + number
        self.total += number

    def lines(self) -> Iterable[str]:
        """The exposition."""
        yield f"# HELP {self._name} {self._text}"
        yield f"# TYPE {self._name} counter"
        for value, count in sorted(self._values.items()):
            yield f'{self._name}{{{self._label}="{value}"}} {count}'


def gauge(name: str, text: str, values: dict[str, float], label: str = "") -> Iterable[str]:
    """The exposition of a value that is computed when it is asked for."""
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} gauge"
    for value, number in values.items():
        yield f'{name}{{{label}="{value}"}} {number:.6g}' if label else f"{name} {number:.6g}"


def count(name: str, text: str, number: int) -> Iterable[str]:
    """The exposition of one count."""
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} counter"
    yield f"{name} {number}"


class SignalMetrics:
    """What a host counts of signals between agents. Plain integers: a signal takes some microseconds in all."""

    def __init__(self) -> None:
        self.sent_to_hosts = 0
        self.sent_here = 0
        self.received = 0
        self.resent = 0
        self.unsettled = 0
        self.credits: dict[str, float] = {}
        """Host -> signals that it would take now."""
        self.settled = Counter("tenure_host_signals_settled_total", "verdict", "Signals of agents here, by verdict.")
        self.refused = Counter(
            "tenure_host_signals_refused_total", "code", "Pairs of agents here that had to wait, by the refusal's code."
        )

    def lines(self) -> Iterable[str]:
        """The exposition."""
        yield "# HELP tenure_host_signals_sent_total Signals that left an outbox, each time they were sent."
        yield "# TYPE tenure_host_signals_sent_total counter"
        yield f'tenure_host_signals_sent_total{{to="here"}} {self.sent_here}'
        yield f'tenure_host_signals_sent_total{{to="hosts"}} {self.sent_to_hosts}'
        yield from count("tenure_host_signals_resent_total", "Signals that were sent again.", self.resent)
        yield from count("tenure_host_signals_received_total", "Signals that came from other hosts.", self.received)
        yield from self.settled.lines()
        yield from self.refused.lines()
        text = "Signals of agents here that nobody has settled."
        yield from gauge("tenure_host_signals_unsettled", text, {"": float(self.unsettled)})
        text = "Signals that a host would take from here now."
        yield from gauge("tenure_host_signal_credits", text, self.credits, "host")


class Metrics:
    """What a host counts."""

    def __init__(self) -> None:
        self.calls = Counter("tenure_host_calls_total", "result", "Calls answered, by error code or ok.")
        self.turn_seconds = Histogram("tenure_host_turn_seconds", "A turn in the worker, from frame to frame.")
        self.commit_seconds = Histogram("tenure_host_commit_seconds", "A write of the store, until a majority has it.")
        self.signals = SignalMetrics()
        self.loop_lag_s = 0.0
        """The longest that the event loop stood still lately."""

    def lines(self) -> Iterable[str]:
        """The exposition of what is counted here."""
        yield from self.calls.lines()
        yield from self.turn_seconds.lines()
        yield from self.commit_seconds.lines()
        yield from self.signals.lines()
        yield from gauge(
            "tenure_host_loop_lag_seconds", "Longest stand-still of the event loop lately.", {"": self.loop_lag_s}
        )
