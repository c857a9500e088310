"""The log from leader to followers: what is sent, what is accepted, what an ack proves. Raft, figure 2, and no more."""

from tenured.raft.compaction import Compacting
from tenured.raft.core import Peer, State
from tenured.raft.interface import InvariantBroken
from tenured.raft.messages import Ack, AppendEntries, Hint
from tenured.raft.records import Entry

BATCH_BYTES = 1 << 16
BATCH_ENTRIES = 512
BURST = 4
"""Messages to one peer in one turn. The next acks, or the next tick, send more: no turn sends a whole log."""
WINDOW = 4096
"""Entries on their way to one peer without an ack. Beyond it only heartbeats go."""


class Replication(Compacting):
    """Rules K1, K2, K3, N4, N7, N10."""

    batch_bytes = BATCH_BYTES

    def prepare_replication(self) -> None:
        """Set up before the parent's __init__."""
        self.quiet = False
        self.born_of: dict[str, int] = {}  # newest birth stamp seen of each peer's disk, by a leader

    # ---- leader --------------------------------------------------------------------------------------------------

    def send_entries(self) -> None:
        """To every connected peer: what it lacks, or a heartbeat.

        Between two heartbeats a message without entries is quiet: it costs no ack, and puts no heartbeat off.
        """
        now = self.now()
        self.quiet = now < self.next_heartbeat
        if not self.quiet:
            self.next_heartbeat = now + self.parameters.appendEntriesPeriod
        for peer in self.peers.values():
            if peer in self.connected_peers:
                self.send_to(peer)
            else:
                self.snapshots.stop_sending(peer.name)

    def send_to(self, peer: Peer) -> None:
        """At least one message; at most BURST."""
        for _ in range(BURST):
            if self.next_index[peer] > self.log.first.index:
                self.snapshots.stop_sending(peer.name)
                self.send_batch(peer)
            elif not self.send_part(peer):
                return
            in_flight = self.next_index[peer] - self.match_index[peer]
            if self.next_index[peer] > self.log.last.index or in_flight > WINDOW:
                return

    def send_batch(self, peer: Peer) -> None:
        """The next entries. N7: whole ones only, never parts of one; the size of a command is bounded at the edge."""
        start = self.next_index[peer]
        before = self.log.at(start - 1)
        entries = self.batch(start) if start - self.match_index[peer] <= WINDOW else []
        self.next_index[peer] = start + len(entries)
        self.say(
            peer,
            AppendEntries(
                term=self.current_term,
                commit_index=self.commit_index,
                previous=None if before is None else (before.index, before.term),
                entries=entries if before is not None else [],
                quiet=self.quiet,
            ),
        )

    def batch(self, start: int) -> list[Entry]:
        """Entries from `start` on, up to the limits; at least one if there is one."""
        entries, size = self.log.between(start, BATCH_ENTRIES), 0
        for count, entry in enumerate(entries):
            size += len(entry.command)
            if size >= self.batch_bytes:
                return entries[: count + 1]
        return entries

    def on_ack(self, peer: Peer, message: Ack) -> None:
        """K3: an ack counts in the term that it was given in, and for the disk that gave it."""
        if not self.counts(peer, message.term, message.born):
            return
        self.heard_from[peer] = self.now()
        if message.success:
            self.match_index[peer] = max(self.match_index[peer], message.next_index - 1)
            # K1: an ack never moves nextIndex back, or entries on their way would be sent again.
            self.next_index[peer] = max(self.next_index[peer], message.next_index)
        else:
            self.next_index[peer] = self.retreat(peer, message.next_index)

    def counts(self, peer: Peer, term: int, born: int) -> bool:
        """K3, K11: whether an ack was given in this term, and for the disk that is there now."""
        return self.state == State.LEADER and term >= self.current_term and self.knows_disk(peer, born)

    def retreat(self, peer: Peer, hint: int) -> int:
        """N4: a refusal only moves back. Of many answers to a burst the first names the conflict, others the end."""
        return max(self.match_index[peer] + 1, min(hint, self.next_index[peer]))

    def knows_disk(self, peer: Peer, born: int) -> bool:
        """K11: a newer birth stamp voids what the old disk acknowledged; an older one is from before the loss."""
        known = self.born_of.setdefault(peer.name, born)
        if born > known:
            self.born_of[peer.name] = born
            self.match_index[peer] = 0
        return born >= known

    def own_match(self) -> int:
        """What the leader counts as stored at itself: what its disk has. It sends before that (ADR 0013)."""
        return self.log.durable_index

    def quorum_index(self) -> int:
        """The highest index that a majority of the voters has on disk, as far as the leader knows."""
        stored = [self.own_match(), *self.match_index.values()]
        stored.sort(reverse=True)
        return stored[self.voters // 2]

    def can_commit(self) -> bool:
        """Raft, section 5.4.2: only an entry of the own term commits, and with it all before it."""
        if self.state != State.LEADER:
            return False
        index = self.quorum_index()
        entry = self.log.at(index) if index > self.commit_index else None
        return entry is not None and entry.term == self.current_term

    def advance_commit(self) -> None:
        """Once a tick, the leader's commit rule. Takes the place of the parent's."""
        if self.can_commit():
            self.commit_index = self.quorum_index()
            self.log.setRaftCommitIndex(self.commit_index)

    def news(self) -> tuple[int, int, int]:
        """What followers should hear of in the turn in which it changes."""
        return self.current_term, self.log.last.index, self.commit_index

    # ---- follower ------------------------------------------------------------------------------------------------

    def on_append_entries(self, peer: Peer, message: AppendEntries) -> None:
        """Take entries, and the leader's commit index as far as this message proves it."""
        if self.follow(peer, message.term):
            matched = self.append(peer, message)
            if matched is not None:
                self.learn_commit(message.commit_index, matched)
                if message.entries or not message.quiet:
                    self.acknowledge(peer, matched)

    def follow(self, peer: Peer, term: int) -> bool:
        """Accept `peer` as the leader of `term`. False: its reign is over, and it is told so (K10)."""
        if term < self.current_term:
            self.say(peer, Hint(term=self.current_term))
            return False
        self.heard_leader()
        if self.leader != peer:
            self.forget_forwarded()
            self.leader = peer
        self.become(State.FOLLOWER)
        return True

    def append(self, peer: Peer, message: AppendEntries) -> int | None:
        """Returns the last index proved equal to the leader's log, None when nothing is."""
        log = self.log
        if message.previous is None or message.previous[0] > log.last.index:
            self.deny(peer, log.last.index + 1)
            return None
        previous, term = message.previous
        entries = message.entries
        if previous < log.first.index:  # below the start all is committed, hence equal
            entries = entries[log.first.index - previous :]
            previous = min(log.first.index, previous + len(message.entries))
        elif log[previous - log.first.index].term != term:
            self.deny(peer, self.start_of_conflict(previous))
            return None
        self.merge(entries)
        return previous + len(entries)

    def merge(self, entries: list[Entry]) -> None:
        """K1: skip what is here already, cut only at a real conflict, add the rest."""
        log = self.log
        while entries and (mine := log.at(entries[0].index)) is not None and mine.term == entries[0].term:
            entries = entries[1:]
        if entries and entries[0].index <= log.last.index:
            if entries[0].index <= self.commit_index:
                raise InvariantBroken(f"the leader asks to cut committed entry {entries[0].index}")
            log.cut_from(entries[0].index)
        for entry in entries:
            log.add(*entry)

    def start_of_conflict(self, index: int) -> int:
        """The first index of the conflicting term that holds `index`: one step back for a whole term."""
        first, floor = self.log.first.index, max(self.log.first.index, self.commit_index)
        term = self.log[index - first].term
        while index - 1 > floor and self.log[index - 1 - first].term == term:
            index -= 1
        return index

    def learn_commit(self, commit_index: int, matched: int) -> None:
        """K2: committed here is what the leader committed *and* this message proved to be in this log."""
        self.leader_commit = max(commit_index, self.leader_commit or 0)
        commit = min(commit_index, self.provable(matched))
        if commit > self.commit_index:
            self.commit_index = commit
            self.log.setRaftCommitIndex(commit)

    def provable(self, matched: int) -> int:
        """How far a message that matched up to `matched` speaks for this log."""
        return matched

    def acknowledge(self, peer: Peer, matched: int) -> None:
        """K2: only what was proved; the log may be longer, with entries the leader never had."""
        self.say(peer, Ack(term=self.current_term, next_index=matched + 1, success=True, born=self.log.born))

    def deny(self, peer: Peer, try_at: int) -> None:
        """Send me what comes before."""
        self.say(peer, Ack(term=self.current_term, next_index=max(1, try_at), success=False, born=self.log.born))

    def heard_leader(self) -> None:
        """The leader of the current term spoke. Defined in elections.py."""
        raise NotImplementedError
