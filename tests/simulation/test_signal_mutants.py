"""The story of signals with one rule of the protocol taken back: it must not hold, or it shows nothing."""

from __future__ import annotations

from typing import Any

import pytest
from sim_signalling import signalling

from tenure.testing import simulate
from tenured.core import boxdraft, boxes, journals

SEEDS = range(6)


def takes_again(patch: pytest.MonkeyPatch) -> None:
    """What was applied is applied again (protocol 3, receiver 1)."""
    judge = boxes.judge

    def credulous(*arguments: Any) -> boxes.Judgement:
        found = judge(*arguments)
        return boxes.Take() if isinstance(found, boxes.Duplicate) else found

    patch.setattr(boxes, "judge", credulous)


def leaves_no_mark(patch: pytest.MonkeyPatch) -> None:
    """The mark is not in the commit of its turn [mark_in_commit]."""
    patch.setattr(boxdraft.BoxDraft, "mark", lambda *_, **__: None)


def keeps_the_inbox_in_memory(patch: pytest.MonkeyPatch) -> None:
    """What is accepted during a turn with steps is in no record (protocol 9 [inbox_in_commit])."""
    patch.setattr(journals.JournalDraft, "take", lambda *_: None)


@pytest.mark.parametrize("rule", [takes_again, leaves_no_mark, keeps_the_inbox_in_memory])
def test_a_rule_of_signals_that_is_missing_is_caught(rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rule(monkeypatch)
    with pytest.raises(AssertionError):  # a Breach, or what the story asserts
        simulate(signalling, seeds=SEEDS, faults="rough")
