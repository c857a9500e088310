"""Plans as they run, in a turn."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from tenure import _exec
from tenure._agent import Agent
from tenure._context import Context
from tenure._deadline import boot_ns
from tenure._instruction import Instruction
from tenure._methods import find
from tenure._scope import Scope
from tenure.errors import DeadlineExceeded, InvalidArguments, NotInTurn
from tenure.plan import (
    Branch,
    Chain,
    Given,
    MissingStep,
    Outcome,
    Output,
    Parallel,
    Plan,
    PlanInvalid,
    Pure,
    Step,
    Work,
    references,
)

T = TypeVar("T")
_NOTHING = object()


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where a work runs, and what it may refer to."""

    agent: Agent[Any]
    context: Context
    scope: Scope | None
    given: Mapping[str, object]
    outputs: dict[str, object] = field(default_factory=dict[str, object])
    previous: object = _NOTHING


async def run(
    work: Plan | Chain[Any], agent: Agent[Any], context: Context | None, given: Mapping[str, object]
) -> object:
    """Run a plan or a chain. Raises NotInTurn, InvalidArguments for a missing or unknown value, and what it raises."""
    cell = agent.__tenure__
    turn = cell.context()
    if turn is None:
        raise NotInTurn(
            f"a plan runs in a turn: write an action that does `await plan.run(self, ctx)`, not on {agent!r}"
        )
    wanted = {item.name for item in references(work) if isinstance(item, Given)}
    for name in sorted(wanted ^ given.keys()):
        raise InvalidArguments(
            f"`{name}` is {'missing' if name in wanted else 'not known'}: a run is given what it names"
        )
    return await _perform(work, _Frame(agent, context or turn, cell.scope, given))


async def _perform(work: Work, frame: _Frame) -> object:
    match work:
        case Instruction():
            method = find(type(frame.agent), work.name, work.kind)
            arguments = cast(dict[str, object], _resolve(work.arguments, frame))
            return await method.run(frame.agent, frame.context, method.signature.typed(arguments))
        case Pure():
            arguments_ = cast(Sequence[object], _resolve(list(work.arguments), frame))
            result = work.function(*arguments_, **cast(dict[str, object], _resolve(dict(work.keywords), frame)))
            return await cast(Awaitable[object], result) if inspect.isawaitable(result) else cast(object, result)
        case Chain():
            return await _limited(frame, work.timeout, "the chain", lambda: _chain(work, frame))
        case Branch():
            return await _limited(frame, work.timeout, "the branch", lambda: _branch(work, frame))
        case Parallel():
            return await _limited(frame, work.timeout, "the parallel work", lambda: _parallel(work, frame))
        case Plan():
            inner = replace(frame, outputs={})
            return await _limited(frame, work.timeout, "the plan", lambda: _plan(work, inner))


async def _chain(work: Chain[Any], frame: _Frame) -> object:
    for part in work.works:
        frame = replace(frame, previous=await _perform(part, frame))
    return frame.previous


async def _branch(work: Branch, frame: _Frame) -> object:
    chosen = work.then if await _perform(work.condition, frame) else work.otherwise
    return await _perform(chosen, frame) if chosen is not None else None


async def _parallel(work: Parallel, frame: _Frame) -> dict[str, object]:
    perform = _collected if work.collect else _perform

    def begin(piece: Work) -> Callable[[], Awaitable[object]]:
        return lambda: perform(piece, frame)

    results = await _all(list(work.works.values()), frame, [begin(piece) for piece in work.works.values()])
    return dict(zip(work.works, results, strict=True))


async def _collected(work: Work, frame: _Frame) -> Outcome:
    before = None if _changes_nothing(work, frame) else _exec.Before(frame.agent.__tenure__)
    try:
        return Outcome(await _perform(work, frame))
    except Exception as error:  # noqa: BLE001 - it is what was asked for
        if before is not None:
            before.restore()
        return Outcome(error=error)


async def _plan(work: Plan, frame: _Frame) -> dict[str, object]:
    steps = {step.name: step for step in work.steps}

    def begin(step: Step) -> Callable[[], Awaitable[object]]:
        return lambda: _step(step, frame)

    for phase in work.phases:
        ready = [steps[name] for name in phase]
        await _all([step.work for step in ready], frame, [begin(step) for step in ready])
    return {step.name: frame.outputs[step.name] for step in work.steps}


async def _step(step: Step, frame: _Frame) -> None:
    try:
        frame.outputs[step.name] = await _limited(
            frame, step.timeout, f"step {step.name!r}", lambda: _perform(step.work, frame)
        )
    except Exception as error:
        _exec.tell(error, f"in step {step.name!r}")
        raise


async def _all(works: Sequence[Work], frame: _Frame, begin: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """At the same time, if none of them changes anything; else one after the other. The first error ends the rest."""
    if len(works) < 2 or _exec.is_pure() or not all(_changes_nothing(work, frame) for work in works):
        return [await one() for one in begin]

    async def task(one: Callable[[], Awaitable[T]]) -> T:
        return await one()

    tasks = [asyncio.create_task(task(one)) for one in begin]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _changes_nothing(work: Work, frame: _Frame) -> bool:
    match work:
        case Instruction():
            return find(type(frame.agent), work.name, work.kind).kind == "query"
        case Pure():
            return True
        case Chain():
            parts: Sequence[Work] = work.works
        case Branch():
            parts = [part for part in (work.condition, work.then, work.otherwise) if part is not None]
        case Parallel():
            parts = list(work.works.values())
        case Plan():
            parts = [step.work for step in work.steps]
    return all(_changes_nothing(part, frame) for part in parts)


async def _limited(frame: _Frame, seconds: float | None, what: str, begin: Callable[[], Awaitable[T]]) -> T:
    """Within this time and the turn's. Raises DeadlineExceeded, at once if no time is left."""
    if seconds is not None:
        return await _exec.within(frame.scope, _exec.ends_at(frame.scope, seconds), what, begin)
    ends = _exec.ends_at(frame.scope, None)
    if ends and ends <= boot_ns():
        raise DeadlineExceeded(f"the deadline passed before {what} began")
    return await begin()


def _resolve(value: object, frame: _Frame) -> object:
    """A value with what the stand-ins in it stand for."""
    match value:
        case Given():
            return frame.given[value.name]
        case Output():
            return _output(value, frame)
        case dict():
            return {key: _resolve(item, frame) for key, item in cast(dict[object, object], value).items()}
        case list():
            return [_resolve(item, frame) for item in cast(list[object], value)]
        case tuple() if type(cast(object, value)) is tuple:
            return tuple(_resolve(item, frame) for item in cast(tuple[object, ...], value))
        case _:
            return value


def _output(wanted: Output, frame: _Frame) -> object:
    if wanted.step and wanted.step not in frame.outputs:
        raise MissingStep(f"there is no step {wanted.step!r} here: only a plan has named steps", ("", wanted.step))
    value = frame.outputs[wanted.step] if wanted.step else frame.previous
    if value is _NOTHING:
        raise PlanInvalid("`previous` in the first part of a chain: nothing was before")
    for key in wanted.path:
        try:
            value = _part(value, key)
        except (LookupError, AttributeError, TypeError) as error:
            raise InvalidArguments(f"the output of step {wanted.step or 'before'!r} has no {key!r}") from error
    return value


def _part(value: Any, key: str | int) -> object:
    if isinstance(key, int) or isinstance(value, Mapping):
        return cast(object, value[key])
    return cast(object, getattr(value, key))
