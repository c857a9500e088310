"""From signals to actions: `@tenure.on("order.*")`."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tenure import _codec
from tenure._methods import Method, methods_of
from tenure.errors import DefinitionError, InvalidArguments, UnknownSignal

if TYPE_CHECKING:
    from tenure._agent import Agent
    from tenure.signals import Route, Router, Signal

M = TypeVar("M", bound=Method[..., Any])

STRATEGY_PRIORITY = 50
SKILL_PRIORITY = -10


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `@on` says about an action."""

    pattern: str
    priority: int = 0
    match: Callable[[Signal], bool] | None = None


def on(pattern: str, *, priority: int = 0, match: Callable[[Signal], bool] | None = None) -> Callable[[M], M]:
    """Let signals whose type matches lead to an action: above `@tenure.action`, several times if wanted.

    A parameter annotated `Signal` gets the envelope, one annotated with a `SignalData` the checked data; otherwise the
    data is a map of parameters. All actions that match run, in one turn, higher priority first. Raises DefinitionError.
    """

    def route(method: M) -> M:
        if not isinstance(cast(object, method), Method) or method.kind != "action":
            name = getattr(method, "__name__", repr(method))
            raise DefinitionError(f"@tenure.on goes above @tenure.action, and {name} is no action")
        from tenure.signals import Route  # noqa: PLC0415 - agents without routes need no signals

        Route(pattern, method.name, priority)  # says what cannot be
        method.wanted = (*method.wanted, Wanted(pattern, priority, match))
        return method

    return route


def router_of(cls: type[Agent[Any]]) -> Router[Method[..., Any]]:
    """Routes of a class: those of its strategy, then its own. Remembered. Raises DefinitionError for doubled ones."""
    known: Router[Method[..., Any]] | None = cls.__dict__.get("__tenure_router__")
    if known is None:
        known = _build(cls)
        cls.__tenure_router__ = known
    return known


def _build(cls: type[Agent[Any]]) -> Router[Method[..., Any]]:
    from tenure.signals import Router  # noqa: PLC0415 - as above

    return Router(routes_of(cls))


def routes_of(cls: type[Agent[Any]]) -> list[Route[Method[..., Any]]]:
    """Routes of a class without its skills. Raises DefinitionError."""
    from tenure.signals import Route  # noqa: PLC0415 - as above

    methods = methods_of(cls)
    routes: list[Route[Method[..., Any]]] = []
    for pattern, name in cls.__tenure_strategy__.routes() if cls.__tenure_strategy__ is not None else ():
        if name not in methods:
            raise DefinitionError(f"{cls.__name__}: its strategy routes {pattern} to {name}, which is no action of it")
        routes.append(Route(pattern, methods[name], STRATEGY_PRIORITY))
    taken: dict[tuple[str, int], str] = {}
    for name, method in methods.items():
        for wanted in method.wanted:
            other = taken.setdefault((wanted.pattern, wanted.priority), name)
            if wanted.match is None and other != name:
                raise DefinitionError(
                    f"{cls.__name__}: {wanted.pattern!r} leads to {other} and to {name} with one priority; give one "
                    "of them another, or a `match`"
                )
            routes.append(Route(wanted.pattern, method, wanted.priority, wanted.match))
    return routes


def targets(
    cls: type[Agent[Any]], signal: Signal, router: Router[Method[..., Any]] | None = None
) -> list[Method[..., Any]]:
    """The actions that a signal leads to, in order, each once. Raises UnknownSignal, listing the patterns.

    `router`: routes in place of those of the class alone.
    """
    router = router or router_of(cls)
    found = list(dict.fromkeys(router.route(signal)))
    if not found:
        patterns = ", ".join(sorted({route.pattern for route in router.routes()})) or "none"
        raise UnknownSignal(f"{cls.__name__} has no route for a signal {signal.type!r}; it has {patterns}")
    return found


def arguments(method: Method[..., Any], signal: Signal) -> Mapping[str, Any]:
    """What an action gets of a signal. Raises InvalidArguments."""
    way, name, kind = _binding(method)
    if way == "envelope":
        return {name: signal}
    if way == "data":
        return {name: kind.of(signal)}
    data: object = _codec.unpack(_codec.pack(signal.data)) if signal.data is not None else {}
    if not isinstance(data, Mapping):
        names = method.signature.names
        if len(names) != 1:
            raise InvalidArguments(
                f"{method.label}: the data of {signal.type!r} is {type(data).__name__}, not a map of parameters"
            )
        data = {names[0]: data}
    given = cast(Mapping[str, object], data)
    return method.signature.values({name: value for name, value in given.items() if name in method.signature.names})


def _binding(method: Method[..., Any]) -> tuple[str, str, Any]:
    from tenure.signals import Signal, SignalData  # noqa: PLC0415 - as above

    for name, hint in typing.get_type_hints(method.function).items():
        if hint is Signal and name != "return":
            return "envelope", name, None
        if isinstance(hint, type) and issubclass(hint, SignalData) and name != "return":
            return "data", name, hint
    return "map", "", None
