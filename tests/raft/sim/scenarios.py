"""Scripted scenarios, one for each rule that random seeds do not reach. Each is clean with the engine as it is.

`DIRECTED` says which mutants each scenario catches, and as the breach of which rule of the checker. Servers are a, b,
c (and d, e); a script reads as the story of one failure. Some need a link that breaks the promises of `PeerLink` (FIFO,
at most once, emptied on reconnect): their rules are a second line of defence, and the story says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tenured.raft.messages import RejoinReply, Vote
from tests.raft.sim.stage import Stage


def a_vote_arrives_twice(stage: Stage) -> None:
    """K4, needs a link that doubles. b's vote for a comes twice; c is elected by the others in the same term."""
    stage.found()
    stage.ask("a")  # all would vote for a
    stage.ask("c")  # before they are asked to, c asks as well
    stage.ticks("a", "c")
    stage.deliver("a", "b")
    (vote,) = [said for said in stage.copy("b", "a") if isinstance(said, Vote)]
    stage.deliver("b", "a")
    stage.inject("b", "a", vote)  # two of five, not three
    for voter in ("d", "e"):
        stage.deliver("c", voter)
        stage.deliver(voter, "c")
    assert stage.leads("c")


def a_reply_to_a_former_life(stage: Stage) -> None:
    """N3. b passes a command to its leader and is killed; the answer reaches the next b, which passed on another."""
    stage.found()
    stage.elect("a", "b")
    stage.talk("a", "b", "c")
    stage.write("b")
    stage.deliver("b", "a")  # a has it, and does not come to its next turn before b is back
    stage.kill("b")
    stage.boot("b")
    stage.wait(0.1)
    stage.ticks("a")  # a heartbeat, then the reply to what the former b passed on
    while stage.hosts["b"].engine.leader is None:
        assert stage.deliver("a", "b", count=1)
    stage.write("b")
    stage.deliver("a", "b")  # the reply; the new command has not left yet
    stage.reconnect("a", "b")  # and never will
    stage.wait(0.1)
    stage.talk("a", "b", "c")


def a_deposed_leaders_acks_come_late(stage: Stage) -> None:
    """K3, in FIFO order. b's acks in term 1 stall, a is deposed and elected anew in term 3; then they arrive."""
    stage.found()
    stage.elect("a", "b", "c")
    stage.deliver("a", "d", count=1)  # its request for a vote; of its entries d and e see nothing
    stage.deliver("a", "e", count=1)
    for _ in range(3):
        stage.write("a")
    stage.deliver("a", "b")  # b holds entries 2 to 5 of term 1, and says so; the way from b to a stalls
    stage.elect("d", "c", "e")
    for name in ("a", "c", "e"):
        stage.deliver("d", name)  # entry 2 of term 2: a's own entries are cut
    stage.elect("a", "c", "e")
    stage.deliver("b", "a")  # what b had in term 1 is no part of a's log
    stage.deliver("a", "c")
    stage.deliver("c", "a")
    stage.ticks("a")  # entry 3 is on a and c, two of five
    stage.elect("d", "b", "e")


def answers_to_a_former_life(stage: Stage) -> None:
    """ADR 0005, needs a link that delivers what was sent before a reconnect. a founded, voted, and lost its disk."""
    for name in ("a", "b", "c"):
        stage.boot(name)
    stage.ticks("a")
    stage.deliver("a", "b")
    stage.deliver("a", "c")
    old = [(peer, said) for peer in ("b", "c") for said in stage.copy(peer, "a") if isinstance(said, RejoinReply)]
    assert [said.standing for _, said in old] == ["empty", "empty"]
    stage.ticks("b", "c")
    stage.talk("a", "b", "c")
    stage.elect("b", "a")
    stage.talk("a", "b")  # c saw nothing of it
    stage.lose_disk("a")
    stage.boot("a")
    for peer, said in old:
        stage.inject(peer, "a", said)
    stage.ticks("a")
    stage.reconnect("a", "c")
    stage.deliver("b", "c", count=1)  # b's request for a vote: now c knows of term 1, and nothing of b's entry
    stage.poll("c", "a")
    stage.deliver("c", "a")
    stage.deliver("a", "c")


def a_disk_is_lost_while_it_founds(stage: Stage) -> None:
    """ADR 0005. a and b have their votes, c has not yet; a would stand with b's consent, and b loses its disk."""
    for name in ("a", "b", "c"):
        stage.boot(name)
    stage.ticks("a", "b", "c")
    for source, target in (("a", "b"), ("a", "c"), ("b", "c"), ("b", "a"), ("c", "a"), ("c", "b"), ("a", "b")):
        stage.deliver(source, target)
    stage.ticks("a", "b")
    assert stage.hosts["a"].engine.log.voter
    assert stage.hosts["b"].engine.log.voter
    stage.poll("a")
    assert not stage.hosts["c"].engine.log.voter
    stage.lose_disk("b")
    stage.boot("b")


def one_server_that_has_seen_nothing(stage: Stage) -> None:
    """ADR 0005. b voted for a and lost its disk; a is silent, and c knows of no election."""
    stage.found()
    stage.elect("a", "b")
    stage.write("a")
    stage.talk("a", "b")
    stage.lose_disk("b")
    stage.boot("b")
    stage.ticks("b")
    stage.deliver("b", "c")
    stage.deliver("c", "b")
    stage.ticks("b")
    stage.deliver("a", "c", count=1)  # a's request for a vote: c has still seen no entry
    stage.poll("c", "b")
    stage.deliver("c", "b")
    stage.deliver("b", "c")


def an_empty_disk_hears_a_deposed_leader(stage: Stage) -> None:
    """K11. c voted for b in term 2, loses its disk, and hears a, which does not know yet that its term 1 is over."""
    stage.found()
    stage.elect("a", "b")
    stage.talk("a", "b", "c")
    stage.write("a")  # entry 3 of term 1, on a only
    stage.reconnect("a", "b", "c")
    stage.elect("b", "c")  # whose entry 3 is on its own disk only
    stage.reconnect("a", "b", "c")
    stage.lose_disk("c")
    stage.boot("c")
    for _ in range(2):  # a finds out where c's log ends, and sends all
        stage.wait(0.1)
        stage.ticks("a")
        stage.deliver("a", "c")
        stage.deliver("c", "a")
    stage.ticks("a")
    stage.talk("b", "c")


def a_leader_does_not_know_that_a_disk_is_new(stage: Stage) -> None:
    """K11, in FIFO order, one disk lost. a's first entry is acknowledged by c, which loses its disk and votes again."""
    stage.found()
    stage.elect("a", "b", "d", "c")
    stage.deliver("a", "e", count=1)  # its request for a vote
    stage.deliver("a", "c")
    stage.deliver("c", "a")  # entry 2 is on a and c, two of five; now the way from c to a stalls
    stage.lose_disk("c")
    stage.boot("c")
    stage.ticks("c")
    for name in ("b", "d", "e"):
        stage.deliver("c", name)
        stage.deliver(name, "c")  # "my term is 1, my log ends at 1, I do not lead"
    stage.ticks("c")  # with its vote back before a forgets the old disk, it could elect e
    stage.reconnect("c", "e")
    stage.poll("e", "d", "c")
    stage.deliver("a", "b")
    stage.deliver("b", "a")
    stage.ticks("a")  # with b's ack and that of c's lost disk, a commits entry 2
    for voter in ("d", "c"):
        stage.deliver("e", voter)
        stage.deliver(voter, "e")
    if stage.leads("e"):
        stage.deliver("e", "d")
        stage.deliver("d", "e")


def a_tail_that_nobody_else_has(stage: Stage) -> None:
    """K1, K2 and Raft 5.3. b led term 1 and has entries of its own; a message of its successor is lost."""
    stage.found()
    stage.elect("b", "a")
    stage.deliver("b", "a")
    stage.deliver("b", "c")  # entry 2 is everywhere; b does not hear so
    for _ in range(3):
        stage.write("b")  # entries 3 to 5 of term 1, on b only
    stage.reconnect("a", "b", "c")
    stage.elect("c", "a")
    stage.reconnect("b", "c")  # entry 3 of term 2 does not reach b
    stage.talk("a", "c")
    for _ in range(20):
        stage.write("c")
    stage.talk("a", "c")
    stage.reconnect("b", "c")
    for _ in range(40):  # message by message, each answered before the next
        stage.wait(0.1)
        stage.ticks("c")
        while stage.deliver("c", "b", count=1):
            stage.deliver("b", "c")
    stage.talk("a", "b", "c")


def a_snapshot_for_a_tail_that_nobody_else_has(stage: Stage) -> None:
    """N1. The same, but c has compacted what b lacks, and its snapshot comes in pieces."""
    stage.found()
    stage.elect("b", "a")
    stage.talk("a", "b", "c")
    for _ in range(3):
        stage.write("b")
    stage.reconnect("a", "b", "c")
    stage.elect("c", "a")
    compacted(stage, "c", "a")
    stage.reconnect("b", "c")
    stage.wait(0.1)
    stage.talk("a", "b", "c")


def compacted(stage: Stage, leader: str, *followers: str, entries: int = 20) -> None:
    """Some entries more on these, and the leader's log cut behind a snapshot of it."""
    for _ in range(entries):
        stage.write(leader)
    stage.talk(leader, *followers)
    for _ in range(2):  # the first may have been begun before the last entries
        stage.finish_writing(leader)
        stage.hosts[leader].engine.forceLogCompaction()
        stage.ticks(leader)
    stage.finish_writing(leader)
    assert stage.hosts[leader].engine.log.first.index > entries // 2


def a_power_cut_while_a_snapshot_is_written(stage: Stage) -> None:
    """K7. The log may be cut only behind a snapshot that is on the disk."""
    stage.found()
    stage.elect("a", "b")
    for _ in range(20):
        stage.write("a")
    stage.talk("a", "b", "c")
    stage.hosts["a"].engine.forceLogCompaction()
    stage.ticks("a", "a")
    assert stage.writing, "a writes a snapshot"
    stage.kill("a")
    stage.boot("a")


def an_own_snapshot_ends_after_a_newer_one_came(stage: Stage) -> None:
    """K7. c is writing a snapshot when its leader sends one that is newer; then c's own is done, and c is restarted."""
    stage.found()
    stage.elect("a", "b")
    for _ in range(8):
        stage.write("a")
    stage.talk("a", "b", "c")
    stage.hosts["c"].engine.forceLogCompaction()
    stage.ticks("c", "c")
    assert any(host.name == "c" for host, *_ in stage.writing), "c writes a snapshot"
    compacted(stage, "a", "b", entries=40)
    stage.reconnect("a", "c")
    for _ in range(3):  # c says where its log ends, and gets a's snapshot
        stage.wait(0.1)
        stage.talk("a", "b", "c")
    stage.finish_writing("c")
    stage.talk("a", "b", "c")
    assert stage.hosts["c"].engine.log.first.index > 20
    stage.kill("c")
    stage.boot("c")


def a_vote_is_asked_for_before_the_snapshot_is_loaded(stage: Stage) -> None:
    """N8. c was killed between keeping its leader's snapshot and replacing its log; it starts, and e wants its vote."""
    stage.found()
    stage.elect("a", "b", "d")
    stage.talk("a", "b", "c", "d", "e")
    stage.reconnect("a", "b", "c", "d", "e")
    compacted(stage, "a", "b", "d")
    stage.kill("c")
    stage.hosts["c"].disk.snapshot = stage.hosts["a"].disk.snapshot
    stage.boot("c")
    stage.poll("e", "c")


def a_leader_loses_what_it_sent_first(stage: Stage) -> None:
    """ADR 0013. a sends an entry that its own disk does not have; b stores it; a's power fails, c is elected by a."""
    stage.found()
    stage.elect("a", "b", "c")
    stage.talk("a", "b", "c")
    stage.hosts["a"].writer.syncing = True  # a's next sync takes until the power is cut
    stage.write("a")
    stage.deliver("a", "b")
    stage.ticks("b")
    stage.deliver("b", "a")  # one disk of three
    stage.ticks("a")
    stage.hosts["a"].writer.waiting.clear()
    stage.hosts["a"].crash(power=True)
    stage.boot("a")
    stage.reconnect("a", "c")
    stage.elect("c", "a")
    stage.talk("a", "c")


@dataclass(frozen=True)
class Directed:
    """A scenario, what it needs, and which rule of the checker each mutant breaks in it."""

    script: Callable[[Stage], None]
    catches: dict[str, str]
    fixed: dict[str, Any] = field(default_factory=dict[str, Any])


DIRECTED = (
    Directed(a_vote_arrives_twice, {"CountsVotesTwice": "two leaders in one term"}, {"size": 5}),
    Directed(a_reply_to_a_former_life, {"NumbersFromOne": "acknowledged command lost"}),
    Directed(a_deposed_leaders_acks_come_late, {"AcksOfAnyTerm": "leader lacks a committed entry"}, {"size": 5}),
    Directed(answers_to_a_former_life, {"FoundsFromOldAnswers": "leader lacks a committed entry"}),
    Directed(a_disk_is_lost_while_it_founds, {"FirstElectionByMajority": "no progress after heal"}),
    Directed(one_server_that_has_seen_nothing, {"FoundsWithOne": "leader lacks a committed entry"}),
    Directed(an_empty_disk_hears_a_deposed_leader, {"AcksEarly": "two different entries committed"}),
    Directed(
        a_leader_does_not_know_that_a_disk_is_new,
        {"VotesBeforeItsLeaderKnows": "leader lacks a committed entry"},
        {"size": 5},
    ),
    Directed(
        a_tail_that_nobody_else_has,
        {
            "CommitsUnproved": "two different entries committed",
            "AcksUnproved": "acknowledged entry is not there",
            "TrustsPrevious": "two different entries committed",
            "RetreatsForward": "they never stop talking",
        },
        {"batch_bytes": 1},
    ),
    Directed(
        a_snapshot_for_a_tail_that_nobody_else_has,
        {"CommitsOnParts": "two different entries committed"},
        {"compact_entries": 6, "part_bytes": 64},
    ),
    Directed(
        a_power_cut_while_a_snapshot_is_written,
        {"CutsBeforeDurable": "LogCorrupt in _must_fit"},
        {"compact_entries": 6, "segment_bytes": 300},
    ),
    Directed(
        an_own_snapshot_ends_after_a_newer_one_came,
        {},
        {"compact_entries": 12},
    ),
    Directed(
        a_vote_is_asked_for_before_the_snapshot_is_loaded,
        {"LoadsLate": "vote for a log behind the voter's snapshot"},
        {"compact_entries": 6, "size": 5},
    ),
    Directed(a_leader_loses_what_it_sent_first, {"CountsItselfUnsynced": "leader lacks a committed entry"}),
)
