"""Calling code that is wrong reads a sentence that says what to write instead, and nothing has happened."""

from collections.abc import Callable
from typing import Any

import pytest
import sdk_agents as sample

import tenure
from tenure import errors, plan
from tenure._clock import VirtualClock
from tenure.sensors import Heartbeat


class Careless(sample.Counter):
    """Asks for what cannot be."""

    @tenure.action
    def after_text(self, ctx: tenure.Context) -> None:
        ctx.after(1, "increment")  # type: ignore[arg-type]

    @tenure.action
    def run_method(self, ctx: tenure.Context) -> None:
        ctx.run(sample.Counter.increment)  # type: ignore[arg-type]

    @tenure.action
    def send_nobody(self, ctx: tenure.Context) -> None:
        ctx.send(5, sample.Counter.increment())  # type: ignore[arg-type]

    @tenure.action
    def sense_class(self, ctx: tenure.Context) -> None:
        ctx.start_sensor("beat", Heartbeat)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda rt, one: one.call("increment"), "call takes an instruction, .* not 'increment'; .* call_by_name"),
        (lambda rt, one: one.send(sample.Counter.increment), r"call it: Counter\.increment\(\.\.\.\)"),
        (lambda rt, one: rt.create("Counter", "x"), "create takes a class of agents, .* not 'Counter'"),
        (lambda rt, one: rt.publish("order.paid"), "publish takes signals"),
        (lambda rt, one: rt.advance(-1), "time goes on and not back"),
        (lambda rt, one: one.after_text(), "Schedule takes an instruction, .* not 'increment'"),
        (lambda rt, one: one.run_method(), "run takes an instruction"),
        (lambda rt, one: one.send_nobody(), "an agent is a reference or an id such as shop/cart-1, not 5"),
        (lambda rt, one: one.sense_class(), r"made with its configuration: Heartbeat\(\.\.\.\)"),
    ],
)
async def test_what_is_no_instruction_no_agent_no_class(wrong: Callable[[Any, Any], Any], said: str) -> None:
    async with tenure.LocalRuntime(clock=VirtualClock()) as rt:
        one = await rt.create(Careless, "one")
        with pytest.raises((errors.UsageError, errors.ActionFailed), match=said):
            await wrong(rt, one)
        assert rt.state(one).count == 0


def test_cmd_takes_an_instruction() -> None:
    with pytest.raises(errors.UsageError, match="cmd takes an instruction"):
        sample.Counter.cmd(sample.Counter.new(), "increment")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"skils": []}, r"skils= means nothing in the class statement; did you mean skills\?"),
        ({"strategy": tenure.FSM}, r"strategy is a value such as tenure\.FSM\(\)"),
        ({"on_error": "stop"}, r"on_error is a policy such as .*StopOnError\(\), or a function, not 'stop'"),
    ],
)
def test_class_statements(keywords: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.DefinitionError, match=said):
        type("Odd", (sample.Counter,), {}, **keywords)


def test_a_step_of_a_plan_is_no_text() -> None:
    with pytest.raises(plan.PlanInvalid, match="step 'a': its work is an instruction or a part of a plan, not 'add'"):
        plan.Step("a", "add")  # type: ignore[arg-type]
