"""A hub whose events are kept, and whose time the test sets."""

from typing import Any

from tenure.observe import (
    Event,
    Hub,
    Who,
)

COUNTER = Who("default/c1", "Counter", 3)


class Stopwatch:
    """Durations as a test wants them, in nanoseconds."""

    now = 0

    def __call__(self) -> int:
        return self.now


def observed(names: str = "**", **keywords: Any) -> tuple[Hub, list[Event], Stopwatch]:
    watch = Stopwatch()
    hub, events = Hub(clock_ns=watch, now=lambda: 1_700_000_000.0, **keywords), []
    hub.subscribe(events.append, names)
    return hub, events, watch


def names(events: list[Event]) -> list[str]:
    return [event.name for event in events]
