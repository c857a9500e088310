"""The turn engine, as `tenure.local()` shows it: committed as one, or not at all."""

import asyncio
import functools
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest
import sdk_agents as sample

import tenure
from tenure import errors
from tenure._turn import Activation
from tenure_link import Turn, TurnDone

Action = Callable[[sample.Counter], Coroutine[Any, Any, object]]


@pytest.fixture
async def rt() -> AsyncIterator[tenure.LocalRuntime]:
    async with tenure.local() as runtime:
        yield runtime


async def test_an_action_changes_state_and_emits(rt: tenure.LocalRuntime) -> None:
    """State, signals and reply of a turn appear together."""
    counter = await rt.create(sample.Counter, "c")
    assert await counter.increment(by=2) == 2
    assert await counter.value() == 2
    assert rt.state(counter).count == 2
    assert [(s.source, s.type, s.data) for s in rt.signals] == [("default/c", "counter.changed", {"count": 2})]


async def test_calls_inside_a_turn_share_its_draft(rt: tenure.LocalRuntime) -> None:
    """`self.increment()` runs inline: one turn, one commit, both signals; so does `super()`."""
    counter = await rt.create(sample.Counter, "c")
    assert await counter.twice(by=2) == 4
    assert len(rt.signals) == 2
    doubler = await rt.create(sample.Doubler, "d")
    assert await doubler.twice(by=1) == 4


@pytest.mark.parametrize(
    ("action", "error", "text"),
    [
        (lambda c: c.fail(after=5), errors.ActionFailed, "ValueError in fail: no luck"),
        (lambda c: c.note(number=-1), errors.StateInvalid, "`log.1` should be greater than 0, got -1"),
        (lambda c: c.assign_text(), errors.ActionFailed, "count"),
        (lambda c: c.lie(), errors.ActionFailed, "lie returned str"),
        (lambda c: c.leave(), errors.ActionFailed, "SystemExit in leave"),
        (lambda c: c.cancel(), errors.ActionFailed, "CancelledError"),
        (lambda c: c.call(sample.Counter.wait(), timeout=0.05), errors.DeadlineExceeded, "cancelled"),
        (lambda c: c.sneak(), errors.ActionFailed, "make sneak an action"),
    ],
)
async def test_a_failed_turn_leaves_nothing(
    rt: tenure.LocalRuntime, action: Action, error: type[errors.CallError], text: str
) -> None:
    """Whatever goes wrong in a turn: typed, "not applied", and the state is the last committed one."""
    counter = await rt.create(sample.Counter, "c", state={"count": 7, "log": [1]})
    with pytest.raises(error, match=text) as caught:
        await action(counter)
    assert caught.value.outcome == "not_applied"
    assert rt.state(counter) == sample.CounterState(count=7, log=[1])
    assert await counter.value() == 7
    assert rt.signals == []
    assert await counter.increment() == 8


async def test_the_traceback_begins_in_user_code(rt: tenure.LocalRuntime) -> None:
    """`details` is the author's traceback, without the frames of the SDK."""
    counter = await rt.create(sample.Counter, "c")
    with pytest.raises(errors.ActionFailed) as caught:
        await counter.fail(after=1)
    assert "sdk_agents.py" in caught.value.details
    assert "_turn.py" not in caught.value.details


async def test_a_query_cannot_change_committed_state(rt: tenure.LocalRuntime) -> None:
    """What a query does to a list is never committed."""
    counter = await rt.create(sample.Counter, "c")
    await counter.sneak_deeper()
    assert await counter.note(number=1) == [1]


async def test_a_query_runs_beside_a_turn_on_committed_state() -> None:
    """While an action waits, a query answers with what is committed, not with the draft."""
    activation = Activation(sample.Counter, uid="1", agent_id="d/c", epoch=1, stored=None, initial=b"\x81\xa5count\x03")
    running = asyncio.create_task(activation.run(Turn(1, "1", "action", "wait", b"", 0)))
    await asyncio.sleep(0)
    done = await activation.run(Turn(2, "1", "query", "value", b"", 0))
    assert done.reply == b"\x03"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_query_does_not_wait_for_an_action(rt: tenure.LocalRuntime) -> None:
    """Typed or by name, while an action holds the agent."""
    counter = await rt.create(sample.Counter, "c", state={"count": 3})
    waiting = asyncio.create_task(counter.wait())
    assert await counter.value() == 3
    assert await counter.call_by_name("value") == 3
    assert not waiting.done()
    await rt.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_blocking_actions_run_in_a_thread(rt: tenure.LocalRuntime) -> None:
    """`blocking=True` keeps the loop free and commits as usual."""
    counter = await rt.create(sample.Counter, "c")
    assert await counter.thread() != "MainThread"
    assert await counter.value() == 1


async def test_actions_take_turns(rt: tenure.LocalRuntime) -> None:
    """Concurrent calls are applied one after the other, none lost."""
    counter = await rt.create(sample.Counter, "c")
    replies = await asyncio.gather(*(counter.increment() for _ in range(50)))
    assert sorted(replies) == list(range(1, 51))


async def test_a_caller_that_leaves_does_not_undo_the_turn(rt: tenure.LocalRuntime) -> None:
    """Cancelling a call cancels the waiting, as on a cluster."""
    counter = await rt.create(sample.Counter, "c")
    call = asyncio.create_task(counter.increment())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await counter.increment() == 2


async def test_models_travel_typed(rt: tenure.LocalRuntime) -> None:
    """Arguments and replies that are models and enums arrive as such."""
    shop = await rt.create(sample.Shop, "s")
    when = datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)
    reply = await shop.place(point=sample.Point(x=1, at=when), colour=sample.Colour.RED)
    assert reply == sample.Point(x=2, at=when)
    assert await rt.call_by_name("s", "place", {"point": {"x": 4}}) == {"x": 5, "at": None}


async def test_module_actions(rt: tenure.LocalRuntime) -> None:
    """An action from `actions=[...]` is called through its instruction, or by name."""
    doubler = await rt.create(sample.Doubler, "d")
    assert await doubler.call(sample.archive(why="old")) == "0: old"
    assert await doubler.call_by_name("archive", {"why": "new"}) == "0: new"
    assert [s.type for s in rt.signals] == ["counter.archived"] * 2


async def test_the_context_knows_the_turn(rt: tenure.LocalRuntime) -> None:
    """Caller, epoch, id and config are those of the activation."""
    counter = await rt.create(sample.Counter, "c", config={"limit": 3})
    assert await counter.about() == {"id": "default/c", "caller": "local", "epoch": 1, "config": {"limit": 3}}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"by": "two"}, "`by` should be a valid integer.*got 'two'; it takes by: int = 1"),
        ({"bye": 2}, "`bye` is not known; it takes by: int = 1"),
    ],
)
async def test_wrong_arguments_name_the_parameter(
    rt: tenure.LocalRuntime, arguments: dict[str, object], text: str
) -> None:
    """Typed or by name: the message names the parameter, what was expected and what came."""
    counter = await rt.create(sample.Counter, "c")
    with pytest.raises(errors.InvalidArguments, match=text):
        await counter.increment(**arguments)
    with pytest.raises(errors.InvalidArguments, match=text):
        await counter.call_by_name("increment", arguments)
    with pytest.raises(errors.InvalidArguments, match="`by` is missing"):
        await counter.twice()


async def test_unknown_names_list_near_ones(rt: tenure.LocalRuntime) -> None:
    """A mistyped action, an agent that does not exist, a class that is another."""
    counter = await rt.create(sample.Counter, "c")
    with pytest.raises(errors.UnknownMethod, match="no action or query 'incremnt'; did you mean increment"):
        await counter.call_by_name("incremnt")
    with pytest.raises(errors.NotFound, match="default/none"):
        await rt.agent(sample.Counter, "none").value()
    with pytest.raises(errors.Conflict, match="is a Counter, not a Shop"):
        await rt.create(sample.Shop, "c")
    with pytest.raises(errors.UsageError, match="names no agent"):
        rt.agent(sample.Counter, "Not A Name")


async def test_create_is_idempotent(rt: tenure.LocalRuntime) -> None:
    """An agent that exists keeps its state."""
    await (await rt.create(sample.Counter, "c", state={"count": 5})).increment()
    again = await rt.create(sample.Counter, "c", state={"count": 0})
    assert await again.value() == 6


async def test_a_bad_initial_state_is_refused(rt: tenure.LocalRuntime) -> None:
    """The message names the field."""
    with pytest.raises(errors.StateInvalid, match="`cuont` is not known"):
        await rt.create(sample.Counter, "c", state={"cuont": 5})


async def test_a_reference_has_no_state(rt: tenure.LocalRuntime) -> None:
    """`.state` of a reference raises NotInTurn and names the way out."""
    counter = await rt.create(sample.Counter, "c")
    with pytest.raises(errors.NotInTurn, match=r"@tenure\.query on Counter"):
        _ = counter.state


async def test_calling_another_agent_inside_a_turn_is_refused(rt: tenure.LocalRuntime) -> None:
    """CallInsideTurn, and nothing of the turn is kept."""
    sample.other[:] = [await rt.create(sample.Counter, "c")]
    careless = await rt.create(sample.Careless, "x")
    with pytest.raises(errors.ActionFailed, match=r"CallInsideTurn in ask.*ctx\.emit"):
        await careless.ask()


async def test_what_leaks_from_a_turn_is_dead(rt: tenure.LocalRuntime) -> None:
    """`self` and `ctx` kept beyond their turn raise NotInTurn instead of touching another turn's state."""
    sample.leaked.clear()
    careless = await rt.create(sample.Careless, "x")
    await careless.leak()
    await careless.hold()
    draft, ctx = sample.leaked
    with pytest.raises(errors.NotInTurn, match="has ended"):
        _ = draft.state
    with pytest.raises(errors.NotInTurn, match="has ended"):
        await draft.leak()
    with pytest.raises(errors.NotInTurn, match="has ended"):
        ctx.emit("late")


async def test_attributes_on_self_are_refused(rt: tenure.LocalRuntime) -> None:
    """What is not in the state would be lost with the activation."""
    careless = await rt.create(sample.Careless, "x")
    with pytest.raises(errors.ActionFailed, match=r"self\.cache would be lost: declare `cache` in the state"):
        await careless.keep()


async def test_a_closed_runtime_says_so() -> None:
    """Calls after the end of `async with` are refused."""
    async with tenure.local() as rt:
        counter = await rt.create(sample.Counter, "c")
    with pytest.raises(errors.Unavailable, match="closed"):
        await counter.value()


async def test_turns_run_ahead_of_their_commits() -> None:
    """Protocol 3 [batch_restart]: each on the draft of the one before; one that is dropped takes the later ones along,
    one that fails leaves the draft as it found it; queries see what is committed.
    """
    activation = Activation(sample.Counter, uid="1", agent_id="d/c", epoch=4, stored=None)

    async def turn(number: int, method: str = "increment", arguments: bytes = b"\x80") -> TurnDone:
        return await activation.run(Turn(number, "1", "by_name", method, arguments, 0))

    first = await turn(1)
    assert [signal.id for signal in first.signals] == ["1.4.1.0"]
    assert [(await turn(number)).reply for number in (2, 3)] == [b"\x02", b"\x03"]
    assert (await turn(4, "increment", b"\x81\xa2by\xa1x")).fault is not None
    assert (await turn(5)).reply == b"\x04"
    assert (await turn(6, "value")).reply == b"\x00"
    activation.commit(2)
    assert (await turn(7, "value")).reply == b"\x02"
    activation.drop(3)
    assert (await turn(8)).reply == b"\x03"
    activation.commit(8)
    assert activation.committed_state(sample.CounterState).count == 3


async def test_a_turn_dropped_while_it_runs_is_undone_at_its_end() -> None:
    """The host gives up a turn whose body goes on: what it leaves is undone, and the next turn may come."""
    activation = Activation(sample.Counter, uid="1", agent_id="d/c", epoch=1, stored=None)
    running = asyncio.create_task(activation.run(Turn(1, "1", "action", "twice", b"\x81\xa2by\x01", 0)))
    await asyncio.sleep(0)
    activation.drop(1)
    done = await running
    if done.fault is None:  # it had ended before: then this was an ordinary drop
        activation.drop(1)
    assert (await activation.run(Turn(2, "1", "query", "value", b"", 0))).reply == b"\x00"
    assert (await activation.run(Turn(3, "1", "action", "increment", b"", 0))).reply == b"\x01"


async def test_a_deadline_in_the_past_starts_nothing() -> None:
    """The body is not entered."""
    activation = Activation(sample.Counter, uid="1", agent_id="d/c", epoch=1, stored=None)
    done = await activation.run(Turn(1, "1", "action", "increment", b"", 1))
    assert done.fault is not None
    assert done.fault.code == "DeadlineExceeded"


async def test_stored_states_are_checked() -> None:
    """An unreadable state never becomes an empty one."""
    with pytest.raises(errors.StateUnreadable, match="CounterState cannot be read"):
        Activation(sample.Counter, uid="1", agent_id="d/c", epoch=1, stored=b"\xc1")
    with pytest.raises(errors.StateInvalid, match="`count` should be a valid integer"):
        Activation(sample.Counter, uid="1", agent_id="d/c", epoch=1, stored=b"\x81\xa5count\xa1x")


def test_no_deadline_is_infinite() -> None:
    """A pure run has no deadline."""
    assert math.isinf(tenure.Context(tenure._scope.Scope("a", "b")).deadline)


# --- plain functions in the caller's step (ADR 0021) ------------------------------------------------------------------


class PlainState(tenure.State):
    count: int = 0
    note: str | None = None


class Plain(tenure.Agent[PlainState]):
    """Plain functions only, but one that hands out a coroutine."""

    @tenure.action
    def add(self, ctx: tenure.Context, by: int = 1) -> int:
        self.state.count += by
        ctx.emit("added", by)
        return self.state.count

    @tenure.action
    def huge(self) -> None:
        self.state.count = 1 << 70

    @tenure.action
    def half_of_a_pair(self) -> None:
        self.state.note = "\ud800"

    @tenure.action
    def put_unchecked(self) -> None:
        self.state = PlainState.model_construct(count="no number", note=None)

    @tenure.action
    def later(self, by: int) -> int:
        self.state.note = "before"
        return self._later(by)  # type: ignore[return-value]

    async def _later(self, by: int) -> int:
        await asyncio.sleep(0)
        self.state.count += by
        return self.state.count

    @tenure.action
    async def slowly(self, gate: str) -> int:
        await GATES[gate].wait()
        self.state.count += 100
        return self.state.count

    @tenure.action
    def echo(self, value: Any) -> Any:
        return value

    @tenure.action
    def deadline(self, ctx: tenure.Context) -> float:
        return ctx.deadline - asyncio.get_running_loop().time()

    @tenure.query
    def value(self) -> int:
        return self.state.count


GATES: dict[str, asyncio.Event] = {}


async def test_a_plain_action_waits_for_one_that_runs(rt: tenure.LocalRuntime) -> None:
    """One turn of an agent at a time, in the order of the calls."""
    gate = GATES["one"] = asyncio.Event()
    plain = await rt.create(Plain, "p")
    slow = asyncio.create_task(plain.slowly(gate="one"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    quick = asyncio.create_task(plain.add(by=1))
    await asyncio.sleep(0)
    assert await plain.value() == 0
    gate.set()
    assert (await slow, await quick) == (100, 101)
    assert [signal.data for signal in rt.signals] == [1]


@pytest.mark.parametrize("action", ["huge", "half_of_a_pair", "put_unchecked"])
async def test_what_no_wire_could_carry_is_refused_here_too(rt: tenure.LocalRuntime, action: str) -> None:
    """An agent that passes its tests must run in a cluster."""
    plain = await rt.create(Plain, "p")
    await plain.add(by=5)
    with pytest.raises(errors.StateInvalid, match=f"Plain.{action} left a state that does not fit"):
        await plain.call_by_name(action)
    with pytest.raises(errors.StateInvalid, match=f"Plain.{action} left a state that does not fit"):
        await plain.call(getattr(Plain, action)())
    assert rt.state(plain) == PlainState(count=5)
    assert await plain.add(by=1) == 6


async def test_a_function_that_hands_out_a_coroutine_is_awaited(rt: tenure.LocalRuntime) -> None:
    plain = await rt.create(Plain, "p")
    assert await plain.later(by=2) == 2
    assert rt.state(plain) == PlainState(count=2, note="before")


async def test_caller_and_agent_share_nothing(rt: tenure.LocalRuntime) -> None:
    """A list that both could change would make an agent that is wrong only on one machine."""
    plain = await rt.create(Plain, "p")
    given = [1, [2]]
    taken: Any = await plain.echo(value=given)
    assert taken == given
    assert taken is not given
    assert taken[1] is not given[1]


async def test_arguments_that_no_wire_could_carry_are_refused(rt: tenure.LocalRuntime) -> None:
    plain = await rt.create(Plain, "p")
    with pytest.raises(errors.InvalidArguments, match="add"):
        await plain.add(by=1 << 70)
    with pytest.raises(errors.InvalidArguments, match="echo"):
        await plain.echo(value=object())
    with pytest.raises(errors.InvalidArguments, match="`by`"):
        await plain.add(by="many")  # type: ignore[arg-type]
    assert await plain.value() == 0


async def test_a_plain_action_has_a_deadline_too(rt: tenure.LocalRuntime) -> None:
    plain = await rt.create(Plain, "p")
    assert 4.0 < await plain.call(Plain.deadline(), timeout=5.0) <= 5.0
    with pytest.raises(errors.DeadlineExceeded):
        await plain.call(Plain.add(by=1), timeout=0)
    assert await plain.value() == 0


class CachingState(tenure.State):
    count: int = 0

    @functools.cached_property
    def doubled(self) -> int:
        return self.count * 2


class Caching(tenure.Agent[CachingState]):
    @tenure.action
    def look(self) -> int:
        self.state.count += 1
        return self.state.doubled


async def test_what_a_state_has_worked_out_for_itself_is_no_part_of_it(rt: tenure.LocalRuntime) -> None:
    """A cached property lives beside the fields: committed with them, it would make the state unreadable."""
    caching = await rt.create(Caching, "c")
    assert await caching.look() == 2
    assert rt.state(caching) == CachingState(count=1)
    assert await caching.call_by_name("look") == 2
    assert rt.state(caching).count == 2
