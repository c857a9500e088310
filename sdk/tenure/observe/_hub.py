"""The hub: who wants to know what, and what the engine calls. Costs one test of an attribute while nobody listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import Token
from typing import Any, TypeVar

from tenure.observe import _trace
from tenure.observe._debug import DebugBuffer, DebugBuffers
from tenure.observe._events import (
    NOTHING,
    CronFired,
    Event,
    Failed,
    Outcome,
    QueueOverflow,
    SignalRouted,
    Slow,
    Started,
    Stopped,
    Who,
)
from tenure.observe._listeners import Handler, Listeners, Tracers, Tracing
from tenure.observe._redact import Redactor
from tenure.observe._span import Kind, Span, Tracer, current_span, place_of, spanning, who_of
from tenure.observe._trace import Position
from tenure.signals import Signal, Subscription

E = TypeVar("E", bound=Event)

SLOW_S: Mapping[str, float] = {"tenure.turn": 0.010, "tenure.query": 0.010, "tenure.directive": 0.005}
"""Seconds after which a span is reported as slow, where the hub is given no others."""
_OUTCOMES: Mapping[str, Outcome] = {"CancelledError": "cancelled", "DeadlineExceeded": "deadline"}


class _Begun:
    """What `end` has to undo."""

    __slots__ = ("scopes", "token")

    def __init__(
        self, scopes: tuple[tuple[Tracing, AbstractContextManager[object]], ...], token: Token[Span | None]
    ) -> None:
        self.scopes = scopes
        self.token = token


class Hub:
    """Events and spans of one runtime.

    `on` is False while nobody listens: the engine tests it, and calls nothing else then. Handlers run at once, in the
    thread of whatever they hear of; one that raises hurts nobody, and five failures in a row detach it with a warning.

    `slow`: seconds by name of a span, beside those of SLOW_S; None: never. `strict`: faults of handlers and tracers are
    raised as ObserverFault. `clock_ns` measures durations, `now` is seconds since the epoch, `bits(n)` n random bits.
    """

    def __init__(
        self,
        *,
        redactor: Redactor | None = None,
        slow: Mapping[str, float | None] | None = None,
        strict: bool = False,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        now: Callable[[], float] = time.time,
        bits: _trace.Bits = _trace.random_bits,
    ) -> None:
        self.on = False
        self.redactor = redactor or Redactor()
        self._clock_ns = clock_ns
        self._now = now
        self._bits = bits
        self._listeners = Listeners({**SLOW_S, **(slow or {})}, strict, self._changed)
        self._tracers = Tracers(strict, self._changed)
        self._debug = DebugBuffers(lambda handler: self._listeners.add(handler, "**"))

    def subscribe(self, handler: Handler, names: str = "**") -> Subscription:
        """Call `handler` with each event whose name matches, until the subscription is closed.

        Names are patterns as of signals: `tenure.turn.*`, `**.exception`. Raises DefinitionError.
        """
        return self._listeners.add(handler, names)

    def add_tracer(self, tracer: Tracer) -> Subscription:
        """Let a tracer go around each span that begins from now on, until the subscription is closed."""
        return self._tracers.add(tracer)

    def debug(self, agent_id: str, limit: int = 500) -> DebugBuffer:
        """Keep the last `limit` events of an agent, from now on, until `close` of what is returned.

        Asked again for the same agent, it is the same buffer. Raises UsageError for the 101st agent.
        """
        return self._debug.open(agent_id, limit)

    def begin(
        self,
        name: str,
        who: Who | None = None,
        method: str = "",
        *,
        turn: int = 0,
        cause: Signal | Position | Span | None = None,
        kind: Kind | None = None,
        parameters: Mapping[str, object] = NOTHING,
        attributes: Mapping[str, object] = NOTHING,
    ) -> Span:
        """Begin a span and make it the current one of this task. Call `end` with what it returns, whatever happens.

        `who` None: the agent of the span around. `cause`: the signal that started it, or a place in a trace that came
        with a call; without one the span around is the parent, and without that a new trace begins.
        """
        around = current_span()
        span = Span(name, who_of(around) if who is None else who, method, turn, self._now(), self._clock_ns())
        span.parameters = parameters
        span.attributes = attributes
        if cause is not None:
            span.parent = place_of(cause)
            span.parent_is_given = span.parent is not None
        if span.parent is None and around is not None:
            span.parent = around.position
        if isinstance(cause, Signal):
            span.kind = "consumer"
            span.attributes = {"tenure.signal.type": cause.type, "tenure.signal.id": cause.id, **attributes}
        span.kind = kind or span.kind
        scopes = self._tracers.enter(span)
        if span.position is None:
            span.position = _trace.root(self._bits) if span.parent is None else span.parent.child(self._bits)
        span.of_hub = _Begun(scopes, spanning.set(span))
        if listeners := self._listeners.plan(name).started:
            shown = self.redactor.mapping(parameters) if parameters else NOTHING
            self._listeners.tell(listeners, self._event(Started, f"{name}.start", span, at=span.at, parameters=shown))
        return span

    def end(
        self,
        span: Span,
        *,
        outcome: Outcome | None = None,
        error: BaseException | None = None,
        fault: str = "",
        message: str = "",
    ) -> None:
        """End a span: well, or with an error, or with the code and the message of a fault. A second time: ignored.

        `outcome` None: "ok", "error", or what a CancelledError or a DeadlineExceeded says.
        """
        taken = self._clock_ns() - span.started_ns
        begun = _leave(span)
        if begun is None:
            return
        if error is not None:
            span.error_type, span.message = self.redactor.error(error)
        elif fault:
            span.error_type, span.message = fault, self.redactor.message(message)
        span.outcome = outcome or (_OUTCOMES.get(span.error_type, "error") if span.error_type else "ok")
        try:
            self._tell_end(span, taken)
        finally:
            self._tracers.leave(span, begun.scopes)

    def forget(self, span: Span) -> None:
        """It did not happen after all: no event tells of its end. Tracers see it cancelled."""
        begun = _leave(span)
        if begun is not None:
            span.outcome = "cancelled"
            self._tracers.leave(span, begun.scopes)

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, object] = NOTHING) -> Generator[Span | None]:
        """A span of one's own around a block, within the one around: `with hub.span("shop.charge"): ...`. None: off."""
        if not self.on:
            yield None
            return
        span = self.begin(name, attributes=attributes)
        try:
            yield span
        except BaseException as error:
            self.end(span, error=error)
            raise
        self.end(span)

    def incoming(self, signal: Signal, who: Who | None = None) -> Signal:
        """A signal as it enters the runtime: without a trace, it begins one (`tenure.ingress`); else as it came."""
        return signal if Position.of(signal) is not None else self._carried("tenure.ingress", signal, who, None)

    def outgoing(self, signal: Signal, who: Who | None = None, by: Span | Position | None = None) -> Signal:
        """A signal as an agent emits it: child of the span `by`, else of the current one (`tenure.emit`).

        One that has a trace already keeps it.
        """
        return signal if Position.of(signal) is not None else self._carried("tenure.emit", signal, who, by)

    def routed(self, who: Who, signal: Signal, targets: int) -> None:
        """A signal was matched with so many actions of the agent."""
        at = Position.of(signal)
        place = {"trace_id": at.trace_id, "parent_id": at.span_id} if at else {}
        more = {"signal_type": signal.type, "signal_id": signal.id, "targets": targets}
        self._point(SignalRouted, "tenure.signal.routed", who, **place, **more)

    def overflowed(self, who: Who, queue: str, limit: int) -> None:
        """Something was refused: this queue of the agent holds `limit` already."""
        self._point(QueueOverflow, "tenure.queue.overflow", who, queue=queue, limit=limit)

    def cron_fired(self, who: Who, job: str, late_s: float = 0.0, missed: int = 0) -> None:
        """A schedule of the agent came due, this late; so many earlier times passed unseen."""
        self._point(CronFired, "tenure.cron.fired", who, job=job, late_s=late_s, missed=missed)

    def _carried(self, name: str, signal: Signal, who: Who | None, by: Span | Position | None) -> Signal:
        attributes = {"tenure.signal.type": signal.type, "tenure.signal.id": signal.id}
        span = self.begin(name, who, cause=by, kind="producer", attributes=attributes)
        try:
            return signal if span.position is None else span.position.on(signal)
        finally:
            self.end(span)

    def _tell_end(self, span: Span, taken: int) -> None:
        plan = self._listeners.plan(span.name)
        if span.error_type:
            if plan.failed:
                ended: dict[str, Any] = {
                    "outcome": span.outcome,
                    "error_type": span.error_type,
                    "message": span.message,
                }
                failed = self._event(Failed, f"{span.name}.exception", span, duration_ns=taken, **ended)
                self._listeners.tell(plan.failed, failed)
        elif plan.stopped:
            stopped = self._event(Stopped, f"{span.name}.stop", span, duration_ns=taken, outcome=span.outcome)
            self._listeners.tell(plan.stopped, stopped)
        if plan.slow and taken >= plan.slow_ns:
            slow = self._event(Slow, f"{span.name}.slow", span, duration_ns=taken, threshold_ns=plan.slow_ns)
            self._listeners.tell(plan.slow, slow)

    def _event(self, kind: type[E], name: str, span: Span, *, at: float = 0.0, **more: Any) -> E:
        position = span.position
        who = span.who
        return kind(
            name=name,
            at=at or self._now(),
            agent_id=who.agent_id,
            agent_class=who.agent_class,
            epoch=who.epoch,
            method=span.method,
            turn=span.turn,
            trace_id=position.trace_id if position is not None else "",
            span_id=position.span_id if position is not None else "",
            parent_id=span.parent.span_id if span.parent is not None else "",
            attributes=self.redactor.mapping(span.attributes) if span.attributes else NOTHING,
            **more,
        )

    def _point(self, kind: type[E], name: str, who: Who, **more: Any) -> None:
        if listeners := self._listeners.of(name):
            of: dict[str, Any] = {"agent_id": who.agent_id, "agent_class": who.agent_class, "epoch": who.epoch}
            self._listeners.tell(listeners, kind(name=name, at=self._now(), **of, **more))

    def _changed(self) -> None:
        self.on = bool(len(self._listeners) or len(self._tracers))


def _leave(span: Span) -> _Begun | None:
    """The span around is the current one again. None: it has ended before."""
    begun, span.of_hub = span.of_hub, None
    if not isinstance(begun, _Begun):
        return None
    try:  # noqa: SIM105 - contextlib.suppress would take a tenth of the time of a span
        spanning.reset(begun.token)
    except ValueError:  # another task ends it than the one that began it
        pass
    return begun


default = Hub()
"""A hub for programs that need one only. Runtimes use the one that they are given."""
