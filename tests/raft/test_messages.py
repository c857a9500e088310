"""What a peer may send: typed frames. Everything else is dropped, with a log line, and disturbs nothing."""

import contextlib
import logging
import pickle
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenured.raft import EngineUnsupported, RaftConfig
from tenured.raft.core import Seams, check_version, pysyncobj
from tenured.raft.engine import Engine
from tenured.raft.journal import Journal
from tenured.raft.messages import (
    FRAME_LIMIT,
    Ack,
    AppendEntries,
    BadFrame,
    Forward,
    Hint,
    RequestVote,
    Vote,
    decode_frame,
    encode_frame,
)
from tenured.raft.outbox import Outbox
from tenured.raft.records import Entry, LogState, Standing, encode_record
from tenured.raft.snapshots import NoSnapshots, Snapshots


class Sink:
    """Records go nowhere, and are durable at once."""

    sequence = 0

    def append(self, record: bytes) -> int:
        return 0


class Nothing:
    """A state machine that takes everything."""

    def apply(self, index: int, command: bytes) -> bytes:
        return b""

    def snapshot(self) -> bytes:
        return b""

    def restore(self, data: bytes) -> None: ...


class Bench:
    """One engine, and what it said."""

    def __init__(self, state: LogState | None = None) -> None:
        self.said: list[tuple[str, Any]] = []
        self.time = 0.0
        state = LogState(voter=True, born=1) if state is None else state
        seams = Seams(
            machine=Nothing(),
            journal=Journal(state, Sink()),
            snapshots=Snapshots(NoSnapshots(), lambda: b""),
            outbox=Outbox(self.send),
            clock=lambda: self.time,
            rng=random.Random(1),
            birth=lambda: 1,
        )
        self.engine = Engine(RaftConfig("a", ("b", "c"), Path("/nowhere"), 0.3, 0.6), seams)

    def send(self, peer: str, frame: bytes) -> bool:
        self.said += [(peer, message) for message in decode_frame(frame)]
        return True

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
