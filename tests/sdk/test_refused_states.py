"""A validator is user code, and may refuse today what it accepted yesterday: that ends a turn, and nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest
from sdk_daemon import AGENTS, running

import tenure
from tenure._turn import Activation
from tenure_link import Activate, Activated, Drop, Turn, TurnDone

PICKY = (
    AGENTS
    + """
import pydantic

class PickyState(tenure.State):
    count: int = 0

    @pydantic.field_validator("count")
    @classmethod
    def checked(cls, count: int) -> int:
        if os.path.exists("refuse"):
            raise ValueError("not today")
        return count

class Picky(tenure.Agent[PickyState]):
    @tenure.action
    def add(self) -> int:
        self.state.count += 1
        return self.state.count

    @tenure.query
    def value(self) -> int:
        return self.state.count
"""
)


class Mood:
    """What the validator does next."""

    error: BaseException | None = None
    only: int | None = None
    """It refuses this value only."""


class PickyState(tenure.State):
    count: int = 0

    @pydantic.field_validator("count")
    @classmethod
    def checked(cls, count: int) -> int:
        if Mood.error is not None and Mood.only in (None, count):
            raise Mood.error
        return count


class Picky(tenure.Agent[PickyState]):
    """Counts."""

    @tenure.action
    def add(self, by: int = 1) -> int:
        self.state.count += by
        return self.state.count

    @tenure.action
    async def fail(self, refused_next: bool = False) -> None:
        self.state.count = 100
        if refused_next:
            Mood.error = ValueError("not today")
        raise RuntimeError("as asked")

    @tenure.query
    def value(self) -> int:
        return self.state.count


@pytest.fixture(autouse=True)
def calm() -> Iterator[None]:
    yield
    Mood.error = Mood.only = None


REFUSALS = pytest.mark.parametrize("error", [ValueError("not today"), KeyError("not today"), SystemExit(4)], ids=repr)


async def turn(activation: Activation, number: int, method: str, arguments: bytes = b"\x80") -> TurnDone:
    return await activation.run(Turn(number, "1", "by_name", method, arguments, 0))


@REFUSALS
async def test_a_dropped_turn_whose_undo_is_refused_harms_later_turns_only(error: BaseException) -> None:
    """[batch_restart]: nobody sees what the dropped turn left; turns fail until the state is accepted again."""
    activation = Activation(Picky, uid="1", agent_id="d/p", epoch=1, stored=b"\x81\xa5count\x03")
    assert (await turn(activation, 1, "add")).reply == b"\x04"
    Mood.error = error
    activation.drop(1)
    assert activation.settled
    for number, method in ((2, "add"), (3, "value"), (4, "fail")):
        fault = (await turn(activation, number, method)).fault
        assert fault is not None
        assert "not today" in fault.message or "SystemExit" in fault.message
    Mood.error = None
    assert (await turn(activation, 5, "value")).reply == b"\x03"
    assert (await turn(activation, 6, "add")).reply == b"\x04"


@REFUSALS
async def test_a_failed_turn_whose_undo_is_refused_is_told_its_own_fault(error: BaseException) -> None:
    activation = Activation(Picky, uid="1", agent_id="d/p", epoch=1, stored=b"\x81\xa5count\x03")
    failed = await turn(activation, 1, "fail", b"\x81\xacrefused_next\xc3")
    assert failed.fault is not None
    assert "as asked" in failed.fault.message
    Mood.error = error
    assert (await turn(activation, 2, "add")).fault is not None
    Mood.error = None
    assert (await turn(activation, 3, "add")).reply == b"\x04"


async def test_other_values_mend_what_is_refused() -> None:
    """`tenure state put` is the way out for whoever operates it."""
    activation = Activation(Picky, uid="1", agent_id="d/p", epoch=1, stored=b"\x81\xa5count\x03")
    await turn(activation, 1, "add")
    Mood.error, Mood.only = ValueError("not today"), 3
    activation.drop(1)
    assert (await turn(activation, 2, "add")).fault is not None
    assert (await activation.replace(3, b"\x81\xa5count\x07")).fault is None
    assert (await turn(activation, 4, "add")).reply == b"\x08"


async def test_in_one_process() -> None:
    """The same by `tenure.local()`, whose plain actions run in their caller's step."""
    async with tenure.local() as rt:
        agent: Any = await rt.create(Picky, "p", state={"count": 3})
        with pytest.raises(tenure.errors.ActionFailed, match="as asked"):
            await agent.fail(refused_next=True)
        for called in (agent.add, agent.value):
            with pytest.raises(tenure.errors.StateInvalid, match="not today"):
                await called()
        Mood.error = None
        assert await agent.value() == 3
        assert await agent.add() == 4


async def test_in_a_worker(tmp_path: Path) -> None:
    """A real one: whoever asks the agent is answered, and its neighbour notices nothing."""
    async with running(tmp_path, PICKY) as daemon:
        _, worker = await daemon.welcome()
        worker.send(Activate("8", 1, "shop/n", "Counter", turn=1_000))
        await worker.next(Activated)
        await worker.activate(class_name="Picky")
        ahead = worker.turn("add")
        assert (await worker.next(TurnDone)).fault is None
        (tmp_path / "refuse").touch()
        worker.send(Drop(ahead, "7"))
        for method in ("add", "value"):
            asked = worker.turn(method)
            fault = (await worker.next(TurnDone, lambda done, asked=asked: done.turn == asked)).fault  # type: ignore[misc]
            assert fault is not None
            assert (fault.code, "not today" in fault.message) == ("StateInvalid", True)
        worker.send(Turn(2_000, "8", "by_name", "value", b"\x80", 0))
        assert (await worker.next(TurnDone)).reply == b"\x00"
        (tmp_path / "refuse").unlink()
        assert await worker.do("value") == 0
        assert await worker.do("add") == 1
