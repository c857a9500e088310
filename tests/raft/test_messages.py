"""What a peer may send: typed frames. Everything else is dropped, with a log line, and disturbs nothing."""

import contextlib
import logging
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenured.raft import Applied, EngineUnsupported, NotApplied, RaftConfig, Unknown
from tenured.raft.commands import APPLY_LIMIT
from tenured.raft.core import Seams, check_version, pysyncobj
from tenured.raft.engine import Engine
from tenured.raft.journal import Journal
from tenured.raft.messages import (
    FRAME_LIMIT,
    Ack,
    AnyMessage,
    AppendEntries,
    BadFrame,
    Forward,
    Hint,
    InstallSnapshot,
    PreVote,
    RequestVote,
    SnapshotPart,
    Vote,
    decode_frame,
    encode_frame,
)
from tenured.raft.outbox import Outbox
from tenured.raft.records import Entry, LogState, Standing, encode_record
from tenured.raft.replication import BATCH_ENTRIES, BURST, WINDOW
from tenured.raft.snapfiles import SnapshotStore
from tenured.raft.snapshots import Snapshots
from tests.raft.sim.disk import SimDisk, SimFiles


class Sink:
    """Records go nowhere, and are durable at once."""

    sequence = 0

    def append(self, record: bytes) -> int:
        return 0


class Idle:
    """A worker that does nothing."""

    def submit(self, steps: object, done: object) -> None: ...


class Nothing:
    """A state machine that takes everything."""

    def apply(self, index: int, command: bytes) -> bytes:
        return b""

    def snapshot(self) -> Iterator[bytes]:
        return iter(())

    def restore(self) -> Any:
        raise NotImplementedError


class Bench:
    """One engine, and what it said."""

    def __init__(self, state: LogState | None = None, *, peers: tuple[str, ...] = ("b", "c"), seed: int = 1) -> None:
        self.said: list[tuple[str, Any]] = []
        self.time = 0.0
        self.deaf = False
        state = LogState(voter=True, born=1) if state is None else state
        seams = Seams(
            machine=Nothing(),
            journal=Journal(state, Sink()),
            snapshots=Snapshots(SnapshotStore(SimFiles(SimDisk("s0")), Idle(), [])),
            outbox=Outbox(self.send),
            clock=lambda: self.time,
            rng=random.Random(seed),
            birth=lambda: 1,
        )
        self.engine = Engine(RaftConfig("a", peers, Path("/nowhere"), 0.3, 0.6), seams)

    def send(self, peer: str, frame: bytes) -> bool:
        self.said += [(peer, message) for message in decode_frame(frame)]
        return not self.deaf

    def hear(self, peer: str, *messages: Any) -> list[tuple[str, Any]]:
        self.said = []
        self.engine.received(peer, encode_frame(list(messages)))
        self.engine.end_turn()
        return self.said


def entries(*places: tuple[int, int]) -> list[Entry]:
    return [Entry(b"\x00x", index, term) for index, term in places]


def append(term: int, previous: tuple[int, int] | None, *places: tuple[int, int], commit: int = 1) -> AppendEntries:
    return AppendEntries(term=term, commit_index=commit, previous=previous, entries=entries(*places))


# ---- frames ------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_a_bad_frame(data: bytes) -> None:
    with contextlib.suppress(BadFrame):
        decode_frame(data)


@given(
    st.recursive(st.none() | st.integers() | st.binary() | st.text(), lambda x: st.lists(x, max_size=6), max_leaves=20)
)
def test_any_msgpack_is_a_frame_or_a_bad_frame_and_never_stops_an_engine(value: Any) -> None:
    try:
        frame = msgspec.msgpack.encode([value])
    except OverflowError:
        return
    bench = Bench()
    bench.engine.received("b", frame)
    bench.engine.tick()


@pytest.mark.parametrize(
    "message",
    [
        append(2, (1, 0), (3, 1)),
        append(2, (1, 0), (2, 1), (4, 1)),
        append(2, (1, 0), (2, 3)),
        append(2, (1, 1), (2, 0)),
        append(2, None, (2, 1)),
        AppendEntries(term=1, commit_index=1, previous=(1, 0), entries=[Entry(b"", 2, 1)]),
        AppendEntries(term=1, commit_index=1, previous=(1, 0), entries=[Entry(b"\x03cos", 2, 1)]),
        Forward(term=1, request_id=1, command=b""),
        Ack(term=1, next_index=0, success=True, born=1),
        Hint(term=-1),
        InstallSnapshot(term=1, commit_index=1, part=SnapshotPart((9, 1), 10, 0, 8, b"abc")),
    ],
    ids=repr,
)
def test_a_message_that_makes_no_sense_is_a_bad_frame(message: Any) -> None:
    with pytest.raises(BadFrame):
        decode_frame(encode_frame([message]))


def test_a_frame_has_a_limit() -> None:
    with pytest.raises(BadFrame, match="at most"):
        decode_frame(bytes(FRAME_LIMIT + 1))


def test_a_malformed_frame_is_dropped_with_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    with caplog.at_level(logging.WARNING):
        bench.engine.received("b", pickle.dumps({"type": "append_entries", "term": 9}))
        bench.engine.received("mallory", encode_frame([Hint(term=9)]))
    assert "malformed frame of b" in caplog.text
    assert "mallory" in caplog.text
    assert bench.engine.current_term == 0


def test_nothing_is_pickled() -> None:
    """The parent's own use of pickle is gone with the module: any call of it fails."""
    with pytest.raises(AttributeError):
        pysyncobj.pickle.loads(b"")


def test_another_pysyncobj_is_refused() -> None:
    with pytest.raises(EngineUnsupported, match=r"install pysyncobj==0\.3\.17"):
        check_version("0.3.16")
    check_version("0.3.17")


# ---- rules, one message at a time ----------------------------------------------------------------------------------


def test_a_repeated_append_cuts_nothing_k1() -> None:
    bench = Bench()
    bench.hear("b", append(1, (1, 0), (2, 1), (3, 1)))
    bench.hear("b", append(1, (1, 0), (2, 1)))
    assert bench.engine.log.last.index == 3


def test_an_ack_and_the_commit_index_cover_only_what_was_proved_k2() -> None:
    bench = Bench()
    bench.hear("b", append(1, (1, 0), (2, 1), (3, 1)))
    said = bench.hear("c", append(2, (1, 0), commit=3))
    assert said == [("c", Ack(term=2, next_index=2, success=True, born=1))]
    assert bench.engine.commit_index == 1


def test_a_conflict_is_cut_and_answered_with_the_start_of_its_term_n4() -> None:
    bench = Bench()
    bench.hear("b", append(1, (1, 0), (2, 1), (3, 1), (4, 1)))
    said = bench.hear("c", append(3, (4, 2), (5, 3)))
    assert said == [("c", Ack(term=3, next_index=2, success=False, born=1))]
    bench.hear("c", append(3, (1, 0), (2, 2)))
    assert bench.engine.log.last == Entry(b"\x00x", 2, 2)


def test_a_stale_leader_is_told_the_term_k10() -> None:
    bench = Bench()
    bench.hear("b", append(5, (1, 0)))
    assert bench.hear("c", append(4, (1, 0))) == [("c", Hint(term=5))]


def test_a_vote_is_given_once_a_term_and_again_to_the_same_candidate() -> None:
    bench = Bench()
    ask = RequestVote(term=3, last_index=1, last_term=0)
    assert bench.hear("b", ask) == [("b", Vote(term=3))]
    assert bench.hear("c", ask) == []
    assert bench.hear("b", ask) == [("b", Vote(term=3))]


def test_a_log_that_is_behind_gets_no_vote() -> None:
    bench = Bench()
    bench.hear("b", append(2, (1, 0), (2, 2)))
    assert bench.hear("c", RequestVote(term=3, last_index=9, last_term=1)) == []


def test_a_disk_without_a_vote_neither_votes_nor_acknowledges_k11() -> None:
    bench = Bench(LogState(voter=False, born=1))
    assert bench.hear("b", RequestVote(term=3, last_index=1, last_term=0)) == []
    assert bench.hear("b", append(3, (1, 0), (2, 3))) == []
    assert bench.engine.log.last.index == 1


def test_a_restart_keeps_term_and_vote_k6() -> None:
    state = LogState()
    state.play([Standing(True, 1)])
    state.entries = entries((1, 0))
    state.term, state.vote = 7, "c"
    assert encode_record(Standing(True, 1))
    bench = Bench(state)
    assert bench.hear("b", RequestVote(term=7, last_index=1, last_term=0)) == []
    assert bench.engine.current_term == 7


# ---- leaders -------------------------------------------------------------------------------------------------------


def lead(bench: Bench) -> int:
    """Make the engine of `bench` leader with the votes of the others, pre-vote first; returns its term."""
    for peer in ("b", "c"):
        bench.engine.connected(peer)
    bench.time += 1
    turn(bench)
    assert bench.engine.current_term == 0, "no term is burnt before the others would vote"
    for peer in ("b", "c"):
        bench.hear(peer, PreVote(term=1))
    bench.time += 0.01
    said = turn(bench)
    assert ("b", RequestVote(term=1, last_index=1, last_term=0)) in said
    bench.hear("b", Vote(term=1))
    assert bench.engine.role().is_leader
    return bench.engine.current_term


def turn(bench: Bench) -> list[tuple[str, Any]]:
    bench.said = []
    bench.engine.tick()
    bench.engine.end_turn()
    bench.engine.synced(0)  # the sink numbers nothing: all is durable
    return bench.said


def test_without_answers_no_term_is_burnt_k10() -> None:
    bench = Bench()
    bench.engine.connected("b")
    for _ in range(100):
        bench.time += 0.1
        turn(bench)
    assert bench.engine.current_term == 0


def test_a_copy_of_a_vote_is_no_second_voter_k4() -> None:
    bench = Bench(peers=("b", "c", "d", "e"))
    bench.engine.connected("b")
    bench.time += 1
    turn(bench)
    for peer in ("b", "c", "d", "e"):
        bench.hear(peer, PreVote(term=1))
    bench.time += 0.01
    turn(bench)
    bench.hear("b", Vote(term=1), Vote(term=1), Vote(term=1))
    assert not bench.engine.role().is_leader
    bench.hear("c", Vote(term=1))
    assert bench.engine.role().is_leader


def test_an_ack_of_an_earlier_reign_or_of_an_older_disk_counts_nothing_k3_k11() -> None:
    bench = Bench()
    lead(bench)
    peer = bench.engine.peers["b"]
    bench.hear("b", Ack(term=0, next_index=3, success=True, born=5))
    assert bench.engine.match_index[peer] == 0
    bench.hear("b", Ack(term=1, next_index=3, success=True, born=5))
    assert bench.engine.match_index[peer] == 2
    bench.hear("b", Ack(term=1, next_index=2, success=False, born=6))
    assert bench.engine.match_index[peer] == 0
    bench.hear("b", Ack(term=1, next_index=3, success=True, born=5))
    assert bench.engine.match_index[peer] == 0


def test_a_refusal_moves_next_index_only_back_and_a_success_only_forward_k1_n4() -> None:
    bench = Bench()
    lead(bench)
    peer = bench.engine.peers["b"]
    for _ in range(20):
        bench.engine.propose(b"x", lambda _: None)
    turn(bench)
    end = bench.engine.next_index[peer]
    bench.hear("b", Ack(term=1, next_index=3, success=True, born=5))
    assert bench.engine.next_index[peer] == end
    bench.hear("b", Ack(term=1, next_index=9, success=False, born=5))
    bench.hear("b", Ack(term=1, next_index=15, success=False, born=5))
    assert bench.engine.next_index[peer] == 9


def test_request_ids_of_two_lives_do_not_meet_n3() -> None:
    first, second = Bench(seed=1).engine.request_id, Bench(seed=2).engine.request_id
    assert abs(first - second) > 1 << 30


def test_the_leader_says_its_commit_index_in_the_turn_in_which_it_advances() -> None:
    bench = Bench()
    lead(bench)
    bench.engine.propose(b"x", lambda _: None)
    turn(bench)
    bench.engine.received("b", encode_frame([Ack(term=1, next_index=4, success=True, born=5)]))
    said = turn(bench)
    assert [m.commit_index for peer, m in said if peer == "c" and isinstance(m, AppendEntries)][-1] == 3


def commits_said(said: list[tuple[str, AnyMessage]]) -> list[int]:
    return [m.commit_index for peer, m in said if peer == "c" and isinstance(m, AppendEntries)]


def test_a_patient_leader_lets_the_next_entries_carry_its_commit_index() -> None:
    bench = Bench()
    lead(bench)
    bench.engine.patient = True
    bench.engine.propose(b"x", lambda _: None)
    turn(bench)
    bench.engine.received("b", encode_frame([Ack(term=1, next_index=4, success=True, born=5)]))
    assert bench.engine.due
    assert not commits_said(turn(bench))
    assert bench.engine.tells_later
    assert not bench.engine.due
    bench.engine.propose(b"y", lambda _: None)
    assert commits_said(turn(bench))[-1] == 3
    assert not bench.engine.tells_later


def test_a_patient_leader_says_its_commit_index_when_it_is_told_to() -> None:
    bench = Bench()
    lead(bench)
    bench.engine.patient = True
    bench.engine.propose(b"x", lambda _: None)
    turn(bench)
    bench.engine.received("b", encode_frame([Ack(term=1, next_index=4, success=True, born=5)]))
    assert not commits_said(turn(bench))
    bench.engine.tell_commit()
    assert bench.engine.due
    assert commits_said(turn(bench)) == [3]


def test_a_patient_leader_does_not_let_a_followers_caller_wait() -> None:
    bench = Bench()
    lead(bench)
    bench.engine.patient = True
    bench.engine.received("b", encode_frame([Forward(term=1, request_id=1, command=b"\x00x")]))
    turn(bench)
    bench.engine.received("b", encode_frame([Ack(term=1, next_index=4, success=True, born=5)]))
    assert commits_said(turn(bench)) == [3]


def test_proposals_of_one_turn_travel_in_one_message() -> None:
    bench = Bench()
    lead(bench)
    for _ in range(50):
        bench.engine.propose(b"x", lambda _: None)
    said = [m for peer, m in turn(bench) if peer == "b"]
    assert len([m for m in said if m.entries]) == 1
    assert len(said[-1].entries) == 50


def test_what_goes_to_a_silent_follower_is_bounded() -> None:
    bench = Bench()
    lead(bench)
    for _ in range(6000):
        bench.engine.propose(b"x", lambda _: None)
    counts = [len([m for peer, m in turn(bench) if peer == "b"]) for _ in range(60)]
    assert max(counts) <= BURST
    peer = bench.engine.peers["b"]
    assert bench.engine.next_index[peer] - bench.engine.match_index[peer] <= WINDOW + BATCH_ENTRIES
    assert not bench.engine.has_unsent()


def test_applying_a_long_log_takes_many_short_turns() -> None:
    state = LogState(voter=True, born=1, commit=5000)
    state.entries = entries((1, 0), *((index, 1) for index in range(2, 5001)))
    bench = Bench(state)
    turns = 0
    while bench.engine.behind:
        turn(bench)
        turns += 1
    assert bench.engine.applied_index == 5000
    assert turns >= 5000 // APPLY_LIMIT


def test_a_command_that_raises_is_unknown_and_stops_nobody_k8() -> None:
    bench = Bench()
    lead(bench)
    outcomes: list[Any] = []

    def raising(_index: int, command: bytes) -> bytes:
        if command == b"bad":
            raise ValueError("a bug")
        return b"fine"

    def answer(outcome: Any) -> None:
        outcomes.append(outcome)
        raise ValueError("another bug")

    bench.engine.machine.apply = raising
    for command in (b"bad", b"good"):
        bench.engine.propose(command, answer)
    turn(bench)
    bench.hear("b", Ack(term=1, next_index=5, success=True, born=5))
    turn(bench)
    assert [type(o) for o in outcomes] == [Unknown, Applied]
    assert outcomes[1].result == b"fine"


def test_a_forwarded_command_that_never_left_is_certainly_not_applied() -> None:
    bench = Bench()
    bench.hear("b", append(1, (1, 0)))
    outcomes: list[Any] = []
    bench.engine.propose(b"x", outcomes.append)
    bench.deaf = True
    turn(bench)
    turn(bench)
    assert [type(o) for o in outcomes] == [NotApplied]
