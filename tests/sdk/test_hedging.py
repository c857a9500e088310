"""Two are asked, and one that never answers costs nothing."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tenure._remote.hedging import first_good

Ask = Callable[[], Awaitable[int]]


class Asked:
    """A server whose answer the test gives, or never."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.came = asyncio.Event()
        self.cancelled = False

    async def __call__(self) -> int:
        self.came.set()
        try:
            return await self.answer
        except asyncio.CancelledError:
            self.cancelled = True
            raise


def good(answer: int) -> bool:
    return answer > 0


async def test_the_first_good_answer_wins_and_the_other_ask_is_cancelled() -> None:
    frozen, other = Asked(), Asked()
    asking = asyncio.create_task(first_good([frozen, other], good))
    async with asyncio.timeout(5):
        await other.came.wait()
        other.answer.set_result(7)
        assert await asking == 7
        await asyncio.sleep(0)
    assert frozen.cancelled


async def test_an_answer_that_says_nothing_new_is_the_last_resort() -> None:
    first, second = Asked(), Asked()
    asking = asyncio.create_task(first_good([first, second], good))
    async with asyncio.timeout(5):
        await second.came.wait()
        first.answer.set_result(-1)
        second.answer.set_exception(ConnectionError("gone"))
        assert await asking == -1


async def test_a_failure_does_not_wait_for_the_second_to_begin() -> None:
    first, second = Asked(), Asked()
    first.answer.set_exception(ConnectionError("gone"))
    asking = asyncio.create_task(first_good([first, second], good, apart_s=60.0))
    async with asyncio.timeout(5):
        await second.came.wait()
        second.answer.set_result(3)
        assert await asking == 3


async def test_the_second_is_not_asked_when_the_first_answers_in_time() -> None:
    first, second = Asked(), Asked()
    first.answer.set_result(3)
    assert await first_good([first, second], good, apart_s=60.0) == 3
    assert not second.came.is_set()


async def test_with_no_answer_at_all_the_last_failure_is_raised() -> None:
    asks = [Asked(), Asked()]
    for number, ask in enumerate(asks):
        ask.answer.set_exception(ConnectionError(f"gone {number}"))
    with pytest.raises(ConnectionError, match="gone"):
        await first_good(asks, good)
    with pytest.raises(ValueError, match="nobody"):
        await first_good([], good)


async def test_cancelling_ends_all() -> None:
    asks = [Asked(), Asked()]
    asking = asyncio.create_task(first_good(asks, good))
    async with asyncio.timeout(5):
        await asks[1].came.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.sleep(0)
    assert all(ask.cancelled for ask in asks)
