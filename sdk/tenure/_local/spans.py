"""Queries and turns that somebody watches, as spans of a hub."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from tenure._local import work
from tenure._local.held import Held
from tenure._local.work import Asked
from tenure._turn import Done
from tenure.observe import Hub, Span
from tenure.signals import Signal


async def query(hub: Hub, held: Held, wanted: Asked | Signal, body: Coroutine[Any, Any, Done]) -> Done:
    """A query, to its reply."""
    return await _spanned(hub, "tenure.query", held, wanted, body)


async def turn(hub: Hub, held: Held, wanted: Asked | Signal, number: int, body: Coroutine[Any, Any, Done]) -> Done:
    """A turn, to its commit and what follows it."""
    if isinstance(wanted, Signal):
        hub.routed(held.who, wanted, held.activation.leads(wanted))
    return await _spanned(hub, "tenure.turn", held, wanted, body, number)


def ended(hub: Hub, span: Span, done: Done) -> None:
    """The span of a turn ends as the turn did."""
    if done.fault is None:
        hub.end(span)
    else:
        hub.end(span, fault=done.fault.code, message=done.fault.message)


async def _spanned(
    hub: Hub, name: str, held: Held, wanted: Asked | Signal, body: Coroutine[Any, Any, Done], number: int = 0
) -> Done:
    cause = wanted if isinstance(wanted, Signal) else None
    span = hub.begin(name, held.who, work.label_of(wanted), turn=number, cause=cause)
    try:
        done = await body
    except BaseException as error:
        hub.end(span, error=error)
        raise
    ended(hub, span, done)
    return done
