"""What every runtime of agents must do, as tests that are inherited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from tenure import errors
from tenure._agent import Agent
from tenure._instruction import Instruction
from tenure.signals import Signal
from tenure.testing._conformance_agents import ConformingLedger, ConformingOther, Entry

if TYPE_CHECKING:
    from tenure._state import State

A = TypeVar("A", bound=Agent[Any])
BASE: frozenset[str] = frozenset()
"""Turns, queries, replies, errors: what no runtime may lack has no name."""
DIRECTIVES = ("send", "run", "timers", "stop", "background")
"""Features that are directives: a runtime without one refuses it with NotSupported."""
STEPS = ("steps", "waiting")
"""Features of turns with a journal: a runtime without one refuses them with NotSupported, too."""
FEATURES = frozenset({*DIRECTIVES, *STEPS, "signals", "restart", "call_ids"})
PATIENCE_S = 600.0
"""The timeout of calls whose turns wait, in the runtime's time."""
HANG_S = 0.3
"""The timeout of calls that never end."""


class Subject(Protocol):
    """A runtime under test: a local one, or a client of a cluster."""

    async def create(self, cls: type[A], agent_id: str, *, state: State | Mapping[str, object] | None = None) -> A: ...

    def agent(self, cls: type[A], agent_id: str) -> A: ...

    async def call_by_name(
        self, agent_id: str, name: str, arguments: Mapping[str, object] | None = None, /
    ) -> object: ...


class Conformance:
    """Inherit it in a test module, give it a runtime, and say what that runtime can:

        class TestMine(Conformance):
            features = frozenset({"send", "timers", "signals"})

            @pytest.fixture
            async def subject(self):
                async with MyRuntime() as runtime:
                    yield runtime

    Features: "send", "run", "timers", "stop", "background" (directives), "steps" (`ctx.step`), "waiting" (`ctx.sleep`,
    `ctx.wait_for`, `ctx.call`): what is missing must be refused, never ignored; "signals" (override `emitted`),
    "restart" (override `restart`), "call_ids" (override `call_twice`). With "timers" or "waiting" override `advance`,
    and with any directive or "waiting" `settled`. The tests are coroutines, for pytest-asyncio in auto mode or another
    plugin that runs them; agents have fresh names, so that one cluster can serve all tests.
    """

    features: ClassVar[frozenset[str]] = BASE
    prefix: ClassVar[str] = "conforming"
    minute: ClassVar[float] = 60.0
    """Seconds that the tests call a minute: less, where nobody can move the time."""
    patience: ClassVar[float] = 0.0
    """Seconds for what was sent to arrive, after `settled`: for runtimes that cannot tell when it has."""
    _number: ClassVar[int] = 0

    # --- what a subclass says ---

    async def emitted(self, subject: Any) -> Sequence[Signal]:
        """All signals so far. Of "signals"."""
        raise NotImplementedError

    async def settled(self, subject: Any) -> None:
        """Wait until everything that was sent has arrived. Of all directives, and "waiting"."""
        raise NotImplementedError

    async def advance(self, subject: Any, seconds: float) -> None:
        """Let time pass. Of "timers", "waiting"."""
        raise NotImplementedError

    async def restart(self, subject: Any) -> None:
        """Let the runtime end as if its power was cut, and begin again. Of "restart"."""
        raise NotImplementedError

    async def call_twice(self, subject: Any, agent: Agent[Any], instruction: Instruction[Any]) -> tuple[object, object]:
        """Send one call, and once more under the same id; both replies. Of "call_ids"."""
        raise NotImplementedError

    async def ledger(self, subject: Subject, **state: object) -> ConformingLedger:
        """A new agent that serves."""
        Conformance._number += 1
        made = await subject.create(ConformingLedger, f"{self.prefix}-{Conformance._number}", state=state or None)
        assert await made.total() == state.get("total", 0)
        return made

    async def until(self, subject: Any, query: Callable[[], Awaitable[object]], value: object) -> None:
        """Wait until a query has this answer. Raises AssertionError when it has not within `patience`."""
        began = asyncio.get_running_loop().time()
        await self.settled(subject)
        while (found := await query()) != value:
            late = asyncio.get_running_loop().time() - began >= self.patience
            assert not late, f"{value!r} was expected, and it stays {found!r}"
            await asyncio.sleep(0)

    # --- turns ---

    async def test_a_turn_commits_as_one(self, subject: Subject) -> None:
        """The next turn and the next query see all of it."""
        ledger = await self.ledger(subject, total=4)
        assert await ledger.add(by=3) == 7
        assert await ledger.write(text="a") == 2
        assert (await ledger.total(), await ledger.lines()) == (7, ["a begins", "a ends"])

    async def test_a_turn_that_fails_leaves_nothing(self, subject: Subject) -> None:
        """Not of itself, not of what it ran inline; the caller learns what was raised, and the agent goes on."""
        ledger = await self.ledger(subject)
        await ledger.write(text="a")
        error = await refused(ledger.write_and_fail(text="b"), errors.ActionFailed)
        assert "ValueError" in str(error)
        assert "no luck with b" in str(error)
        assert error.outcome == "not_applied"
        assert (await ledger.total(), await ledger.lines()) == (0, ["a begins", "a ends"])
        assert await ledger.add() == 1

    async def test_one_turn_at_a_time(self, subject: Subject) -> None:
        """Turns that pause do not mix."""
        ledger = await self.ledger(subject)
        await asyncio.gather(*(ledger.write(text=str(number), pauses=5) for number in range(10)))
        lines = await ledger.lines()
        assert len(lines) == 20
        for begins, ends in zip(lines[::2], lines[1::2], strict=True):
            assert (begins.split()[1], ends.split()[1]) == ("begins", "ends")
            assert begins.split()[0] == ends.split()[0]

    async def test_turns_of_one_caller_keep_their_order(self, subject: Subject) -> None:
        """Each waits for the one before."""
        ledger = await self.ledger(subject)
        for number in range(5):
            await ledger.write(text=str(number))
        assert (await ledger.lines())[::2] == [f"{number} begins" for number in range(5)]

    async def test_agents_do_not_wait_for_each_other(self, subject: Subject) -> None:
        """One that hangs hurts nobody else."""
        stuck, free = await self.ledger(subject), await self.ledger(subject)
        call = asyncio.create_task(stuck.call(ConformingLedger.hang(), timeout=HANG_S))
        assert await free.add() == 1
        await refused(call, errors.DeadlineExceeded)

    async def test_a_deadline_cancels_and_changes_nothing(self, subject: Subject) -> None:
        """Of a turn that never ends nothing is left, and the agent goes on. Queries beside it see what was before."""
        ledger = await self.ledger(subject, total=3)
        call = asyncio.create_task(ledger.call(ConformingLedger.hang(), timeout=HANG_S))
        while not call.done():
            assert (await ledger.total(), await ledger.lines()) == (3, [])
        await refused(call, errors.DeadlineExceeded)
        assert (await ledger.add(), await ledger.lines()) == (4, [])

    # --- queries ---

    async def test_a_query_changes_nothing(self, subject: Subject) -> None:
        """Not by assignment, not in place, not by a signal."""
        ledger = await self.ledger(subject)
        await refused(ledger.sneak(), errors.ActionFailed)
        await refused(ledger.shout(), errors.ActionFailed)
        await ledger.sneak_in_place()
        assert await ledger.lines() == []
        assert await ledger.write(text="a") == 2
        assert (await ledger.total(), await ledger.lines()) == (0, ["a begins", "a ends"])

    # --- what is refused ---

    async def test_an_argument_that_does_not_fit_is_named(self, subject: Subject) -> None:
        """Of the wrong type, unknown, missing: by reference and by name. Nothing runs."""
        ledger = await self.ledger(subject)
        wrong: Any = ledger
        for attempt, name in (
            (lambda: wrong.add(by="many"), "by"),
            (lambda: wrong.add(bye=1), "bye"),
            (wrong.write, "text"),
            (lambda: subject.call_by_name(ledger.id, "add", {"by": "many"}), "by"),
            (lambda: subject.call_by_name(ledger.id, "add", {"bye": 1}), "bye"),
            (lambda: subject.call_by_name(ledger.id, "write", {}), "text"),
        ):
            assert name in str(await refused(attempt(), errors.InvalidArguments))
        assert await ledger.total() == 0

    async def test_an_unknown_method_lists_near_ones(self, subject: Subject) -> None:
        """By name, since a reference has none that is unknown."""
        ledger = await self.ledger(subject)
        assert "write" in str(await refused(subject.call_by_name(ledger.id, "wriet"), errors.UnknownMethod))

    async def test_nobody_is_not_found(self, subject: Subject) -> None:
        """Nor is an agent made by being called."""
        nobody = subject.agent(ConformingLedger, f"{self.prefix}-nobody")
        await refused(nobody.add(), errors.NotFound)
        await refused(nobody.total(), errors.NotFound)

    async def test_an_agent_is_created_once(self, subject: Subject) -> None:
        """Again with its class: it is left as it is; with another one: Conflict."""
        ledger = await self.ledger(subject)
        await ledger.add(by=5)
        again = await subject.create(ConformingLedger, ledger.id)
        assert await again.total() == 5
        await refused(subject.create(ConformingOther, ledger.id), errors.Conflict)
        assert await ledger.total() == 5

    async def test_a_state_that_does_not_fit_is_not_kept(self, subject: Subject) -> None:
        """Numbers beyond 64 bits, values that the class refuses, lists that grew too long; also half-way."""
        ledger = await self.ledger(subject, total=2)
        for instruction in (ConformingLedger.overflow(), ConformingLedger.misfit(), ConformingLedger.too_long()):
            await refused(ledger.call(instruction), errors.StateInvalid, errors.ActionFailed)
            assert (await ledger.total(), await ledger.lines()) == (2, [])
        assert await ledger.add() == 3

    # --- values ---

    async def test_values_keep_their_types(self, subject: Subject) -> None:
        """Models, decimals and times, in and out."""
        ledger = await self.ledger(subject)
        entry = Entry(text="ü", amount=Decimal("0.10"), at=datetime(2024, 2, 29, 12, tzinfo=UTC))
        assert await ledger.entry(entry=entry, tags=("a", "b")) == {"a": entry, "b": entry}
        assert await ledger.call(ConformingLedger.add(by=2)) == 2
        assert await ledger.send(ConformingLedger.add(by=2)) is None  # type: ignore[func-returns-value]
        assert await subject.call_by_name(ledger.id, "total") == 4

    # --- effects ---

    async def test_what_a_runtime_cannot_do_it_refuses(self, subject: Subject) -> None:
        """With the name of the directive, before anything of the turn is kept; never silently."""
        ledger = await self.ledger(subject)
        for feature in DIRECTIVES:
            if feature not in self.features:
                asked = ledger.call(ConformingLedger.ask_for(directive=feature))
                assert "ask_for" in str(await refused(asked, errors.NotSupported))
        for feature, instruction in (("steps", ConformingLedger.pay()), ("waiting", ConformingLedger.nap())):
            if feature not in self.features:
                assert feature[:4] in str(await refused(ledger.call(instruction), errors.NotSupported))
        assert await ledger.total() == 0

    async def test_signals_leave_with_the_commit(self, subject: Subject) -> None:
        """In the order of their asking, of turns that went well, and of no other."""
        if "signals" not in self.features:
            return
        ledger = await self.ledger(subject)
        await ledger.write(text="a")
        await refused(ledger.write_and_fail(text="b"), errors.ActionFailed)
        await ledger.write(text="c")
        own = [signal for signal in await self.emitted(subject) if signal.source.endswith(ledger.id)]
        assert [(signal.type, signal.data) for signal in own] == [
            (f"ledger.{what}", {"text": text}) for text in "ac" for what in ("begun", "ended")
        ]
        assert len({signal.id for signal in own}) == 4

    async def test_instructions_follow_the_commit(self, subject: Subject) -> None:
        """`Send` and `RunInstruction`: each in a turn of its own, once."""
        for feature in ("send", "run"):
            if feature in self.features:
                ledger = await self.ledger(subject)
                await ledger.ask_for(directive=feature)
                await self.until(subject, ledger.total, 11)

    async def test_a_delay_fires_once_in_its_time(self, subject: Subject) -> None:
        """Not before, and not again."""
        if "timers" not in self.features:
            return
        ledger = await self.ledger(subject)
        await ledger.ask_for(directive="timers", seconds=self.minute)
        await self.advance(subject, self.minute * 0.5)
        assert await ledger.total() == 1
        await self.advance(subject, self.minute * 0.6)
        await self.until(subject, ledger.total, 11)
        await self.advance(subject, self.minute * 2)
        assert await ledger.total() == 11

    async def test_an_agent_can_end_itself(self, subject: Subject) -> None:
        """After its turn, whose reply still leaves."""
        if "stop" not in self.features:
            return
        ledger = await self.ledger(subject)
        await ledger.ask_for(directive="stop")
        await self.settled(subject)
        await refused(ledger.total(), errors.NotFound)

    # --- steps and waits ---

    async def test_a_turn_with_steps_is_one_turn(self, subject: Subject) -> None:
        """Results keep their types, keys are different, a step that fails is told, and all is one commit."""
        if "steps" not in self.features:
            return
        ledger = await self.ledger(subject)
        first, second = await ledger.pay(text="ü"), await ledger.pay(text="ü")
        assert len({*first, *second}) == 4, "each step of each turn has a key of its own"
        assert await ledger.total() == 4
        error = await refused(ledger.pay(text=""), errors.StepFailed)
        assert "nothing to pay for" in str(error)
        assert error.outcome == "unknown", "its first step is done"
        assert await ledger.total() == 4

    async def test_a_sleep_takes_its_time(self, subject: Subject) -> None:
        """Its turn keeps the agent to itself, queries see what was before, and what comes meanwhile follows."""
        if "waiting" not in self.features:
            return
        ledger = await self.ledger(subject)
        nap = asyncio.create_task(ledger.call(ConformingLedger.nap(seconds=self.minute), timeout=PATIENCE_S))
        await self.advance(subject, self.minute * 0.5)
        after = asyncio.create_task(ledger.call(ConformingLedger.add(by=5), timeout=PATIENCE_S))
        assert await ledger.total() == 0
        assert (nap.done(), after.done()) == (False, False)
        await self.advance(subject, self.minute * 0.6)
        assert (await nap, await after) == (1, 6)

    async def test_a_signal_ends_a_wait(self, subject: Subject) -> None:
        """The first one that fits; without one, the time does."""
        if not {"waiting", "send"} <= self.features:
            return
        ledger, other = await self.ledger(subject), await self.ledger(subject)
        waits = ConformingLedger.wait_after(other=other.id, seconds=self.minute * 2)
        for approved, text in ((True, "yes"), (False, "")):
            before = await other.total()
            waiting = asyncio.create_task(ledger.call(waits, timeout=PATIENCE_S))
            while await other.total() == before:  # the turn was accepted before it asked for that
                await self.settled(subject)
            if approved:
                await other.approve(to=ledger.id, text=text)
                await self.settled(subject)
            else:
                await self.advance(subject, self.minute * 2.1)
            assert await waiting == text

    async def test_a_turn_waits_for_another_agents_reply(self, subject: Subject) -> None:
        """Once, with its errors; nobody waits for himself, and two who ask each other do not wait for ever."""
        if "waiting" not in self.features:
            return
        ledger, other = await self.ledger(subject), await self.ledger(subject)
        assert await ledger.let_add(other=other.id, by=3) == 3
        assert (await ledger.total(), await other.total()) == (3, 3)
        assert "no luck" in str(await refused(ledger.let_fail(other=other.id), errors.ActionFailed))
        assert ledger.id in str(await refused(ledger.let_add(other=ledger.id, by=1), errors.WaitCycle))
        assert await ledger.add() == 4
        crossing = (
            one.call(ConformingLedger.let_add(other=to.id, by=1)) for one, to in ((ledger, other), (other, ledger))
        )
        ends = await asyncio.gather(*crossing, return_exceptions=True)
        failed = [end for end in ends if isinstance(end, BaseException)]
        assert len(failed) <= 1, ends
        assert all(isinstance(end, errors.WaitCycle) for end in failed), ends

    async def test_an_accepted_turn_survives(self, subject: Subject) -> None:
        """It ends after the runtime has begun again."""
        if not {"waiting", "restart"} <= self.features:
            return
        ledger = await self.ledger(subject)
        nap = asyncio.create_task(ledger.call(ConformingLedger.nap(seconds=self.minute), timeout=PATIENCE_S))
        await self.advance(subject, self.minute * 0.5)
        await self.restart(subject)
        await self.advance(subject, self.minute * 0.6)
        await asyncio.gather(nap, return_exceptions=True)  # a cluster's client hears of it, a local caller does not
        await self.until(subject, ledger.total, 1)

    # --- what survives ---

    async def test_what_was_acknowledged_survives(self, subject: Subject) -> None:
        """And the reference leads to it."""
        if "restart" not in self.features:
            return
        ledger = await self.ledger(subject)
        await ledger.add(by=5)
        await refused(ledger.write_and_fail(text="b"), errors.ActionFailed)
        if "timers" in self.features:
            await ledger.ask_for(directive="timers", seconds=self.minute)
        await self.restart(subject)
        assert await ledger.add() == 6 + ("timers" in self.features)
        if "timers" in self.features:
            await self.advance(subject, self.minute * 1.1)
            await self.until(subject, ledger.total, 17)

    async def test_one_call_id_has_one_effect(self, subject: Subject) -> None:
        """The second answer is the recorded one."""
        if "call_ids" not in self.features:
            return
        ledger = await self.ledger(subject)
        assert await self.call_twice(subject, ledger, ConformingLedger.add(by=5)) == (5, 5)
        assert await ledger.total() == 5


async def refused(attempt: Any, *kinds: type[errors.CallError]) -> errors.CallError:
    """The error that it ended with. Raises AssertionError if it ended well; another error goes through."""
    try:
        result = await attempt
    except kinds as error:
        return error
    raise AssertionError(f"{' or '.join(kind.__name__ for kind in kinds)} was expected, and it returned {result!r}")
