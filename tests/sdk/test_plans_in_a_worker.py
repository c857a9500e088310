"""What a worker tells its host of an agent's plans."""

from __future__ import annotations

import msgspec

import tenure
from tenure.worker.resident import Resident
from tenure_link import Activate, Turn, TurnDone


class Snooze(tenure.Agent[tenure.State]):
    """Plans one thing at a time."""

    @tenure.action
    def remind(self, ctx: tenure.Context) -> None:
        ctx.after(60.0, Snooze.ring(), name="ring")

    @tenure.action
    def forget(self, ctx: tenure.Context) -> None:
        ctx.cancel("ring")

    @tenure.action
    def ring(self) -> None:
        """Nothing is left of it."""


def turn(number: int, method: str, at: float = 0.0, kind: str = "action") -> Turn:
    arguments = b"" if kind == "timer" else msgspec.msgpack.encode({})
    return Turn(number, "7", kind, method, arguments, deadline_ns=2**62, at=at)  # type: ignore[arg-type]


async def test_that_nothing_is_planned_is_told_again_after_a_dropped_turn() -> None:
    """The host takes silence for "as before": a plan that is gone would be due again (protocol 1 [timer_in_commit])."""
    made = Resident(Snooze, Activate("7", 1, "shop/snooze", "Snooze"), lambda _: None)

    async def run(number: int, method: str, at: float = 0.0, kind: str = "action") -> TurnDone:
        return await made.run(turn(number, method, at, kind))

    planned = (await run(1, "remind")).due
    assert planned is not None
    made.commit(1)
    for number, method, at, kind in ((2, "forget", 0.0, "action"), (4, "ring", planned[0].at, "timer")):
        assert (await run(number, method, at, kind)).due == ()
        made.drop(number)
        assert (await run(number + 1, method, at, kind)).due == ()
        made.drop(number + 1)
