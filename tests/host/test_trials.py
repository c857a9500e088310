"""Which trials of one host run at a time (protocol 3, poison [one_trial])."""

from __future__ import annotations

import asyncio

from playing import Scene

from tenured.host.trialroom import TrialRoom


async def entered(room: TrialRoom, *, alone: bool) -> asyncio.Task[None]:
    """Has asked to be let in; done: is in."""
    task = asyncio.ensure_future(room.enter(alone=alone))
    for _ in range(3):
        await asyncio.sleep(0)
    return task


async def test_first_tries_share_and_a_counted_suspect_is_alone() -> None:
    """In the order of their coming: neither waits for ever."""
    room = TrialRoom()
    first, second = await entered(room, alone=False), await entered(room, alone=False)
    counted = await entered(room, alone=True)
    third = await entered(room, alone=False)
    assert [one.done() for one in (first, second, counted, third)] == [True, True, False, False]
    room.leave()
    room.leave()
    await asyncio.sleep(0)
    assert [one.done() for one in (counted, third)] == [True, False]
    room.leave()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert third.done()


async def test_whoever_gives_up_waiting_holds_up_nobody() -> None:
    """Also in the moment in which he is let in."""
    room = TrialRoom()
    await room.enter(alone=False)
    counted, later = await entered(room, alone=True), await entered(room, alone=False)
    counted.cancel()
    await asyncio.wait({counted})
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert later.done()
    counted = await entered(room, alone=True)
    room.leave()
    room.leave()
    counted.cancel()
    await asyncio.wait({counted})
    assert (await entered(room, alone=True)).done()


async def test_a_try_is_not_counted_before_its_turn_has_come(play: Scene) -> None:
    """[count_first, one_trial]: else the end of another agent's trial, with the host, would count against it."""
    await play.start()
    await play.site.trials.enter(alone=True)  # another agent's
    answer = play.send(1)
    await play.turn()
    play.lose_worker()
    await play.quiet()
    assert (play.book().boxes.tries, play.pool.trials) == ({}, 0)
    play.site.trials.leave()
    await play.end()
    async with asyncio.timeout(5):
        await answer
    assert play.pool.trials == 1
    async with asyncio.timeout(5):
        await play.site.trials.enter(alone=True)  # it has left


async def test_who_waits_for_his_trial_is_answered_when_the_activation_ends(play: Scene) -> None:
    """Its sender sends it to the next holder."""
    await play.start()
    await play.site.trials.enter(alone=True)
    answer = play.send(1)
    await play.turn()
    play.lose_worker()
    await play.quiet()
    await play.holder.stop(finish_turn=False)
    async with asyncio.timeout(5):
        assert (await answer).code == "NotReady"
    play.site.trials.leave()
    async with asyncio.timeout(5):
        await play.site.trials.enter(alone=True)
