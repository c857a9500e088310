"""One action on a draft, with the hooks and the strategy of its class around it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from tenure._context import Context
from tenure._effects import Directive
from tenure._instruction import Instruction
from tenure._methods import Method, find
from tenure._scope import Scope

if TYPE_CHECKING:
    from tenure._agent import Agent


async def settled(value: Awaitable[object] | object) -> object:
    """The value, awaited if it has to be: hooks are `def` or `async def`."""
    return await value if inspect.isawaitable(value) else value


async def run_one(draft: Agent[Any], scope: Scope, method: Method[..., Any], arguments: Mapping[str, Any]) -> object:
    """Run one action with the hooks, the skills and the strategy of its agent around it; a query with the skills."""
    context = Context(scope)
    if method.kind == "query" or type(draft).__tenure_direct__:
        if scope.roster is None:
            return await method.run(draft, context, arguments)
        method, arguments = await _prepared(draft, scope, method, arguments)
        return await _transformed(draft, scope, method, arguments, await method.run(draft, context, arguments))
    changed = await settled(draft.before_action(context, Instruction(method, arguments)))
    if isinstance(changed, Instruction):
        method = find(type(draft), changed.name, changed.kind)
        arguments = method.signature.values(changed.arguments)
    method, arguments = await _prepared(draft, scope, method, arguments)
    strategy = scope.strategy
    if strategy is None or scope.memory is None:
        reply = await method.run(draft, context, arguments)
    else:
        reply = await strategy.run(method.name, scope.memory, lambda: method.run(draft, context, arguments))
    reply = await _transformed(draft, scope, method, arguments, reply)
    effects = await settled(draft.after_action(context, Instruction(method, arguments), scope.plain()))
    if effects is not None:
        scope.directives.clear()
        for directive in cast(Sequence[Directive], effects):
            scope.do(directive)
    return reply


async def _prepared(
    draft: Agent[Any], scope: Scope, method: Method[..., Any], arguments: Mapping[str, Any]
) -> tuple[Method[..., Any], Mapping[str, Any]]:
    if scope.roster is None:
        return method, arguments
    from tenure.skills import _phases  # noqa: PLC0415 - most agents have no skills

    return await _phases.prepared(draft, scope, method, arguments)


async def _transformed(
    draft: Agent[Any], scope: Scope, method: Method[..., Any], arguments: Mapping[str, Any], result: object
) -> object:
    if scope.roster is None:
        return result
    from tenure.skills import _phases  # noqa: PLC0415 - as above

    return await _phases.transformed(draft, scope, method, arguments, result)
