"""What the local runtime does after a commit: one executor for each type of directive."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tenure import _codec
from tenure._local.carrying import onto
from tenure._local.held import Held
from tenure._local.journal import Ticket
from tenure._local.timers import FOLDED
from tenure._local.work import Asked, work_of
from tenure._scope import Emission
from tenure.directives import (
    AdoptChild,
    Directive,
    Emit,
    Error,
    RunInstruction,
    Send,
    Spawn,
    SpawnAgent,
    StartSensor,
    Stop,
    StopChild,
    StopSensor,
)
from tenure.policies import decide
from tenure.signals import Signal

if TYPE_CHECKING:
    from tenure._local.engine import Engine

Executor = Callable[["Engine", Held, Any], Awaitable[None] | None]
_logger = logging.getLogger("tenure.local")


def _emit(engine: Engine, held: Held, directive: Emission) -> None:
    activation = held.activation
    held.emitted += 1
    signal = Signal(
        id=f"{engine.run}.{activation.uid}.{held.emitted}",
        source=held.id,
        type=directive.type,
        data=_codec.unpack(directive.data),
        subject=directive.subject,
    )
    if engine.hub.on:
        signal = engine.hub.outgoing(signal, held.who)
    signal = onto(signal, held.carried)
    engine.keep(signal)
    if directive.to:
        engine.post(engine.full_id(directive.to), signal, caller=held.id, priority=directive.priority)
    else:
        engine.spread(signal, directive.priority)


def _send(engine: Engine, held: Held, directive: Send) -> None:
    wanted, to = work_of(directive.what), engine.full_id(directive.to)
    engine.post(to, wanted, caller=held.id, carried=held.carried, priority=directive.priority)


def _run(engine: Engine, held: Held, directive: RunInstruction) -> None:
    engine.start(_run_and_tell(engine, held, directive, held.carried), f"{held.id} {directive.instruction.name}")


async def _run_and_tell(engine: Engine, held: Held, directive: RunInstruction, carried: Mapping[str, object]) -> None:
    instruction = directive.instruction
    error, reply = "", None
    try:
        asked = Asked(instruction.name, instruction.encode(), carried)
        packed = await engine.do(held, asked, caller=held.id, ticket=Ticket())
        reply = instruction.target.decode_reply(packed)
    except Exception as problem:  # noqa: BLE001 - the agent is told
        error = f"{type(problem).__name__}: {problem}"
        if not directive.then:
            engine.report(held, instruction.name, problem)
    if directive.then:
        told = Asked(directive.then, _codec.pack({"reply": reply, "error": error}))
        engine.post(held.id, told, caller=held.id, carried=carried)


def _spawn(engine: Engine, held: Held, directive: Spawn) -> None:
    async def beside() -> None:
        try:
            await directive.function()
        except Exception as error:  # noqa: BLE001 - whatever the author's function raises
            engine.fail(held, Error("SpawnFailed", f"{directive.name or 'a function'}: {error}"), error)

    engine.start(beside(), f"{held.id} beside {directive.name}")


def _stop(engine: Engine, held: Held, directive: Stop) -> None:
    engine.start(engine.lives.end(held, directive.reason, failed=directive.failed), f"{held.id} stop")


def _error(engine: Engine, held: Held, directive: Error) -> None:
    engine.fail(held, directive, None)


def _start_sensor(engine: Engine, held: Held, directive: StartSensor) -> None:
    def deliver(signal: Signal) -> None:
        if engine.hub.on:
            signal = engine.hub.incoming(signal, held.who)
        engine.post(held.id, signal, caller=signal.source)

    engine.sensors.start(held.id, directive.tag, directive.sensor, deliver, replace=directive.replace)


def _stop_sensor(engine: Engine, held: Held, directive: StopSensor) -> None:
    engine.sensors.stop(held.id, directive.tag)


def _spawn_agent(engine: Engine, held: Held, directive: SpawnAgent) -> Awaitable[None]:
    return engine.kinship.spawn(held, directive)


def _adopt(engine: Engine, held: Held, directive: AdoptChild) -> Awaitable[None]:
    return engine.kinship.adopt(held, directive)


def _stop_child(engine: Engine, held: Held, directive: StopChild) -> Awaitable[None]:
    return engine.kinship.stop_child(held, directive)


def follow(engine: Engine, held: Held, error: Error, cause: BaseException | None) -> None:
    """Apply the error policy of an agent's class to one error."""
    held.errors += 1
    held.last_error = f"{error.code}: {error.message}"
    if cause is None:
        _logger.error("%s: %s: %s", held.id, error.code, error.message)
    try:
        followed = decide(held.activation.cls.__tenure_policy__, error, held.errors)
    except Exception:
        _logger.exception("the error policy of %s failed", held.activation.cls.__name__)
        return
    for directive in followed:
        if isinstance(directive, Error):
            continue  # a policy that answers errors with errors would never end
        if isinstance(directive, Emit):
            data = _codec.pack(directive.data)
            directive = Emission(directive.type, data, directive.to, directive.subject, directive.priority)  # noqa: PLW2901
        execute(engine, held, (directive,))


def _sync(engine: Engine, held: Held, directive: Directive) -> None:  # noqa: ARG001 - the interface
    engine.timers.sync(held)


EXECUTORS: dict[type[Directive], Executor] = {
    AdoptChild: _adopt,
    Emit: _emit,
    Error: _error,
    Send: _send,
    RunInstruction: _run,
    Spawn: _spawn,
    SpawnAgent: _spawn_agent,
    StartSensor: _start_sensor,
    Stop: _stop,
    StopChild: _stop_child,
    StopSensor: _stop_sensor,
    **dict.fromkeys(FOLDED, _sync),
}
"""By type; `Emission` is an `Emit`."""


def execute(engine: Engine, held: Held, directives: Sequence[Directive]) -> None:
    """Do what a turn asked for, in order; what fails hurts nothing else."""
    for directive in directives:
        name = "Emit" if isinstance(directive, Emission) else type(directive).__name__
        hub = engine.hub
        span = hub.begin("tenure.directive", held.who, attributes={"tenure.directive": name}) if hub.on else None
        try:
            result = engine.executors[type(directive)](engine, held, directive)
            if result is not None:
                engine.start(_finish(engine, held, directive, result), f"{held.id} {name}")
        except Exception as error:  # noqa: BLE001 - executors may be the user's
            if span is not None:
                hub.end(span, error=error)
            _misdone(engine, held, directive, error)
        if span is not None:
            hub.end(span)  # a second end is ignored


async def _finish(engine: Engine, held: Held, directive: Directive, result: Awaitable[None]) -> None:
    try:
        await result
    except Exception as error:  # noqa: BLE001 - as above
        _misdone(engine, held, directive, error)


def _misdone(engine: Engine, held: Held, directive: Directive, error: Exception) -> None:
    engine.fail(held, Error("DirectiveFailed", f"{type(directive).__name__}: {error}"), None)
