"""Agents as values: `new`, instructions, `cmd`; and definitions that are refused at import."""

import asyncio
import types
from collections.abc import Callable

import pytest
import sdk_agents as sample

import tenure
from tenure import errors
from tenure._definition import collect, describe


def test_instructions_are_values() -> None:
    """Equal when they say the same, readable, and bound by name."""
    one = sample.Counter.increment(by=2)
    assert one == sample.Counter.increment(2)
    assert one != sample.Counter.increment(by=3)
    assert repr(one) == "Counter.increment(by=2)"
    assert len({one, sample.Counter.increment(2)}) == 1


def test_cmd_gives_the_agent_and_the_effects() -> None:
    """The agent given is not changed; nothing is executed."""
    before = sample.Counter.new({"count": 1})
    after, effects = sample.Counter.cmd(before, sample.Counter.increment(by=2))
    assert (before.state.count, after.state.count) == (1, 3)
    assert effects == (tenure.Emit("counter.changed", {"count": 3}),)


def test_cmd_turns_exceptions_into_data() -> None:
    """A failing action: the agent unchanged, and an Error."""
    before = sample.Counter.new()
    after, effects = sample.Counter.cmd(before, sample.Counter.fail(after=1))
    assert after is before
    assert effects == (tenure.Error("ActionFailed", "ValueError in fail: no luck"),)


def test_cmd_refuses_what_waits() -> None:
    """An action that truly suspends is not pure."""
    with pytest.raises(errors.NotPure, match=r"Counter\.wait waits"):
        sample.Counter.cmd(sample.Counter.new(), sample.Counter.wait())


async def test_a_value_is_not_called() -> None:
    """Without a runtime there is nobody to call: the message names `cmd`."""
    with pytest.raises(errors.NotInTurn, match=r"use Counter\.cmd"):
        await sample.Counter.new().increment()
    async with tenure.local() as rt:
        reference = await rt.create(sample.Counter, "c")
        with pytest.raises(errors.NotInTurn, match=r"cmd takes a value made by Counter\.new"):
            sample.Counter.cmd(reference, sample.Counter.increment())


def test_agents_are_not_constructed() -> None:
    """`Counter()` says what to write instead."""
    with pytest.raises(errors.UsageError, match=r"Counter\.new\(\)"):
        sample.Counter()


def define_init() -> None:
    class Bad(tenure.Agent[sample.CounterState]):
        def __init__(self) -> None: ...


def define_reserved() -> None:
    class Bad(tenure.Agent[sample.CounterState]):
        @tenure.action
        def call(self) -> None: ...


def define_state() -> None:
    class Bad(tenure.Agent[int]): ...


def define_blocking() -> None:
    class Bad(tenure.Agent[sample.CounterState]):
        @tenure.action(blocking=True)
        async def work(self) -> None: ...


def define_varargs() -> None:
    class Bad(tenure.Agent[sample.CounterState]):
        @tenure.action
        def work(self, *numbers: int) -> None: ...

    describe(Bad)


def define_late_context() -> None:
    class Bad(tenure.Agent[sample.CounterState]):
        @tenure.action
        def work(self, by: int, ctx: tenure.Context) -> None: ...

    describe(Bad)


def define_unresolvable() -> None:
    class Bad(tenure.Agent[sample.CounterState]):
        @tenure.action
        def work(self, by: "Missing") -> None: ...  # noqa: F821

    describe(Bad)


def define_twice() -> None:
    class Bad(sample.Doubler, actions=[sample.archive]): ...


@pytest.mark.parametrize(
    ("define", "text"),
    [
        (define_init, r"Bad\.__init__: the name is taken"),
        (define_reserved, r"Bad\.call: the name is taken"),
        (define_state, r"Agent\[\.\.\.\] takes a subclass of tenure\.State"),
        (define_blocking, "is `async def`"),
        (define_varargs, r"`\*numbers: int` has no name"),
        (define_late_context, "must be the first parameter"),
        (define_unresolvable, "annotation cannot be resolved.*Missing"),
        (define_twice, "has 'archive' already"),
    ],
)
def test_bad_definitions_are_refused(define: Callable[[], None], text: str) -> None:
    """At import or at registration, with what is wrong and where."""
    with pytest.raises(errors.DefinitionError, match=text):
        define()


def test_classes_are_found_and_described() -> None:
    """A pool registers the public classes of its modules, with schemas."""
    found = collect([sample])
    assert set(found) == {"Counter", "Doubler", "Shop", "Careless"}
    info = describe(found["Counter"])
    assert info.description == "Counts things."
    methods = {method.name: method for method in info.methods}
    assert methods["value"].query
    assert methods["increment"].description == "Add to the counter."
    assert methods["increment"].parameters["properties"] == {"by": {"default": 1, "title": "By", "type": "integer"}}
    assert "archive" in {method.name for method in describe(found["Doubler"]).methods}


def test_a_class_says_what_its_agents_hear_and_its_version() -> None:
    """Hosts resolve subscribers by it."""

    class Listener(sample.Counter, subscribes=["order.*"], version=3):
        pass

    assert (describe(Listener).subscribes, describe(Listener).version) == (("order.*",), 3)
    assert describe(sample.Counter).subscribes == ()


def test_a_class_says_what_its_agents_offer() -> None:
    """Beside what its bases offer; a string would be taken for its letters."""

    class Reader(sample.Counter, capabilities=["ocr"]):
        pass

    class Translator(Reader, capabilities=["french"]):
        pass

    assert describe(Translator).capabilities == ("french", "ocr")
    assert describe(sample.Counter).capabilities == ()
    with pytest.raises(errors.DefinitionError, match="is a list of names"):

        class Wrong(sample.Counter, capabilities="ocr"):  # type: ignore[arg-type]
            pass


def test_two_classes_of_one_name_are_refused() -> None:
    """Agents name their class by its bare name, so that it must be one."""
    other = types.ModuleType("other")
    other.Counter = type("Counter", (sample.Counter,), {})
    with pytest.raises(errors.DefinitionError, match=r"two classes are called Counter: sdk_agents\.Counter and"):
        collect([sample, other])


def test_the_sync_client_refuses_a_running_loop() -> None:
    """It would block the loop."""

    async def main() -> None:
        with pytest.raises(errors.UsageError, match=r"use tenure\.connect"):
            tenure.Client().open()

    asyncio.run(main())
