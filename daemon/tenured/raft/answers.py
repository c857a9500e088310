"""The futures of those who wait for an outcome, on the event loop. Each gets one within its time."""

import asyncio
from collections.abc import Callable
from functools import partial

from tenured.raft.interface import Outcome, Unknown

Submit = Callable[[Callable[[Outcome], None]], None]
"""Hands what to call with the outcome to the engine."""


class Answers:
    """All who wait."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[Outcome]] = set()

    def ask(self, submit: Submit) -> asyncio.Future[Outcome]:
        """What `submit` asks for will be the future's result."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        submit(partial(_settle, future))
        return future

    def give_up(self, reason: str) -> None:
        """Nobody will hear more."""
        for future in list(self._waiting):
            _settle(future, Unknown(reason))


async def of_one(future: asyncio.Future[Outcome], timeout_s: float) -> Outcome:
    """The outcome, for the only one who waits: an answer that comes later is dropped."""
    timer = asyncio.get_running_loop().call_later(timeout_s, _settle, future, _late(timeout_s))
    try:
        return await future
    finally:
        timer.cancel()
        future.cancel()  # nobody waits any more


async def of_many(future: asyncio.Future[Outcome], timeout_s: float) -> Outcome:
    """The outcome, for one of those who wait; the future is left alone."""
    done, _ = await asyncio.wait((future,), timeout=timeout_s)
    return future.result() if done else _late(timeout_s)


def _late(timeout_s: float) -> Unknown:
    return Unknown(f"no answer within {timeout_s:g} s")


def _settle(future: asyncio.Future[Outcome], outcome: Outcome) -> None:
    """The first answer counts."""
    if not future.done():
        future.set_result(outcome)
