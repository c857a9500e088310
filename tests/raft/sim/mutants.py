"""Engines with one rule taken back, to see the checker fail."""

from __future__ import annotations

import msgspec

from tenured.raft.core import Peer
from tenured.raft.engine import Engine
from tenured.raft.messages import Ack, AppendEntries, InstallSnapshot, RejoinReply
from tenured.raft.records import Entry
from tenured.raft.snapfiles import Head


class CutsAlways(Engine):
    """K1: cuts its log behind the previous entry of every message, matching or not."""

    def merge(self, entries: list[Entry]) -> None:
        if entries and entries[0].index <= self.log.last.index:
            self.log.cut_from(entries[0].index)
        for entry in entries:
            self.log.add(*entry)


class CommitsUnproved(Engine):
    """K2: commits up to the end of its own log."""

    def provable(self, matched: int) -> int:
        return self.log.last.index


class AcksUnproved(Engine):
    """K2: acknowledges the end of its own log."""

    def acknowledge(self, peer: Peer, matched: int) -> None:
        super().acknowledge(peer, self.log.last.index)


class CountsVotesTwice(Engine):
    """K4: every copy of a vote counts."""

    def count_vote(self, peer: Peer) -> bool:
        super().count_vote(peer)
        return True


class ForgetsTail(Engine):
    """K5: starts from the snapshot alone."""

    def has_tail_of(self, head: Head) -> bool:
        return False


class TakesOldSnapshots(Engine):
    """N2: installs whatever the leader sends."""

    def prepare(self) -> None:
        super().prepare()
        self.snapshots.store.is_newer = lambda _at: True

    def is_news(self, index: int) -> bool:
        return True


class CommitsOnParts(Engine):
    """N1: a piece of a snapshot commits the own log's end."""

    def on_install_snapshot(self, peer: Peer, message: InstallSnapshot) -> None:
        self.learn_commit(message.commit_index, self.log.last.index)
        super().on_install_snapshot(peer, message)


class CutsBeforeDurable(Engine):
    """K7: cuts the log, and removes its segments, when a snapshot is begun."""

    def begin_snapshot(self, previous: Entry, last: Entry) -> None:
        super().begin_snapshot(previous, last)
        self.cut_below(last.index)
        self.log.release(last.index)


class RetreatsForward(Engine):
    """N4: the last refusal of a burst decides, though the first names the conflict."""

    def retreat(self, peer: Peer, hint: int) -> int:
        return max(self.match_index[peer] + 1, min(hint, self.log.last.index + 1))


class LoadsLate(Engine):
    """N8: looks at messages before its snapshot is loaded."""

    def restore(self) -> None:
        if self.snapshot_pending:  # in the constructor
            return
        super().restore()

    def tick(self) -> None:
        if not self.loaded:
            self.loaded = True
            self.restore()
        super().tick()

    def prepare(self) -> None:
        self.loaded = False
        super().prepare()


class NumbersFromOne(Engine):
    """N3: request ids start anew in every life."""

    def first_request_id(self) -> int:
        return 0


class ForgetsDisks(Engine):
    """K11: an empty disk votes at once."""

    def founds(self) -> bool:
        return True


class FoundsWithOne(Engine):
    """ADR 0005: one other server that has seen nothing is enough to found."""

    def founds(self) -> bool:
        return self.is_untouched() and bool(self.untouched)


class FoundsFromOldAnswers(Engine):
    """ADR 0005: an answer to an earlier life counts."""

    def on_rejoin_reply(self, peer: Peer, message: RejoinReply) -> None:
        super().on_rejoin_reply(peer, msgspec.structs.replace(message, nonce=self.nonce))


class FirstElectionByMajority(Engine):
    """ADR 0005: the first candidate needs no more consent than any later one."""

    def enough(self, yes: int) -> bool:
        return self.majority(yes)


class AcksEarly(Engine):
    """K11: a disk without a vote acknowledges before it knows which terms it may have promised."""

    def may_acknowledge(self) -> bool:
        return True


class VotesBeforeItsLeaderKnows(Engine):
    """K11: gets its vote back while the leader still counts what the lost disk acknowledged."""

    def caught_up(self) -> bool:
        return self.commit_index >= max(reply.last_index for reply in self.told.values())


class NoPreVote(Engine):
    """K10: stands for election whenever its timer runs out."""

    def may_campaign(self) -> bool:
        return self.log.voter


class AcksOfAnyTerm(Engine):
    """K3: counts acks of earlier reigns."""

    def on_ack(self, peer: Peer, message: Ack) -> None:
        super().on_ack(peer, msgspec.structs.replace(message, term=self.current_term))


class AppliesTwice(Engine):
    """K8: the index moves after the answers; an answer that raises applies the entry again."""

    def apply_next(self) -> None:
        before = self.applied_index
        super().apply_next()
        if self.rng.random() < 0.001:
            self.applied_index = before


class CountsItselfUnsynced(Engine):
    """ADR 0013: the leader sends before its own sync and counts itself at once."""

    def own_match(self) -> int:
        return self.log.last.index


class TrustsPrevious(Engine):
    """Raft, section 5.3: takes entries without comparing the term before them."""

    def append(self, peer: Peer, message: AppendEntries) -> int | None:
        if message.previous is not None and (mine := self.log.at(message.previous[0])) is not None:
            message = msgspec.structs.replace(message, previous=(mine.index, mine.term))
        return super().append(peer, message)


MUTANTS: dict[str, type[Engine]] = {
    mutant.__name__: mutant
    for mutant in (
        CutsAlways,
        CommitsUnproved,
        AcksUnproved,
        CountsVotesTwice,
        ForgetsTail,
        TakesOldSnapshots,
        CommitsOnParts,
        CutsBeforeDurable,
        RetreatsForward,
        LoadsLate,
        NumbersFromOne,
        ForgetsDisks,
        FoundsWithOne,
        FoundsFromOldAnswers,
        FirstElectionByMajority,
        AcksEarly,
        VotesBeforeItsLeaderKnows,
        NoPreVote,
        AcksOfAnyTerm,
        AppliesTwice,
        CountsItselfUnsynced,
        TrustsPrevious,
    )
}
