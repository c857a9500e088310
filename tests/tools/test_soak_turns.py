"""The soak of turns: its judge finds what is wrong, and a short run on real processes finds nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tools.soak.turns import Told, judge, soak

LOOP, AGENT, OTHER = "loop-0", "soak/a", "soak/b"


def state(**given: Any) -> dict[str, Any]:
    return {"calls": {}, "signals": {}, "sent": {}, "turns": 0, **given}


def tally(last: int, missing: tuple[int, ...] = (), doubled: tuple[int, ...] = ()) -> dict[str, Any]:
    return {"last": last, "missing": list(missing), "doubled": list(doubled)}


def told(kind: str, *numbers: int) -> Told:
    made = Told()
    getattr(made, kind)[LOOP, AGENT].extend(numbers)
    return made


def test_all_is_well() -> None:
    states = {AGENT: state(calls={LOOP: tally(2)}, sent={OTHER: 2}), OTHER: state(signals={AGENT: tally(2)})}
    assert judge(told("acknowledged", 1, 2), states, 0) == []


def test_an_acknowledged_call_that_is_missing_is_found() -> None:
    assert "acknowledged and lost" in judge(told("acknowledged", 1, 2), {AGENT: state(calls={LOOP: tally(1)})}, 0)[0]
    states = {AGENT: state(calls={LOOP: tally(2, missing=(1,))})}
    assert "acknowledged and lost" in judge(told("acknowledged", 1, 2), states, 0)[0]


def test_a_call_that_was_called_not_applied_and_is_there_is_found() -> None:
    """Invariant 5: an outcome is known, or said to be unknown."""
    states = {AGENT: state(calls={LOOP: tally(1)})}
    assert "'not applied' and applied" in judge(told("not_applied", 1), states, 0)[0]
    assert judge(told("unknown", 1), states, 0) == []


def test_a_doubled_call_or_signal_is_found() -> None:
    assert "doubled" in judge(Told(), {AGENT: state(calls={LOOP: tally(1, doubled=(1,))})}, 0)[0]
    assert "doubled" in judge(Told(), {AGENT: state(signals={OTHER: tally(1, doubled=(1,))})}, 0)[0]


def test_a_signal_that_did_not_come_is_found_unless_a_dead_letter_tells_of_it() -> None:
    states = {AGENT: state(sent={OTHER: 2}), OTHER: state(signals={AGENT: tally(1)})}
    assert "did not come" in judge(Told(), states, 0)[0]
    assert judge(Told(), states, 1) == []


@pytest.mark.cluster
@pytest.mark.timeout(300)
async def test_nothing_is_lost_or_doubled_while_processes_die_and_hang() -> None:
    """Invariants 2, 3 and 5, on 3 servers and 3 hosts; for longer: `python -m tools.soak turns`."""
    report = await soak(20_000, seed=7)
    assert report.found == []
    assert report.turns >= 20_000
    assert report.faults
