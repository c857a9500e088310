"""The stories of signals with one rule of the protocols taken back: they must not hold, or they show nothing.

Those of turns that wait for each other are in `test_cycles`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from sim_asking import asking
from sim_ending import ending
from sim_failing import pausing, putting_aside
from sim_signalling import signalling
from sim_sleeping import sleeping
from sim_topics import broadcasting

from tenure import errors
from tenure.testing import Simulation, simulate
from tenured.core import boxdraft, boxes, endings, frames, journals, owner, turns
from tenured.host import judging, outgoing, owedjobs, turning
from tenured.host.jobs import Job

SEEDS = 8
"""That are tried for each rule; it ends with the first that finds it."""


# --- signals ------------------------------------------------------------


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


# --- agents that sleep ------------------------------------------------------------


def owes_asleep(patch: pytest.MonkeyPatch) -> None:
    """A commit that leaves a signal to be delivered does not ask for being awake (protocol 2 [wake_owing])."""
    wanted = turns._wanted

    def patient(planned: turns.Wake, *others: Any) -> turns.Wake:
        wake = wanted(planned, *others)
        return planned if wake == turns.AT_ONCE else wake

    patch.setattr(turns, "_wanted", patient)


def plans_in_memory(patch: pytest.MonkeyPatch) -> None:
    """When the agent must be awake is in no record (protocol 2, bulk take-over)."""
    patch.setattr(turns.Draft, "due", lambda *_: None)


def wakes_by_the_lowest(patch: pytest.MonkeyPatch) -> None:
    """When an agent that is taken over asleep must be awake is not taken of the highest version [wake_highest]."""

    def asleep(_: owner.Owner, sealed: list[frames.Sealed]) -> frames.Output:
        return frames.Output(outcomes=[frames.Asleep(min(sealed, key=lambda seal: seal.version).wake)])

    patch.setattr(owner.Owner, "_asleep", asleep)


# --- agents that ask each other ------------------------------------------------------------


def waits_in_memory(patch: pytest.MonkeyPatch) -> None:
    """A request leaves without its wait in the same commit (protocol 9 [wait_with_request])."""

    def suspend(draft: journals.JournalDraft, waiting: journals.Waiting) -> None:
        if draft.owed is not None:
            draft.owed = msgspec.structs.replace(draft.owed, waiting=waiting)

    patch.setattr(journals.JournalDraft, "suspend", suspend)


def wakes_in_memory(patch: pytest.MonkeyPatch) -> None:
    """What ends a wait is marked, and its result is not in that commit (protocol 9 [wake_in_commit])."""
    wake = journals.JournalDraft.wake

    def forgetful(draft: journals.JournalDraft, result: bytes) -> None:
        puts, draft._puts = draft._puts, {}
        wake(draft, result)
        draft._puts = puts

    patch.setattr(journals.JournalDraft, "wake", forgetful)


def answers_nobody(patch: pytest.MonkeyPatch) -> None:
    """The end of a turn with steps has no reply in its commit (protocol 9 [reply_in_commit])."""
    patch.setattr(owedjobs.OwedJob, "answer_entry", lambda *_: None)


# --- turns that fail ------------------------------------------------------------


def buries_in_memory(patch: pytest.MonkeyPatch) -> None:
    """What failed for the last time is marked without its dead letter in the write (protocol 3, dead letters (a))."""
    patch.setattr(boxdraft.BoxDraft, "add_letter", lambda *_: None)


def lets_overtake(patch: pytest.MonkeyPatch) -> None:
    """What a sender sent after a signal that is to be tried again does not wait for it [prev]."""
    judge = boxes.judge

    def lenient(found: boxes.Boxes, signal: Any, *others: Any) -> boxes.Judgement:
        return judge(found, msgspec.structs.replace(signal, prev=0), *others)

    def park(one: judging.Judge, job: Job, seconds: float, again: Callable[[list[Job]], None]) -> None:
        key = f"{job.label} {id(job)}"
        handle = judging.asyncio.get_running_loop().call_later(seconds, lambda: again(one._parked.pop(key, (0, []))[1]))
        one._parked[key] = (handle, [job])

    patch.setattr(boxes, "judge", lenient)
    patch.setattr(judging.Judge, "park", park)


def takes_while_paused(patch: pytest.MonkeyPatch) -> None:
    """An owed turn that its agent is paused at goes on all the same (protocol 3 [pause_refuse])."""
    patch.setattr(turning.Owing, "_paused", property(lambda _: False))


def pauses_without_journal(patch: pytest.MonkeyPatch) -> None:
    """The journal of a turn that its agent is paused at goes with the pause (protocol 9 [pause_journal])."""
    give_up = judging.Judge.give_up

    def forgetful(one: judging.Judge, draft: turns.Draft, job: Job, *fault: Any, pauses: bool) -> None:
        give_up(one, draft, job, *fault, pauses=pauses)
        if isinstance(job, owedjobs.OwedJob):
            draft.journal.end()

    patch.setattr(judging.Judge, "give_up", forgetful)


# --- agents that end ------------------------------------------------------------


def ends_in_memory(patch: pytest.MonkeyPatch) -> None:
    """The mark of the end is not in the commit of its turn [end_in_commit]."""
    end = turns.Draft.end

    def forgetful(draft: turns.Draft, *why: Any) -> None:
        end(draft, *why)
        draft.puts.pop(endings.ENDED, None)

    patch.setattr(turns.Draft, "end", forgetful)


def begins_anew_after_the_end(patch: pytest.MonkeyPatch) -> None:
    """Who holds the record next does not look for the mark [end_kept]."""
    load = turns.load
    patch.setattr(turns, "load", lambda entries: msgspec.structs.replace(load(entries), ended=None))


def goes_with_a_full_box(patch: pytest.MonkeyPatch) -> None:
    """The row goes while something is on its way [box_first]."""
    patch.setattr(endings, "settled", lambda _: True)


def runs_on(patch: pytest.MonkeyPatch) -> None:
    """What comes after the end is taken (protocol 3, ends)."""
    patch.setattr(judging.Judge, "_outlives", lambda *_: True)


# --- topics ------------------------------------------------------------


def sends_nothing_again(patch: pytest.MonkeyPatch) -> None:
    """A new holder does not send what is in the record's outbox (protocol 3, sender)."""
    patch.setattr(outgoing.Outgoing, "adopt", lambda *_: None)


def counts_in_memory(patch: pytest.MonkeyPatch) -> None:
    """Numbers of signals begin again with each holder [numbers_in_state]."""
    send = boxdraft.BoxDraft.send

    def forgetful(draft: boxdraft.BoxDraft, entry: boxes.Entry) -> int:
        n = send(draft, entry)
        draft._puts.pop(boxes.COUNTER)
        return n

    patch.setattr(boxdraft.BoxDraft, "send", forgetful)


def urgent_ones_overtake(patch: pytest.MonkeyPatch) -> None:
    """The queue goes by priority alone, and nobody looks what a signal comes after [prev]."""
    judge, enqueue = boxes.judge, turning.enqueue

    def lenient(found: boxes.Boxes, signal: Any, *others: Any) -> boxes.Judgement:
        return judge(found, msgspec.structs.replace(signal, prev=0), *others)

    def impatient(queue: Any, job: Job) -> None:
        stream, job.stream = job.stream, ""
        enqueue(queue, job)
        job.stream = stream

    patch.setattr(boxes, "judge", lenient)
    patch.setattr(turning, "enqueue", impatient)


Rule = Callable[[pytest.MonkeyPatch], None]
Story = Callable[[Simulation], Awaitable[None]]
RULES: tuple[tuple[Story, Rule, int], ...] = (
    (signalling, takes_again, 0),
    (signalling, leaves_no_mark, 0),
    (signalling, keeps_the_inbox_in_memory, 0),
    (sleeping, owes_asleep, 3),
    (sleeping, plans_in_memory, 2),
    (sleeping, wakes_by_the_lowest, 8),
    (asking, waits_in_memory, 1),
    (asking, wakes_in_memory, 0),
    (asking, answers_nobody, 0),
    (putting_aside, buries_in_memory, 1),
    (putting_aside, lets_overtake, 1),
    (pausing, takes_while_paused, 0),
    (pausing, pauses_without_journal, 0),
    (ending, ends_in_memory, 3),
    (ending, begins_anew_after_the_end, 3),
    (ending, goes_with_a_full_box, 0),
    (ending, runs_on, 0),
    (broadcasting, sends_nothing_again, 1),
    (broadcasting, counts_in_memory, 0),
    (broadcasting, urgent_ones_overtake, 0),
)
"""With the first seed that finds it: a later one may do so when the stories have changed."""


@pytest.mark.parametrize(
    ("story", "rule", "first"), [pytest.param(*one, id=f"{one[0].__name__}-{one[1].__name__}") for one in RULES]
)
def test_a_rule_of_signals_that_is_missing_is_caught(
    story: Story, rule: Rule, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule(monkeypatch)
    with pytest.raises((AssertionError, errors.CallError)):  # a Breach, or what the story asserts
        simulate(story, seeds=range(first, first + SEEDS), faults="rough")
