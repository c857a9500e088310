"""Steps and suspension of a turn: protocol 9, the part of whoever runs the user's code.

The function runs from its beginning in every attempt. What it asks for has a *position*; what the journal holds of it
is returned, the first thing that it does not hold is done, or ends the attempt until its result is there.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec
import pydantic
from pydantic_core import PydanticSerializationError

from tenure import _codec, _deadline, errors
from tenure._faults import MESSAGE_LIMIT, fault_of
from tenure._journal import WAITING, Journal, reply_of
from tenure._stepkey import StepKey
from tenure_link import Entry, Outgoing, Wait, Work

if TYPE_CHECKING:
    from tenure._instruction import Instruction
    from tenure._scope import Scope

R = TypeVar("R")
TURN_TIMEOUT_S = 24 * 3600.0
"""How long an accepted turn may take, where its action says nothing: a day, since people are waited for."""


class Unwound(BaseException):
    """Ends an attempt. No `Exception`, so that `except Exception` of a body lets it through."""


class Suspended(Unwound):
    """The turn waits for something."""

    def __init__(self, wait: Wait) -> None:
        super().__init__(f"the turn waits: {wait.name}")
        self.wait = wait


class Interrupted(Unwound):
    """The journal took no more: the attempt ends as if its process had ended."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Rerun(Unwound):
    """The turn is accepted, and limits of the call are in force around it: it is run again without them."""


class Steps:
    """What one attempt of a turn has asked for."""

    __slots__ = ("_busy", "_journal", "_scope", "asked", "broken", "lasts", "suspended")

    def __init__(self, scope: Scope, journal: Journal, lasts: float = 0.0) -> None:
        self._scope = scope
        self._journal = journal
        self._busy = ""
        self.lasts = lasts or TURN_TIMEOUT_S
        self.asked: list[str] = []
        """Names, by position."""
        self.suspended: Wait | None = None
        self.broken: errors.CallError | None = None
        """Why the turn cannot go on, whatever its code makes of it."""

    @property
    def finished(self) -> list[str]:
        """Names of the steps in the journal."""
        return [entry.name for entry in self._journal.entries]

    async def step(
        self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Run a function once, or return what it returned. Raises StepFailed if it raised."""
        how = _how(function)
        position, entry = self._ask(name)
        if entry is None:
            self._busy = name
            try:
                await self._accept()
                entry = Entry(name, await self._run(position, name, function, how, args, kwargs))
                await self._record(position, entry)
            finally:
                self._busy = ""
        return _value(entry, how)

    async def wait(self, name: str, *, seconds: float | None, types: tuple[str, ...] = ()) -> bytes:
        """The result of a wait; ends the attempt while there is none."""
        return await self._wait(name, seconds, lambda _: {"types": types})

    async def call(self, to: str, instruction: Instruction[R], seconds: float | None) -> R:
        """The reply of another agent. Raises CallError, WaitCycle."""
        scope = self._scope
        to = to if "/" in to else f"{scope.agent_id.partition('/')[0]}/{to}"
        chain = (*self._journal.chain, scope.agent_id)
        if to in chain:
            raise errors.WaitCycle(f"turns would wait for each other: {' -> '.join((*chain, to))}", agent=to)
        work = Work(instruction.name, instruction.encode(), carried=_codec.pack({WAITING: " ".join(chain)}))
        sends = (Outgoing(to, msgspec.msgpack.encode(work)),)
        name = f"call {to} {instruction.name}"
        result = await self._wait(name, seconds, lambda key: {"key": key, "sends": sends})
        return instruction.target.decode_reply(reply_of(result, name, to))

    async def _wait(self, name: str, seconds: float | None, what: Callable[[str], dict[str, Any]]) -> bytes:
        position, entry = self._ask(name)
        if entry is not None:
            return entry.result
        self._busy = name
        try:
            await self._accept()
        finally:
            self._busy = ""
        until = 0.0 if seconds is None else self._journal.now() + seconds
        self.suspended = Wait(position, name, until, **what(self._key(position)))
        raise Suspended(self.suspended)

    def _ask(self, name: str) -> tuple[int, Entry | None]:
        """The next position, and what the journal holds there. Raises what keeps the turn from going on."""
        self._may_go_on(name)
        position, entries = len(self.asked), self._journal.entries
        self.asked.append(name)
        if position >= len(entries):
            return position, None
        if entries[position].name != name:
            self.broken = self._changed()
            raise self.broken
        return position, entries[position]

    def _may_go_on(self, name: str) -> None:
        scope = self._scope
        if not scope.open:
            raise errors.NotInTurn(f"the turn of {scope.method} has ended: it can have no step {name!r} any more")
        if self.broken is not None:
            raise self.broken
        if self.suspended is not None:  # its code has caught the end of the attempt
            raise Suspended(self.suspended)
        if self._busy:
            raise errors.UsageError(
                f"the step {name!r} was asked for while {self._busy!r} was not finished: steps come one after the "
                "other; what is to run at the same time belongs into one step"
            )
        if scope.repeated:
            raise errors.UsageError(
                f"{scope.method} has max_retries, and asks for the step {name!r}: each attempt would be a step of its "
                "own; let the function of the step try again"
            )

    async def _accept(self) -> None:
        """Commit the acceptance before the first step [accept_first]; then the turn outlives its call."""
        journal, scope = self._journal, self._scope
        if journal.accepted:
            return
        try:
            await journal.accept(self.lasts)
        except Exception as error:
            raise Interrupted(error) from error
        if not journal.keeps_extra:
            scope.extra = ()
        inner = _deadline.until(scope, 0)
        scope.deadline_ns = _deadline.boot_ns() + int(self.lasts * 1e9)
        if scope.limit is not None:
            scope.limit.reschedule(_deadline.on_loop_clock(scope.deadline_ns))
        if inner:
            raise Rerun

    async def _record(self, position: int, entry: Entry) -> None:
        """Commit a result before anything depends on it [journal_first]."""
        if not self._scope.open:
            raise errors.NotInTurn(f"the turn of {self._scope.method} ended before its step {entry.name!r}")
        try:
            await self._journal.record(position, entry)
        except Exception as error:
            raise Interrupted(error) from error

    async def _run(
        self,
        position: int,
        name: str,
        function: Callable[..., Any],
        how: _How,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> bytes:
        """The function, once; what it returned or raised, for the journal."""
        key = StepKey(self._key(position))
        given = dict(kwargs)
        if how.key is not None and how.key not in given:
            given[how.key] = key
        token = running_key.set(key)
        try:
            result = function(*args, **given)
            if inspect.isawaitable(result):
                result = await result
            return _codec.pack({"value": how.dump(result, name)})
        except Exception as error:  # noqa: BLE001 - whatever the author's function raises is its result
            fault = fault_of(error, f"the step {name}")
            what = f"{fault.code} in the step {name}: " if isinstance(error, errors.CallError) else ""
            return _codec.pack({"error": [what + fault.message, fault.details[-MESSAGE_LIMIT:]]})
        finally:
            running_key.reset(token)

    def _key(self, position: int) -> str:
        """Of the turn and the place of the step, never of epoch, host or attempt [stable_key]."""
        return f"{self._journal.key}/{position}"

    def _changed(self) -> errors.StepsChanged:
        """A replay must ask for what the journal holds [same_steps]."""
        return errors.StepsChanged(
            f"{self._scope.method} asked for other steps than its journal holds; the journal: "
            f"{', '.join(self.finished) or 'none'}; asked for: {', '.join(self.asked) or 'none'}",
            agent=self._scope.agent_id,
        )

    def finish(self) -> None:
        """At the end of the body. Raises StepsChanged, UsageError: the turn has not ended well."""
        if self.broken is not None:
            raise self.broken
        if self.suspended is not None:
            raise errors.UsageError(
                f"{self._scope.method} went on after {self.suspended.name!r} had suspended its turn: something in it "
                "catches BaseException, and has to raise it again"
            )
        if len(self.asked) < len(self._journal.entries):
            raise self._changed()

    def waits(self, error: BaseException) -> Wait | None:
        """What the turn waits for, if that is how the attempt ended; None: it ended otherwise."""
        if isinstance(error, Suspended):
            return error.wait
        if isinstance(error, BaseExceptionGroup) and cast("BaseExceptionGroup[BaseException]", error).subgroup(
            Suspended
        ):  # of a TaskGroup
            return self.suspended
        return None


running_key: ContextVar[StepKey | None] = ContextVar("tenure_step_key", default=None)
"""The key of the step that the running code belongs to."""


def steps_of(scope: Scope, what: str) -> Steps:
    """The steps of a turn. Raises NotPure, NotInTurn, NotSupported where there can be none."""
    if scope.steps is not None:
        return scope.steps
    if scope.journal is None:
        from tenure._exec import is_pure  # noqa: PLC0415 - it brings asyncio

        if is_pure():
            raise errors.NotPure(f"{scope.method} asks for {what}: cmd has no journal; call it at a runtime")
        if scope.read_only:
            raise errors.NotInTurn(f"a query only reads: make {scope.method} an action to ask for {what}")
        if not scope.open:
            raise errors.NotInTurn(f"the turn of {scope.method} has ended: it cannot ask for {what} any more")
        raise errors.NotSupported(f"{scope.method} asks for {what}, and nobody keeps a journal of it here")
    scope.steps = Steps(scope, scope.journal, scope.lasts)
    return scope.steps


def end(scope: Scope) -> None:
    """At the end of a turn's body. Raises what `Steps.finish` raises."""
    if scope.steps is not None:
        scope.steps.finish()
    elif scope.journal is not None and scope.journal.entries:
        Steps(scope, scope.journal).finish()


class _How(msgspec.Struct, frozen=True):
    """How a function's key and its result are passed."""

    key: str | None
    """The parameter that is annotated `StepKey`."""
    adapter: pydantic.TypeAdapter[Any] | None
    """None: anything that msgpack has words for."""

    def dump(self, value: object, name: str) -> object:
        """What goes into the journal. Raises ValueError."""
        try:
            if self.adapter is None:
                return _codec.unpack(_codec.pack(value))
            return cast(object, self.adapter.dump_python(value, mode="python", warnings="error"))
        except (ValueError, PydanticSerializationError) as error:
            raise ValueError(f"what {name} returned cannot be kept: {error}") from error


def _how(function: Callable[..., Any]) -> _How:
    plain: Any = inspect.unwrap(getattr(function, "func", function))
    plain = plain if inspect.isroutine(plain) else getattr(plain, "__call__", plain)  # noqa: B004 - its annotations
    try:
        hints = typing.get_type_hints(plain)
    except (NameError, TypeError, AttributeError):
        hints = dict(getattr(plain, "__annotations__", {}))
    key = next((name for name, hint in hints.items() if name != "return" and _is_key(hint)), None)
    hint = hints.get("return", Any)
    try:
        adapter = None if hint is Any or isinstance(hint, str) else pydantic.TypeAdapter(hint)
    except (pydantic.errors.PydanticUserError, TypeError):
        adapter = None
    return _How(key, adapter)


def _is_key(hint: object) -> bool:
    return hint is StepKey or (isinstance(hint, str) and hint.rpartition(".")[2] == "StepKey")


def _value(entry: Entry, how: _How) -> Any:
    """What a step returned, read from its journal entry, so that every attempt sees the same. Raises StepFailed."""
    content = _codec.unpack_map(entry.result)
    if "error" in content:
        message, details = cast("tuple[str, str]", content["error"])
        raise errors.StepFailed(message, details=details)
    return content["value"] if how.adapter is None else how.adapter.validate_python(content["value"])
