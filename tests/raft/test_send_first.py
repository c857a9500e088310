"""The leader sends before its own sync, and counts itself only up to its synced index (docs/adr/0013)."""

import logging
from collections.abc import Iterator

import pytest

from tenured.raft.engine import Engine
from tenured.raft.interface import Answer, Applied, NotApplied, Outcome
from tenured.raft.messages import (
    Ack,
    AppendEntries,
    Forward,
    Hint,
    PreVote,
    RequestPreVote,
    RequestVote,
    Vote,
    decode_frame,
)
from tenured.raft.outbox import Outbox
from tests.raft.sim.mutants import MUTANTS
from tests.raft.sim.stage import Stage, play
from tests.raft.sim.sweep import sweep


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def freeze_disk(stage: Stage, name: str) -> None:
    """Its next sync takes until the power is cut."""
    stage.hosts[name].writer.syncing = True


def power_cut(stage: Stage, name: str) -> None:
    stage.hosts[name].writer.waiting = []  # nothing of it had reached the disk
    stage.hosts[name].crash(power=True)


def the_leader_loses_what_it_sent_first(stage: Stage) -> None:
    """a sends an entry that its own disk does not have; b stores it; a's power fails, and c is elected without b."""
    stage.found()
    stage.elect("a", "b", "c")
    stage.talk("a", "b", "c")
    freeze_disk(stage, "a")
    stage.write("a")
    assert stage.deliver("a", "b")  # before a has it
    stage.ticks("b")
    stage.deliver("b", "a")  # one of three disks
    stage.ticks("a")
    stage.deliver("a", "b")
    stage.ticks("b")
    power_cut(stage, "a")
    stage.boot("a")
    stage.reconnect("a", "c")
    stage.elect("c", "a")
    stage.talk("a", "c")


def two_followers_are_a_majority_without_the_leaders_disk(stage: Stage) -> None:
    """Both followers have it, a does not and its power fails: whoever leads next has it, a cannot."""
    stage.found()
    stage.elect("a", "b", "c")
    stage.talk("a", "b", "c")
    freeze_disk(stage, "a")
    operation = stage.write("b")  # forwarded, so that b answers
    stage.talk("a", "b", "c")
    assert isinstance(operation.outcome, Applied)
    power_cut(stage, "a")
    stage.boot("a")
    stage.wait(1.0)
    for _ in range(2):
        stage.ticks("a")  # asks, and is refused by both: its log is behind
        stage.talk("a", "b", "c")


def test_a_leader_that_lost_its_unsynced_tail_does_no_harm() -> None:
    assert play(the_leader_loses_what_it_sent_first) == []


def test_a_commit_without_the_leaders_own_disk_is_kept() -> None:
    assert play(two_followers_are_a_majority_without_the_leaders_disk) == []


def test_the_checker_sees_a_leader_that_counts_itself_before_its_sync() -> None:
    assert "leader lacks a committed entry" in play(
        the_leader_loses_what_it_sent_first, MUTANTS["CountsItselfUnsynced"]
    )


def test_without_the_rule_nothing_leaves_before_the_sync() -> None:
    """The switch: with it off, the worlds are clean as well."""
    assert not sweep(Engine, 0, 5, send_first=False).found


# ---- the leader need not wait for its own disk ---------------------------------------------------------------------


def led() -> Stage:
    """Three servers, a leads, all is quiet."""
    stage = Stage()
    stage.found()
    stage.elect("a", "b", "c")
    stage.talk("a", "b", "c")
    return stage


def test_the_leader_answers_when_both_followers_have_it() -> None:
    stage = led()
    freeze_disk(stage, "a")
    operation = stage.write("a")
    stage.talk("a", "b")
    assert operation.outcome is None  # one of three disks
    stage.talk("a", "b", "c")
    assert isinstance(operation.outcome, Applied)


def test_a_message_with_a_commit_index_alone_asks_for_no_ack() -> None:
    stage = led()
    stage.write("a")
    for follower in ("b", "c"):
        stage.deliver("a", follower)
        stage.deliver(follower, "a")
    stage.ticks("a")
    assert [(m.entries, m.quiet) for m in stage.copy("a", "b") if isinstance(m, AppendEntries)] == [([], True)]
    stage.deliver("a", "b")
    assert stage.copy("b", "a") == []
    engine = stage.hosts["b"].engine
    assert engine is not None
    assert engine.commit_index == engine.log.last.index


def test_a_quiet_message_that_does_not_fit_is_denied() -> None:
    """What the leader sent before it was lost: it must hear of that now, not at the next heartbeat."""
    stage = led()
    stage.write("a")
    stage.deliver("a", "c")
    stage.boxes.boxes["a", "b"].clear()
    stage.deliver("c", "a")
    stage.ticks("a")
    stage.deliver("a", "b")
    assert [m.success for m in stage.copy("b", "a") if isinstance(m, Ack)] == [False]


# ---- a lost connection to the leader is a hint -------------------------------------------------------------------


def lose_leader(stage: Stage, name: str) -> None:
    """The connection from `name` to a ends."""
    host = stage.hosts[name]
    host.step(lambda: host.engine is not None and host.engine.disconnected("a"))


def asks(stage: Stage, name: str, other: str) -> bool:
    return any(isinstance(message, RequestPreVote) for message in stage.copy(name, other))


def test_who_lost_the_leader_elects_before_the_timers_run_out() -> None:
    stage = led()
    stage.kill("a")
    lose_leader(stage, "b")
    lose_leader(stage, "c")
    stage.wait(0.21)  # two heartbeats, and the spread; the shortest election timeout is 0.3 s
    stage.ticks("b")
    for _ in range(2):
        stage.deliver("b", "c")
        stage.deliver("c", "b")
        stage.ticks("b")
    assert stage.leads("b")


def test_a_leader_that_lives_takes_the_hint_back() -> None:
    stage = led()
    lose_leader(stage, "b")
    stage.wait(0.06)
    stage.ticks("a")  # its heartbeat, on its own connection
    stage.deliver("a", "b")
    stage.wait(0.2)
    stage.ticks("b")
    assert not asks(stage, "b", "c")


def test_one_lost_connection_elects_nobody() -> None:
    stage = led()
    lose_leader(stage, "b")
    for _ in range(3):
        stage.wait(0.07)
        stage.ticks("a")
        stage.deliver("a", "c")  # b hears nothing, c does
    stage.ticks("b")
    assert asks(stage, "b", "c")
    stage.deliver("b", "c")
    assert not any(isinstance(message, PreVote) for message in stage.copy("c", "b"))
    assert stage.leads("a")


# ---- the barrier itself ------------------------------------------------------------------------------------------


class Line:
    """A link that keeps what leaves."""

    def __init__(self) -> None:
        self.left: list[type] = []
        self.told: list[Outcome] = []
        self.outbox = Outbox(self.send)

    def send(self, _peer: str, frame: bytes) -> bool:
        self.left += [type(message) for message in decode_frame(frame)]
        return True

    @property
    def answer(self) -> Answer:
        return self.told.append


HEARTBEAT = AppendEntries(term=3, commit_index=1, previous=(1, 0), entries=[])
PROMISES = (
    Vote(term=3),
    RequestVote(term=3, last_index=1, last_term=0),
    Ack(term=3, next_index=2, success=True, born=1),
    Hint(term=3),
)


def test_promises_wait_for_the_disk() -> None:
    line = Line()
    for message in PROMISES:
        line.outbox.message("b", message)
    line.outbox.end_turn(sequence=2, floor=1)
    line.outbox.synced(1)
    assert line.left == []
    line.outbox.synced(2)
    assert line.left == [type(message) for message in PROMISES]


def test_what_a_leader_sends_waits_for_its_term_only() -> None:
    line = Line()
    line.outbox.message("b", HEARTBEAT)
    line.outbox.end_turn(sequence=5, floor=4)
    line.outbox.synced(3)
    assert line.left == []  # the record of its term is not on the disk
    line.outbox.synced(5)
    line.outbox.message("b", HEARTBEAT)
    line.outbox.message("b", PROMISES[0])
    line.outbox.end_turn(sequence=6, floor=4)
    assert line.left == [AppendEntries, AppendEntries]
    line.outbox.synced(6)
    assert line.left[2:] == [Vote]


def test_an_answer_and_a_command_for_the_leader_do_not_wait() -> None:
    line = Line()
    line.outbox.answer(line.answer, NotApplied("no leader is known"))
    line.outbox.message("a", Forward(term=3, request_id=1, command=b"\x00x"))
    line.outbox.end_turn(sequence=9, floor=0)
    assert line.told == [NotApplied("no leader is known")]
    assert line.left == [Forward]
