"""The checker: every rule is tested while the run goes on, against what was ever seen in this world."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from tenured.raft.core import State
from tenured.raft.interface import Applied, NotApplied, Outcome
from tenured.raft.messages import PreVote, RequestPreVote, RequestVote, Vote, decode_frame
from tenured.raft.records import Entry

if TYPE_CHECKING:
    from tests.raft.sim.host import Host
    from tests.raft.sim.world import World


@dataclass
class Operation:
    """One call of a client."""

    cid: str
    kind: str
    host: str
    incarnation: int
    began: float
    ended: float = 0.0
    outcome: Outcome | None = None


class Check:
    """`found` is a list of (rule, time, details), each rule once."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.found: list[tuple[str, float, tuple[object, ...]]] = []
        self.fatal = False
        self.leaders: dict[int, tuple[str, int]] = {}  # term -> (name, incarnation)
        self.votes: dict[tuple[str, int], str] = {}  # (voter, term) -> candidate
        self.asked: dict[tuple[str, int], tuple[int, int]] = {}  # (candidate, term) -> (term, index) of its log's end
        self.begun = False  # somebody stood for election
        self.entries: dict[tuple[int, int], list[object]] = {}  # (index, term) -> [command, term before it]
        self.committed: dict[int, tuple[bytes, int]] = {}  # index -> (command, term)
        self.committed_in: dict[int, int] = {}  # index -> term of who committed it first
        self.order: list[str] = []  # the one history
        self.place: dict[str, int] = {}  # command -> its place in the history

    def bad(self, rule: str, *details: object, fatal: bool = True) -> None:
        if not any(known == rule for known, *_ in self.found):
            self.found.append((rule, round(self.world.now, 4), details))
        self.world.log("VIOLATION", rule, *details)
        self.fatal |= fatal

    def exception(self, host: Host, error: Exception) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        self.world.log("EXCEPTION", host.name, *traceback.format_exception(error)[-3:])
        self.bad(f"{type(error).__name__} in {where.name}", host.name, str(error)[:120], fatal=False)

    # ---- log matching, by induction: one entry per (index, term), and one term before it -------------------------

    def added(self, host: Host, entry: Entry, before: Entry | None) -> None:
        if before is not None and entry.index != before.index + 1:
            self.bad("gap in the log", host.name, before.index, entry.index)
        known = self.entries.setdefault((entry.index, entry.term), [entry.command, None])
        if known[0] != entry.command:
            self.bad("two entries with one index and term", host.name, entry.index, entry.term)
        if before is not None and entry.index > 1:
            if known[1] is None:
                known[1] = before.term
            elif known[1] != before.term:
                self.bad("prefixes of one entry differ", host.name, entry.index, entry.term)

    def cut(self, host: Host, index: int) -> None:
        if host.engine is not None and index <= host.engine.commit_index:
            self.bad("committed entry cut", host.name, index, host.engine.commit_index, fatal=False)

    def disk_lost(self, host: Host) -> None:
        """A candidate's vote for itself may be lost with its disk: nobody else counted it, and its reign ended."""
        self.votes = {key: choice for key, choice in self.votes.items() if (key[0], choice) != (host.name, host.name)}

    # ---- messages that left, commands that were applied -----------------------------------------------------------

    def sent(self, host: Host, peer: str, frame: bytes) -> None:
        for message in decode_frame(frame):
            if isinstance(message, RequestVote | RequestPreVote):
                self.asked[host.name, message.term] = (message.last_term, message.last_index)
            elif isinstance(message, Vote | PreVote):
                self.votes_for_what_is_known(host, peer, message.term)
            if isinstance(message, Vote | RequestVote):
                choice = peer if isinstance(message, Vote) else host.name
                if self.votes.setdefault((host.name, message.term), choice) != choice:
                    self.bad("two votes in one term", host.name, message.term, choice)

    def votes_for_what_is_known(self, host: Host, candidate: str, term: int) -> None:
        """Raft, section 5.4.1: what a snapshot covers that the voter started with is part of the voter's log.

        One that it is still taking from its leader is not yet: nothing of it was acknowledged.
        """
        snapshot, asked = host.began_with, self.asked.get((candidate, term))
        if snapshot is not None and asked is not None and asked < (snapshot[0][1], snapshot[0][0]):
            self.bad("vote for a log behind the voter's snapshot", host.name, candidate, term, asked, snapshot[0])

    def applied(self, host: Host, place: int, cid: str) -> None:
        if self.place.setdefault(cid, place) != place:
            self.bad("applied twice", host.name, cid)
        if place < len(self.order):
            if self.order[place] != cid:
                self.bad("state machines diverge", host.name, place, self.order[place], cid)
        elif place == len(self.order):
            self.order.append(cid)
        else:
            self.bad("state machine skips", host.name, place)

    def answered(self, operation: Operation, outcome: Outcome) -> None:
        if operation.outcome is not None:
            self.bad("answered twice", operation)
        operation.outcome, operation.ended = outcome, self.world.now

    # ---- after every event ---------------------------------------------------------------------------------------

    def after(self, host: Host) -> None:
        engine = host.engine
        log = engine.log
        if not len(log):
            self.bad("empty log", host.name)
            return
        commit, applied = engine.commit_index, engine.applied_index
        self.begun |= engine.current_term > 0
        if commit > log.last.index:
            self.bad("commit index ahead of the log", host.name, commit, log.last.index)
            return
        for index in range(max(host.commit + 1, log.first.index), commit + 1):
            entry = log[index - log.first.index]
            self.committed_in.setdefault(index, engine.current_term)
            if self.committed.setdefault(index, (entry.command, entry.term)) != (entry.command, entry.term):
                self.bad("two different entries committed", host.name, index)
                return
        if commit < host.commit:
            self.bad("commit index went back", host.name, host.commit, commit, fatal=False)
        if applied < host.applied:
            self.bad("state went back", host.name, host.applied, applied)
        if host.machine.restored:
            host.machine.restored = False
            self.world.coverage["snapshot taken"] += 1
            if host.machine.commands != self.order[: len(host.machine.commands)]:
                self.bad("snapshot is not a prefix of the history", host.name)
        host.commit, host.applied = commit, applied
        if engine.state == State.LEADER:
            self.reigns(host)
            self.counts_what_is_there(host)

    def reigns(self, host: Host) -> None:
        """One leader a term, and it has every entry that was committed in an earlier one.

        A late vote may still make a leader of a term that is long over; nobody follows it.
        """
        term, me = host.engine.current_term, (host.name, host.incarnation)
        if self.leaders.setdefault(term, me) != me:
            self.bad("two leaders in one term", term, self.leaders[term], me)
        elif host.reign != (term, host.incarnation):
            host.reign = (term, host.incarnation)
            self.world.coverage["election"] += 1
            log = host.engine.log
            for index, (command, entry_term) in self.committed.items():
                mine = log.at(index)
                if self.committed_in[index] >= term:
                    continue
                if index >= log.first.index and (mine is None or (mine.command, mine.term) != (command, entry_term)):
                    self.bad("leader lacks a committed entry", host.name, term, index)
                    return

    def counts_what_is_there(self, host: Host) -> None:
        """What the leader counts as stored at a follower is stored there."""
        leader, log = host.engine, host.engine.log
        for peer, match in leader.match_index.items():
            follower = self.world.hosts[peer.name].engine
            if follower is None or follower.current_term != leader.current_term or match <= log.first.index:
                continue
            if follower.log.born != leader.born_of.get(peer.name, follower.log.born):
                continue  # its disk was replaced, the leader has not heard yet
            theirs, mine = follower.log.at(match), log.at(match)
            if match >= follower.log.first.index and (theirs is None or mine is None or theirs.term != mine.term):
                self.bad("acknowledged entry is not there", host.name, peer.name, match)

    # ---- at the end ----------------------------------------------------------------------------------------------

    def level(self) -> bool:
        return len({(h.engine.applied_index, len(h.machine.commands)) for h in self.world.alive()}) == 1

    def final(self, level: bool) -> None:
        if self.fatal:
            return
        if not level:
            states = [(h.name, h.engine and h.engine.role()) for h in self.world.hosts.values()]
            self.bad("no progress after heal", *states)
            return
        self.outcomes_are_true()
        for host in self.world.alive():
            if host.machine.commands != self.order:
                self.bad("a server lacks commands", host.name)

    def outcomes_are_true(self) -> None:
        """Applied: in the history, with the result of a replay, in real-time order. Not applied: not in it."""
        results, register = [], None
        operations = self.world.operations
        for place, cid in enumerate(self.order):
            results.append([place, register])
            if operations[cid].kind == "set":
                register = cid
        done = []
        for cid, operation in operations.items():
            place = self.place.get(cid)
            if isinstance(operation.outcome, Applied):
                if place is None:
                    self.bad("acknowledged command lost", cid)
                    continue
                if msgspec.msgpack.decode(operation.outcome.result) != results[place]:
                    self.bad("result is not that of the history", cid, results[place])
                done.append((place, operation.began, operation.ended))
            elif isinstance(operation.outcome, NotApplied) and place is not None:
                self.bad("certain failure, yet applied", cid)
        latest = float("inf")  # nothing later in the history was answered before an earlier one began
        for place, began, ended in sorted(done, reverse=True):
            if began > latest:
                self.bad("not linearizable", place)
            latest = min(latest, ended)
