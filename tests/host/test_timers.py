"""Timers and cron (protocol 1, cluster time): once, whatever happens in between."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from played import answer_of
from playing import FAIL, Scene

import tenure_link
from tenure_proto.v1.registry_pb2 import AgentSpec, Delivery
from tenured.core.signals import Settled, Verdict
from tenured.host.alarms import Alarms
from tenured.host.timerjobs import TimerJob

ONCE = AgentSpec(delivery=Delivery(max_attempts=1))
PAUSE = AgentSpec(on_exhausted="Pause", delivery=Delivery(max_attempts=1))
PLAN = tenure_link.Due("remind", 150.0)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not begin is tried again at once."""
    monkeypatch.setattr("tenured.host.alarms.AGAIN_S", 0.01)
    monkeypatch.setattr("tenured.host.owing.AGAIN_S", 0.01)


async def planned(play: Scene, *plans: tenure_link.Due, **row: Any) -> None:
    """An agent whose state plans this."""
    await play.start(**row)
    job = play.call()
    await play.end(due=plans or (PLAN,))
    await answer_of(job)


def reach(play: Scene, at: float) -> None:
    """Time goes on; a timer of the loop would have looked then."""
    play.lease.cluster_now = play.lease.cluster_time = at
    play.holder._parts.alarms._look()


async def test_a_timer_runs_once(play: Scene) -> None:
    """Protocol 1 [timer_in_commit]: its plan leaves the state with the commit of its turn."""
    await planned(play)
    reach(play, 149.0)
    await play.quiet()
    assert play.no_turn()
    reach(play, 150.0)
    turn = await play.turn()
    assert (turn.kind, turn.method, turn.at) == ("timer", "remind", 150.0)
    reach(play, 151.0)
    await play.end(turn, due=())
    await play.until(lambda: play.book().wake.cluster is None)
    reach(play, 152.0)
    await play.quiet()
    assert play.no_turn()


async def test_the_record_says_when_it_is_to_be_awake(play: Scene) -> None:
    """Protocol 2 [wake_highest]: the earliest of each clock."""
    await planned(play, PLAN, tenure_link.Due("early", 120.0), tenure_link.Due("daily", 2e9, wall=True))
    assert (play.book().wake.cluster, play.book().wake.wall) == (120.0, 2e9)


async def test_a_timer_whose_worker_is_lost_runs_again_and_counts_once(play: Scene) -> None:
    """Protocol 1 [timer_in_commit]: no commit, so it is due still; alone this time."""
    await planned(play)
    reach(play, 150.0)
    await play.turn()
    play.lose_worker()
    await play.until(lambda: not play.played.worker.lost)
    play.pool.played.hooked = None
    turn = await play.turn()
    assert (turn.kind, play.pool.trials) == ("timer", 1)
    await play.end(turn, due=())
    await play.until(lambda: play.book().wake.cluster is None)
    await play.quiet()
    assert play.no_turn()
    assert not play.book().boxes.tries


async def test_cron_moves_on_with_its_turn(play: Scene) -> None:
    """Protocol 1 [cron_in_commit]: the next instant is in the commit of the run before it."""
    await planned(play, tenure_link.Due("tick", 1000.0, wall=True))
    turn = await play.turn()
    assert turn.at == 1000.0
    await play.end(turn, due=(tenure_link.Due("tick", 4e9, wall=True),))
    await play.until(lambda: play.book().wake.wall == 4e9)
    await play.quiet()
    assert play.no_turn()


async def test_nothing_fires_under_a_lapsed_lease(play: Scene) -> None:
    """Protocol 1, host 3; and it fires once the lease is back, without another event."""
    await planned(play)
    play.lease.held = False
    reach(play, 150.0)
    await play.quiet()
    assert play.no_turn()
    play.lease.held = True
    await play.end(due=())


async def test_a_run_that_is_refused_is_not_forgotten(play: Scene) -> None:
    """The lease lapsed between its time and its turn."""
    await planned(play)
    play.lease.cluster_now = 150.0
    play.holder._parts.alarms._look()
    turn = await play.turn()
    play.lease.held = False
    play.holder._parts.runner.lineup.cut(play.holder._parts.runner.lineup.flights[0], keep=True)
    play.holder._parts.runner.pump()
    await play.quiet()
    play.lease.held = True
    again = await play.turn()
    assert again.at == turn.at


async def test_a_timer_waits_while_a_turn_is_owed(play: Scene) -> None:
    """Protocol 9: nothing else changes the state; then it runs, once."""
    await planned(play)
    play.call(2)
    owed = await play.accepted()
    reach(play, 150.0)
    await play.quiet()
    assert play.no_turn()
    await play.end(owed)
    turn = await play.end(due=())
    assert turn.kind == "timer"
    await play.quiet()
    assert play.no_turn()


async def test_a_timer_that_waits_is_not_fired_again_in_another_worker() -> None:
    """Protocol 1 [timer_in_commit]: its run goes on waiting in the agent's queue; one that was dropped does not."""
    fired: list[TimerJob] = []
    lease: Any = SimpleNamespace(cluster_now=150.0, held=True)
    alarms = Alarms(lease, fired.append, lambda: False, cast(Any, lambda callback: callback))
    alarms.begin()
    alarms.committed((PLAN,))
    assert len(fired) == 1
    alarms.stop()
    alarms.begin()
    assert len(fired) == 1
    alarms.stop()
    fired[0].cut_off("NotReady", "the agent is in no worker")
    alarms.begin()
    assert len(fired) == 2
    alarms.stop()


async def test_the_turn_of_a_timer_that_takes_steps_is_run_once(play: Scene) -> None:
    """Protocol 9, rule 1 [accept_first]: its plan stays until its end, and starts nothing beside it; by the next holder
    neither.
    """
    await planned(play)
    reach(play, 150.0)
    turn = await play.accepted()
    reach(play, 151.0)
    await play.quiet()
    assert play.no_turn()
    await play.take_over(2)
    play.holder._parts.alarms.due = (PLAN,)
    reach(play, 152.0)
    again = await play.turn()
    assert (again.key, again.accepted) == (turn.key, True)
    await play.end(again, due=())
    await play.quiet()
    assert play.no_turn()


async def test_a_paused_agent_runs_no_timer(play: Scene) -> None:
    """Protocol 3, pause [pause_refuse]: it keeps its order; then it runs."""
    await planned(play, more=PAUSE)
    play.send(1)
    play.played.done(await play.turn(), fault=FAIL)
    await play.until(lambda: play.book().boxes.held)
    reach(play, 150.0)
    await play.quiet()
    assert play.no_turn()
    assert not (await answer_of(play.control("skip"))).HasField("error")
    turn = await play.end(due=())
    assert turn.kind == "timer"


async def test_a_timer_that_fails_for_good_is_one_dead_letter(play: Scene) -> None:
    """The plan is taken off by the commit of the dead letter: it does not fire again for ever."""
    await planned(play, more=ONCE)
    reach(play, 150.0)
    play.played.done(await play.turn(), fault=FAIL, state=b"\x80", due=())
    (letter,) = await play.until(lambda: list(play.book().boxes.letters.values()))
    assert letter.what == "timer remind"
    await play.quiet()
    assert play.no_turn()


async def test_a_timer_whose_turn_cannot_be_kept_is_one_dead_letter(
    play: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OutboxFull: only the worker can take the plan off, so it is asked to, without a run."""
    await planned(play, more=ONCE)
    monkeypatch.setattr("tenured.core.boxdraft.MAX_OUT", 0)
    reach(play, 150.0)
    work = tenure_link.Outgoing(to="shop/b", work=b"\x80")
    await play.end(due=(), sends=(work,))
    skip = await play.turn()
    assert (skip.kind, skip.arguments) == ("timer", b"skip")
    await play.end(skip, due=())
    (letter,) = await play.until(lambda: list(play.book().boxes.letters.values()))
    assert letter.code == "OutboxFull"
    await play.quiet()
    assert play.no_turn()


async def test_a_poisonous_step_of_a_timer_takes_its_plan_off(play: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protocol 3, poison [count]: or it would be due again, and again."""

    async def at_once(holder: Any, reason: str, message: str) -> None:
        holder._mailbox.refuse("NotReady", message)

    monkeypatch.setattr("tenured.host.holder.Holder._back_off", at_once)
    await planned(play)
    reach(play, 150.0)
    await play.accepted()
    play.lose_worker()
    for _ in range(3):
        await play.turn()
        play.lose_worker()
    skip = await play.turn()
    assert (skip.kind, skip.arguments, skip.accepted) == ("timer", b"skip", True)
    await play.end(skip, due=())
    (letter,) = await play.until(lambda: list(play.book().boxes.letters.values()))
    assert letter.code == "WorkerCrashed"
    assert play.book().wake.cluster is None
    assert (await answer_of(play.send(1, void=True))) == Settled(Verdict.NOT_APPLIED)
