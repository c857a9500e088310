"""Activations that end their worker: tried alone, after pauses, so that others are harmed once (protocol 3, poison)."""

from __future__ import annotations

from typing import Any

import pytest
from played import PlayedWorker, answer_of
from playing import Scene

import tenure_link
from tenured.core.backoff import Backoff


class Mined(PlayedWorker):
    """Answers no activation: the process ends in it."""

    def send(self, frame: Any) -> None:
        if isinstance(frame, tenure_link.Activate):
            self.frames.append(frame)
        else:
            super().send(frame)


async def lost_in_activation(play: Scene, *, begun: bool = True, no_fault: bool = False) -> None:
    """The worker that the agent comes into ends; the next one is sound."""
    (order,) = await play.until(lambda: play.played.heard(tenure_link.Activate))
    played, play.pool.played = play.played, PlayedWorker()
    played.worker.begun = frozenset({order.turn} if begun else ())
    played.worker.no_fault = no_fault
    play.pool.kill(played.worker, "signal SIGSEGV")


async def test_what_ended_a_worker_as_it_came_is_tried_alone_and_then_lives_among_others(play: Scene) -> None:
    play.pool.played = Mined()
    await play.start(heard=False)
    await lost_in_activation(play)
    await play.until(lambda: play.reports.said)
    assert play.pool.trials == 1
    assert len(play.played.heard(tenure_link.Activate)) == 2, "alone, then among others"
    play.call()
    await play.end()


@pytest.mark.parametrize("how", [{"begun": False}, {"no_fault": True}], ids=["had not begun", "PID 1 had its reasons"])
async def test_who_is_not_to_blame_goes_on_among_others(play: Scene, how: dict[str, bool]) -> None:
    play.pool.played = Mined()
    await play.start(heard=False)
    await lost_in_activation(play, **how)
    await play.until(lambda: play.reports.said)
    assert play.pool.trials == 0


async def test_what_ends_a_worker_alone_backs_off_and_stays_alone(play: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "delay_ns", 1_000_000)
    play.pool.played = Mined()
    await play.start(heard=False)
    await lost_in_activation(play)
    for number in (1, 2, 3):
        play.pool.played = Mined()
        await play.until(lambda number=number: play.pool.trials == number)
        await lost_in_activation(play)
    troubles = await play.until(lambda: [each for each in play.reports.said if "also alone" in str(each)])
    assert "CrashLoopBackOff" in str(troubles)


async def test_a_call_is_not_blamed_for_an_activation(play: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its trial had not begun: what ends the worker before it is the agent's coming."""
    monkeypatch.setattr(Backoff, "delay_ns", 1_000_000)
    await play.start()
    job = play.call()
    turn = await play.turn()
    worker = play.played.worker
    play.pool.played = Mined()
    worker.begun = frozenset({turn.turn})
    play.pool.kill(worker, "gone")
    await play.until(lambda: play.pool.trials == 1)
    await lost_in_activation(play)
    await play.end()
    assert (await answer_of(job)).value
