"""Turns that wait for each other, in the simulated cluster: found, and one request of each cycle refused (protocol 9,
rule 12; model P).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from sim_cycles import asleep, crossing, cycles, round_about

from tenure import errors
from tenure.testing import Simulation, simulate
from tenured.core import journals, waits
from tenured.host import probing


@pytest.mark.parametrize("story", [crossing, round_about, asleep])
def test_one_request_of_a_cycle_is_refused(story: Callable[[Simulation], Awaitable[None]]) -> None:
    simulate(story, seeds=range(3), faults="none")


@pytest.mark.parametrize("faults", ["none", "calm", "rough"])
def test_no_turn_waits_for_ever_whatever_goes_wrong_by_chance(faults: str) -> None:
    simulate(cycles, seeds=range(4), faults=faults)  # type: ignore[arg-type]


def asks_nobody(patch: pytest.MonkeyPatch) -> None:
    """No probe is sent at all."""
    patch.setattr(probing.Probes, "look", lambda _: None)


def asks_once(patch: pytest.MonkeyPatch) -> None:
    """Requests that come later are not asked about [probe_each]."""
    look = probing.Probes.look

    def once(probes: probing.Probes) -> None:
        if probes._job is None:
            look(probes)

    patch.setattr(probing.Probes, "look", once)


def stops_where_one_is_answered(patch: pytest.MonkeyPatch) -> None:
    """A probe is not handed on by who answers the one that sent it [probe_served]."""
    judge = waits.judge

    def blind(uid: str, probe: waits.Probe, journal: journals.Journal) -> Any:
        owed = journal.owed and msgspec.structs.replace(journal.owed, reply="")
        return judge(uid, probe, msgspec.structs.replace(journal, owed=owed))

    patch.setattr(waits, "judge", blind)


def refuses_and_does(patch: pytest.MonkeyPatch) -> None:
    """What is refused stays in the inbox [refuse_in_commit]."""
    patch.setattr(waits, "Refusal", _kept)


def _kept(_: int, *others: Any) -> Any:
    return msgspec.defstruct("Kept", [("k", int), ("signal", Any), ("key", str), ("message", str)])(-1, *others)


@pytest.mark.parametrize("rule", [asks_nobody, asks_once, stops_where_one_is_answered, refuses_and_does])
def test_a_rule_of_probes_that_is_missing_is_caught(rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rule(monkeypatch)
    with pytest.raises((errors.CallError, AssertionError)):
        simulate(cycles, seeds=range(12), faults="none")
