"""The pure form of an action: `Counter.cmd(agent, Counter.increment())`."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, NoReturn, TypeVar, cast

from tenure import _record, _state
from tenure._agent import Agent, Cell, Role, make, state_class
from tenure._body import run_one
from tenure._effects import Directive, Error
from tenure._instruction import Instruction, checked
from tenure._methods import Method, find
from tenure._scope import Scope, current_scope
from tenure._state import State
from tenure.errors import CallError, NotInTurn, NotPure, UsageError

AnyAgent = TypeVar("AnyAgent", bound=Agent[Any])


def cmd(cls: type[AnyAgent], agent: AnyAgent, instruction: Instruction[Any]) -> tuple[AnyAgent, tuple[Directive, ...]]:
    """See `Agent.cmd`."""
    if agent.__tenure__.role is not Role.VALUE or agent.__tenure__.state is None:
        raise NotInTurn(f"cmd takes a value made by {cls.__name__}.new(), not {agent!r}")
    checked(instruction, "cmd")
    roster = agent.__tenure__.skills or _record.first_roster(type(agent))
    if roster is not None and "." in instruction.name:
        method: Method[..., Any] = roster.find(instruction.name, instruction.kind)
    else:
        method = find(type(agent), instruction.name, instruction.kind)
    arguments = method.signature.decode(instruction.encode())
    kind = state_class(type(agent))
    before = agent.__tenure__
    scope = Scope(agent.id, method.name, read_only=method.kind == "query", strategy=type(agent).__tenure_strategy__)
    if scope.strategy is not None:
        scope.memory = dict(before.memory if before.memory is not None else scope.strategy.initial())
    if roster is not None:
        scope.roster, scope.skills, scope.changes = roster, {}, []
    copy = _state.decode(kind, _state.encode(cast(State, before.state)))
    draft = make(type(agent), Cell(Role.DRAFT, agent.id, state=copy, scope=scope))
    try:
        _drive(method, draft, scope, arguments)
        after = _state.decode(kind, _state.encode(draft.state))
    except UsageError:
        raise
    except CallError as error:
        return _failed(agent, Error(error.code, error.message))
    except Exception as error:  # noqa: BLE001 - whatever the author's code raises is the result
        return _failed(agent, Error("ActionFailed", f"{type(error).__name__} in {method.name}: {error}"))
    finally:
        scope.open = False
    return make(
        type(agent), Cell(Role.VALUE, agent.id, state=after, memory=scope.memory, skills=scope.roster)
    ), scope.plain()


def _failed(agent: AnyAgent, error: Error) -> tuple[AnyAgent, tuple[Directive, ...]]:
    """What `cmd` returns when an action raised: the agent as it was, but for what its strategy makes of it."""
    cell = agent.__tenure__
    strategy = type(agent).__tenure_strategy__
    if strategy is None:
        return agent, (error,)
    memory = strategy.failed(dict(cell.memory if cell.memory is not None else strategy.initial()), error)
    return make(type(agent), Cell(Role.VALUE, cell.id, state=cell.state, memory=memory, skills=cell.skills)), (error,)


class _NoLoop:
    """Stands for the event loop while `cmd` runs an action: whatever the action wants of it, it would have to wait."""

    def __init__(self, label: str) -> None:
        self._label = label

    def __getattr__(self, _: str) -> NoReturn:
        raise NotPure(f"{self._label} waits for something: cmd runs an action to its end at once; call it at a runtime")


async def _turn(draft: Agent[Any], scope: Scope, method: Method[..., Any], arguments: Mapping[str, Any]) -> None:
    if scope.roster is None:
        await run_one(draft, scope, method, arguments)
        return
    from tenure.skills import _phases  # noqa: PLC0415 - most agents have no skills

    await _phases.begin(draft, scope)
    await run_one(draft, scope, method, arguments)
    if not scope.read_only:
        await _phases.finish(draft, scope)


def _drive(method: Method[..., Any], draft: Agent[Any], scope: Scope, arguments: Mapping[str, Any]) -> None:
    """Run the body to its end without an event loop. Raises NotPure if it would wait."""
    import asyncio  # noqa: PLC0415 - a tenth of the time of `import tenure`, and only needed by what runs agents

    token = current_scope.set(scope)
    no_loop = _NoLoop(method.label)
    outer = asyncio._get_running_loop()  # noqa: SLF001 - asyncio's interface for whoever drives coroutines
    asyncio._set_running_loop(cast(Any, no_loop))  # noqa: SLF001 - the same
    try:
        body: Coroutine[Any, Any, object] = _turn(draft, scope, method, arguments)
        try:
            body.send(None)
        except StopIteration:
            return
        body.close()
        no_loop.waited()
    finally:
        asyncio._set_running_loop(outer)  # noqa: SLF001 - the same
        current_scope.reset(token)
