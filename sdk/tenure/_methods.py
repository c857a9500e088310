"""`@action` and `@query`: functions that are also values.

On the class, `Counter.increment(by=2)` is an `Instruction[int]`. On an instance, `counter.increment(by=2)` is a
coroutine: in the turn that is going on (a draft) or as a call (a reference). Both take the function's own parameters,
without the agent and the context.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, Unpack, cast, overload

from tenure import _deadline
from tenure._context import Context
from tenure._instruction import Instruction, Kind
from tenure._scope import current_scope
from tenure._signature import CheckedSignature, Signature
from tenure.errors import DeadlineExceeded, DefinitionError, UnknownMethod

if TYPE_CHECKING:  # Agent has methods, methods take an agent: only the annotations go round
    from tenure._agent import Agent
    from tenure._options import About, ActionOptions, Checks, Options, QueryOptions
    from tenure.skills import Skill

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
A = TypeVar("A", bound="Agent[Any] | Skill[Any]")


class Method(Generic[P, R_co]):
    """An action or a query: what the decorators return. Called, it makes an `Instruction`."""

    options: Options | None = None
    """How the body is run; None: once, in the call's time."""
    checks: Checks | None = None
    about: About | None = None

    def __init__(
        self,
        function: Callable[..., Any],
        kind: Kind,
        *,
        blocking: bool = False,
        turn_timeout: float | None = None,
        given: Mapping[str, Any] | None = None,
    ) -> None:
        if not inspect.isfunction(function):
            raise DefinitionError(f"@{kind} goes on a function, not on {function!r}")
        if blocking and inspect.iscoroutinefunction(function):
            raise DefinitionError(f"{function.__qualname__} is `async def`: blocking=True is for `def`")
        self.function = function
        self.kind: Kind = kind
        self.blocking = blocking
        if turn_timeout is not None and (kind == "query" or not turn_timeout > 0):
            raise DefinitionError(f"{function.__qualname__}: turn_timeout is of actions, a number of seconds above 0")
        self.turn_timeout = turn_timeout or 0.0
        """Seconds that its turn may take once it has come to a step; 0: a day."""
        if given:
            from tenure import _options  # noqa: PLC0415 - most actions have none

            self.options, self.checks, self.about = _options.split(given, f"@{kind} on {function.__qualname__}")
            if kind == "query" and self.options is not None and self.options.compensate is not None:
                raise DefinitionError(f"{function.__qualname__} is a query: it has no effect to compensate")
        self.immediate = not blocking and self.options is None and not inspect.iscoroutinefunction(function)
        """A plain function: it ends in the step in which it begins, unless it returns a coroutine."""
        self.wanted: tuple[Any, ...] = ()
        """Signals that lead here: what `@tenure.on` adds (`tenure._routes.Wanted`)."""
        self.name: str = function.__name__
        self.label: str = function.__name__
        functools.update_wrapper(self, function)

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self.name = name
        self.label = f"{owner.__name__}.{name}"

    @functools.cached_property
    def signature(self) -> Signature:
        """Parameters and return type. Raises DefinitionError."""
        if self.checks is not None:
            return CheckedSignature(self.function, self.label, self.checks)
        return Signature(self.function, self.label)

    @property
    def description(self) -> str:
        """What people and models are told of it: the option, or the docstring."""
        return (self.about.description if self.about is not None else "") or inspect.getdoc(self.function) or ""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Instruction[R_co]:
        """The call as a value. Raises InvalidArguments for a parameter that is missing or unknown."""
        return Instruction(self, self.signature.bind(args, kwargs))

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Self: ...
    @overload
    def __get__(
        self, instance: Agent[Any] | Skill[Any], owner: type[Any]
    ) -> Callable[P, Coroutine[Any, Any, R_co]]: ...
    def __get__(
        self, instance: Agent[Any] | Skill[Any] | None, owner: type[Any]
    ) -> Self | Callable[P, Coroutine[Any, Any, R_co]]:
        if instance is None:
            return self
        return functools.partial(self._on, instance)

    async def _on(self, agent: Any, /, *args: Any, **kwargs: Any) -> Any:
        arguments = self.signature.bind(args, kwargs)
        cell = agent.__tenure__
        if cell.runtime is not None:
            return await agent.runtime_for(self.name).call(cell.id, self, arguments, None)
        if (context := cell.context()) is not None:
            return await self.run(agent, context, arguments)
        return await agent.call(Instruction(self, arguments))

    async def run(self, agent: Agent[Any], context: Context, arguments: Mapping[str, Any]) -> object:
        """The action on this draft, as its options say. Raises DeadlineExceeded if its time was over before."""
        scope = agent.__tenure__.scope
        if scope is not None and (ends := _deadline.until(scope, scope.deadline_ns)) and ends <= _deadline.boot_ns():
            raise DeadlineExceeded(f"the deadline passed before {self.name} began")
        if self.options is None:
            return await self.body(agent, context, arguments)
        from tenure import _exec  # noqa: PLC0415 - it brings asyncio

        return await _exec.run(self, agent, context, arguments, self.options)

    async def body(self, agent: Agent[Any], context: Context, arguments: Mapping[str, Any]) -> object:
        """The function itself, once."""
        first = (agent, context) if self.signature.takes_context else (agent,)
        if self.blocking:
            import asyncio  # noqa: PLC0415 - a tenth of the time of `import tenure`

            from tenure._exec import is_pure  # noqa: PLC0415 - it brings asyncio

            if is_pure():
                return cast(object, self.function(*first, **arguments))
            return cast(object, await asyncio.to_thread(self.function, *first, **arguments))
        result = self.function(*first, **arguments)
        if not inspect.iscoroutine(result):
            return cast(object, result)
        if self.immediate:  # a plain function after all is said and done: what it returned may ask for its task
            from tenure._eager import into_task  # noqa: PLC0415 - it brings asyncio

            await into_task()
        return cast(object, await result)

    def encode_arguments(self, arguments: Mapping[str, object]) -> bytes:
        """Raises InvalidArguments, naming the parameter."""
        return self.signature.encode(arguments)

    def decode_reply(self, data: bytes) -> R_co:
        """Raises ValueError for a reply that does not fit the annotation."""
        return cast(R_co, self.signature.decode_reply(data))

    def __repr__(self) -> str:
        return f"<{self.kind} {self.label}({self.signature.text})>"


class Decorator(Protocol):
    """What `@action(...)` with options returns."""

    @overload
    def __call__(self, function: Callable[Concatenate[A, Context, P], Coroutine[Any, Any, R]], /) -> Method[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[A, P], Coroutine[Any, Any, R]], /) -> Method[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[A, Context, P], R], /) -> Method[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[A, P], R], /) -> Method[P, R]: ...


@overload
def action(function: Callable[Concatenate[A, Context, P], Coroutine[Any, Any, R]], /) -> Method[P, R]: ...
@overload
def action(function: Callable[Concatenate[A, P], Coroutine[Any, Any, R]], /) -> Method[P, R]: ...
@overload
def action(function: Callable[Concatenate[A, Context, P], R], /) -> Method[P, R]: ...
@overload
def action(function: Callable[Concatenate[A, P], R], /) -> Method[P, R]: ...
@overload
def action(**options: Unpack[ActionOptions]) -> Decorator: ...
def action(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a unit of work on an agent: its changes and its signals are committed as one, or not at all.

    It is a method, or a module function that takes the agent first and is attached with `class X(Agent[...],
    actions=[f])`. The next parameter is the context if it is annotated `Context`. `def` runs on the event loop; with
    `blocking=True` in a thread.

    Options (docs/sdk/actions.md), times in seconds: `turn_timeout` of a turn with steps (a day; docs/sdk/steps.md);
    `timeout` of one attempt; `max_retries` (0), `backoff` (0.25, it
    doubles), `backoff_max` (30), `retry_on` (Exception); `compensate` and `compensate_timeout` (5); `output`, a type
    that the reply has to fit beside its annotation; `before_validate`, `after_validate`, `after_run`;
    `description`, `category`, `tags`, `risk`, `visibility`. Raises DefinitionError for an option that makes no sense.
    """
    return _decorate("action", function, options)


@overload
def query(function: Callable[Concatenate[A, Context, P], Coroutine[Any, Any, R]], /) -> Method[P, R]: ...
@overload
def query(function: Callable[Concatenate[A, P], Coroutine[Any, Any, R]], /) -> Method[P, R]: ...
@overload
def query(function: Callable[Concatenate[A, Context, P], R], /) -> Method[P, R]: ...
@overload
def query(function: Callable[Concatenate[A, P], R], /) -> Method[P, R]: ...
@overload
def query(**options: Unpack[QueryOptions]) -> Decorator: ...
def query(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a question to an agent: it sees the last committed state, changes nothing. Else as `action`."""
    return _decorate("query", function, options)


def _decorate(kind: Kind, function: Callable[..., Any] | None, options: dict[str, Any]) -> Any:
    blocking: bool = options.pop("blocking", False)
    lasts: float | None = options.pop("turn_timeout", None)
    if function is None:
        return functools.partial(Method[Any, Any], kind=kind, blocking=blocking, turn_timeout=lasts, given=options)
    return Method[Any, Any](function, kind, blocking=blocking, turn_timeout=lasts, given=options)


def methods_of(cls: type[Any]) -> dict[str, Method[..., Any]]:
    """Actions and queries of a class and its bases, by name. Remembered: a class is complete when it is used."""
    known: dict[str, Method[..., Any]] | None = cls.__dict__.get("__tenure_methods__")
    if known is None:
        known = _collect(cls)
        cls.__tenure_methods__ = known
    return known


def _collect(cls: type[Any]) -> dict[str, Method[..., Any]]:
    found: dict[str, Method[..., Any]] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, Method):
                found[name] = cast(Method[..., Any], value)
            else:
                found.pop(name, None)
    return found


def find(cls: type[Any], name: str, kind: Kind) -> Method[..., Any]:
    """The method of that name and kind ("by_name": either). Raises UnknownMethod, listing near ones."""
    methods = methods_of(cls)
    method = methods.get(name)
    if method is not None and kind in {"by_name", method.kind}:
        return method
    scope = current_scope.get() if "." in name else None
    if scope is not None and scope.roster is not None:
        return scope.roster.find(name, kind)
    if method is not None:
        raise UnknownMethod(f"{cls.__name__}.{name} is a {method.kind}, and was called as a {kind}")
    raise UnknownMethod(f"{cls.__name__} has no action or query {name!r}; {near(name, methods)}")


def near(name: str, known: Iterable[str]) -> str:
    """What the author may have meant."""
    names = sorted(known)
    if not names:
        return "it has none"
    close = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(names[:10])}"
