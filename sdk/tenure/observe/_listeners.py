"""Those who hear of events and those who go around spans, each kept from hurting what they watch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from tenure.errors import TenureError
from tenure.observe._events import Event
from tenure.observe._span import Span, Tracer
from tenure.signals import Route, Router, Subscription

Handler = Callable[[Event], None]

FAILURES = 5
"""In a row, after which a handler or a tracer is asked no more."""
_KNOWN = 1_000
"""Names whose listeners are remembered; then they are looked up anew."""
_logger = logging.getLogger("tenure.observe")


class ObserverFault(TenureError):
    """A handler or a tracer failed. Raised by hubs that are strict, for tests of them."""


class Listener:
    """A handler with its failures in a row. Equals nothing but itself."""

    __slots__ = ("detach", "failures", "handler", "names")

    def __init__(self, handler: Handler, names: str) -> None:
        self.handler = handler
        self.names = names
        self.failures = 0


class Plan:
    """Who hears of one kind of span, and from when on it is slow."""

    __slots__ = ("failed", "slow", "slow_ns", "started", "stopped")

    def __init__(self, name: str, listeners: Router[Listener], slow_s: float | None) -> None:
        self.started = _targets(listeners, f"{name}.start")
        self.stopped = _targets(listeners, f"{name}.stop")
        self.failed = _targets(listeners, f"{name}.exception")
        self.slow = _targets(listeners, f"{name}.slow") if slow_s is not None else ()
        self.slow_ns = int((slow_s or 0.0) * 1e9)


class Listeners:
    """The handlers of a hub. `changed` is called when there are more or fewer."""

    def __init__(self, slow: Mapping[str, float | None], strict: bool, changed: Callable[[], None]) -> None:
        self._router: Router[Listener] = Router()
        self._slow = slow
        self._strict = strict
        self._changed = changed
        self._plans: dict[str, Plan] = {}

    def __len__(self) -> int:
        return len(self._router)

    def add(self, handler: Handler, names: str) -> Subscription:
        """Raises DefinitionError for a bad pattern."""
        listener = Listener(handler, names)
        self._router.add(Route(names, listener))
        self._plans.clear()
        self._changed()
        return Subscription(lambda: self._remove(listener))

    def plan(self, name: str) -> Plan:
        """Who hears of the spans of a name."""
        plan = self._plans.get(name)
        if plan is None:
            if len(self._plans) >= _KNOWN:
                self._plans.clear()
            plan = self._plans[name] = Plan(name, self._router, self._slow.get(name))
        return plan

    def of(self, name: str) -> tuple[Listener, ...]:
        """Who hears of the events of a name."""
        return _targets(self._router, name)

    def tell(self, listeners: tuple[Listener, ...], event: Event) -> None:
        """Raises ObserverFault if strict."""
        for listener in listeners:
            try:
                listener.handler(event)
                listener.failures = 0
            except Exception as error:
                listener.failures += 1
                if self._strict:
                    raise ObserverFault(f"a handler of {listener.names} failed on {event.name}: {error}") from error
                if listener.failures == FAILURES:
                    self._remove(listener)
                    _logger.warning(
                        "a handler of %s failed %d times in a row and is detached",
                        listener.names,
                        FAILURES,
                        exc_info=error,
                    )

    def _remove(self, listener: Listener) -> None:
        self._router.remove(listener.names, listener)
        self._plans.clear()
        self._changed()


class Tracing:
    """A tracer with its failures in a row."""

    __slots__ = ("failures", "tracer")

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self.failures = 0


class Tracers:
    """The tracers of a hub, the first outermost. `changed` is called when there are more or fewer."""

    def __init__(self, strict: bool, changed: Callable[[], None]) -> None:
        self._all: tuple[Tracing, ...] = ()
        self._strict = strict
        self._changed = changed

    def __len__(self) -> int:
        return len(self._all)

    def add(self, tracer: Tracer) -> Subscription:
        tracing = Tracing(tracer)
        self._all = (*self._all, tracing)
        self._changed()
        return Subscription(lambda: self._remove(tracing))

    def enter(self, span: Span) -> tuple[tuple[Tracing, AbstractContextManager[object]], ...]:
        """Begin their scopes; those that began. Raises ObserverFault if strict."""
        begun: list[tuple[Tracing, AbstractContextManager[object]]] = []
        for tracing in self._all:
            try:
                scope = tracing.tracer.scope(span)
                scope.__enter__()
            except Exception as error:  # noqa: BLE001 - whatever a tracer raises
                self._failed(tracing, span, error)
            else:
                begun.append((tracing, scope))
        return tuple(begun)

    def leave(self, span: Span, begun: tuple[tuple[Tracing, AbstractContextManager[object]], ...]) -> None:
        """End the scopes, the innermost first. Raises ObserverFault if strict."""
        for tracing, scope in reversed(begun):
            try:
                scope.__exit__(None, None, None)
                tracing.failures = 0
            except Exception as error:  # noqa: BLE001 - whatever a tracer raises
                self._failed(tracing, span, error)

    def _failed(self, tracing: Tracing, span: Span, error: Exception) -> None:
        tracing.failures += 1
        if self._strict:
            raise ObserverFault(f"the tracer {tracing.tracer!r} failed around {span.name}: {error}") from error
        if tracing.failures == FAILURES:
            self._remove(tracing)
            _logger.warning("a tracer failed %d times in a row and is detached", FAILURES, exc_info=error)

    def _remove(self, tracing: Tracing) -> None:
        self._all = tuple(one for one in self._all if one is not tracing)
        self._changed()


def _targets(router: Router[Listener], name: str) -> tuple[Listener, ...]:
    return tuple(route.target for route in router.candidates(name))
