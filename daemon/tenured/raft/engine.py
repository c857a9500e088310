"""The engine: all rules in one object, without clock, disk, network, threads or event loop of its own.

Whoever drives it (consensus.py on asyncio, tests/raft/sim in virtual time) has these duties, in this order:

1. feed what happened: `received`, `connected`, `disconnected`, `propose`, `barrier`, any number of times in one turn;
2. `tick()` once, at the end of each turn in which something is `due` and at least every `tick_s`; 3. `end_turn()`:
what the turn said is now bound to the records that it gave to the log; when `tells_later`, `tell_commit()` and a turn
a millisecond later; 4. `synced(sequence)` when the log's writer
says so: that lets the bound output leave. Then a tick, for what may be applied; 5. when `behind` is true, another
turn soon.
"""

import logging
from collections.abc import Callable
from typing import Any

from tenured.raft.core import Peer, Seams, State, settings
from tenured.raft.interface import Answer, PeerStatus, RaftConfig, Role
from tenured.raft.messages import (
    NO_OP,
    REGULAR,
    Ack,
    AnyMessage,
    AppendEntries,
    BadFrame,
    Forward,
    ForwardReply,
    Hint,
    InstallSnapshot,
    PreVote,
    Rejoin,
    RejoinReply,
    RequestPreVote,
    RequestVote,
    SnapshotAck,
    TimeoutNow,
    Vote,
    decode_frame,
)
from tenured.raft.rejoin import Rejoining
from tenured.raft.replication import WINDOW

logger = logging.getLogger(__name__)

READY_LAG = 1000
"""A server that once had everything stays ready while it is at most this many entries behind."""

OF_A_TERM = (AppendEntries, InstallSnapshot, RequestVote, Vote, Ack, SnapshotAck, Hint)
"""Messages whose term is the sender's own: a higher one is taken over (Raft, section 5.1)."""


class Engine(Rejoining):
    """PySyncObj with the whole rule set. `parameters` is for tests; see core.settings."""

    def __init__(self, config: RaftConfig, seams: Seams, parameters: Any | None = None) -> None:
        self.told_news = (0, 0, 0)
        self.hurry = False
        self.patient = False
        self.promised: object = None  # term, vote and standing at the end of the last turn
        self.turned = 0  # the log's sequence number at the end of the last turn
        self.floor = 0  # the log's sequence number at the end of the turn in which they changed last
        self.handlers = self.table()
        super().__init__(config, seams, settings(config) if parameters is None else parameters)

    def prepare(self) -> None:
        """Attributes of the rules, before the parent's __init__ (N12)."""
        self.prepare_commands()
        self.prepare_replication()
        self.prepare_elections()
        self.prepare_rejoin()
        self.prepare_compaction()

    def begin(self) -> None:
        """After the parent's __init__: the state is whole before the first message is looked at (N8)."""
        self.begin_disk()
        self.commit_index = min(self.commit_index, self.log.last.index)
        self.restore()
        self.snapshot_pending = False

    def table(self) -> dict[type, Callable[[Peer, Any], None]]:
        """Which rule a message goes to."""
        return {
            AppendEntries: self.on_append_entries,
            InstallSnapshot: self.on_install_snapshot,
            Ack: self.on_ack,
            SnapshotAck: self.on_snapshot_ack,
            RequestVote: self.on_request_vote,
            Vote: self.on_vote,
            RequestPreVote: self.on_request_pre_vote,
            PreVote: self.on_pre_vote,
            Hint: self.on_hint,
            TimeoutNow: self.on_timeout_now,
            Rejoin: self.on_rejoin,
            RejoinReply: self.on_rejoin_reply,
            Forward: self.on_forward,
            ForwardReply: self.on_forward_reply,
        }

    # ---- what happened -------------------------------------------------------------------------------------------

    def received(self, peer_name: str, frame: bytes) -> None:
        """A frame from a peer. One that is no frame is dropped with a log line: a peer's fault is not ours."""
        peer = self.peers.get(peer_name)
        if peer is None:
            logger.warning("dropped a frame of %s, which is no server of this cluster", peer_name)
            return
        try:
            messages = decode_frame(frame)
        except BadFrame as error:
            logger.warning("dropped a malformed frame of %s: %s", peer_name, error)
            return
        self.enter()
        for message in messages:
            self.handle(peer, message)

    def handle(self, peer: Peer, message: AnyMessage) -> None:
        """One message, by the rules."""
        leads = isinstance(message, AppendEntries | InstallSnapshot)
        if leads and not self.may_acknowledge():
            return
        if isinstance(message, OF_A_TERM) and message.term > self.current_term:
            self.step_down(message.term)
        self.handlers[type(message)](peer, message)

    def connected(self, peer_name: str) -> None:
        """A stream to the peer is open."""
        peer = self.peers.get(peer_name)
        if peer is not None:
            self.enter()
            self.connected_peers.add(peer)

    def disconnected(self, peer_name: str) -> None:
        """The stream is gone, and with it what was forwarded on it (K9)."""
        peer = self.peers.get(peer_name)
        if peer is not None:
            self.enter()
            self.connected_peers.discard(peer)
            self.poll_yes.discard(peer_name)  # what comes back may be another disk, without a vote
            if peer == self.leader:
                self.forget_forwarded()
                self.lost_link_to_leader()

    def propose(self, command: bytes, answer: Answer, term: int | None = None) -> None:
        """Queue a command; it is taken at the next tick. With a `term`: only as the leader of that term."""
        self.submit(REGULAR, command, answer, term)

    def barrier(self, answer: Answer) -> None:
        """An entry without a command. Once it is applied here, so is all that was acknowledged before it began."""
        self.submit(NO_OP, b"", answer)

    def hand_over(self) -> None:
        """Ask the most advanced follower to take over. Does nothing unless this server leads and that one has all."""
        self.enter()
        self.transferLeadership()

    # ---- turns ---------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Timers, commits, applying, sending. The leader says news in the turn in which it is news; see `urgent`."""
        self.enter()
        self.rejoin()
        self.forget_silent_leader()
        self.restore_some()
        self.advance_commit()
        self.doTick(0)
        if self.state == State.LEADER and (self.urgent() or self.has_unsent()):
            self.send_entries()
        elif self.state != State.LEADER:
            self.snapshots.stop_sending_all()

    @property
    def due(self) -> bool:
        """Whether a tick has something to do now. Timers that a turn cannot have changed wait for the next `tick_s`."""
        if self.state == State.LEADER and self.urgent():
            return True
        stands = self.state != State.LEADER and self.election_deadline < self.now()  # a poll may just have been won
        return stands or self.behind or not self.log.voter

    @property
    def stores(self) -> bool:
        """Whether this turn gave the log of a follower something to write."""
        return self.state == State.FOLLOWER and self.log.sequence > self.turned

    def send_entries(self) -> None:
        super().send_entries()
        self.told_news, self.hurry = self.news(), False

    def urgent(self) -> bool:
        """Whether followers should hear something now.

        That the commit index moved, and nothing else, waits a little (`tells_later`) if the driver is `patient`: the
        next entries, which often follow the answer to these, carry it. Not when a follower's caller waits (ADR 0013).
        """
        now, told = self.news(), self.told_news
        if now[:2] != told[:2]:
            return True
        return now[2] != told[2] and (self.hurry or not self.patient or told[2] < self.asked_index)

    @property
    def tells_later(self) -> bool:
        """Whether followers have yet to hear of the commit index, and nothing hurries."""
        return self.state == State.LEADER and self.news() != self.told_news and not self.urgent()

    def tell_commit(self) -> None:
        """Do not put it off any longer: the next tick says it."""
        self.hurry = True

    def end_turn(self) -> None:
        """Bind the turn's output to the log. What may leave early waits for the record of the term alone (ADR 0013)."""
        log = self.log
        promised = log.term, log.vote, log.voter, log.born
        if promised != self.promised:
            self.promised, self.floor = promised, log.sequence
        self.turned = log.sequence
        self.outbox.end_turn(log.sequence, self.floor)

    def synced(self, sequence: int) -> None:
        """The log is on the disk up to this record."""
        self.enter()
        self.log.synced(sequence)
        self.outbox.synced(sequence)

    @property
    def behind(self) -> bool:
        """Whether another turn has work now: commands or a state to take, entries to commit, to apply or to send."""
        taking = bool(self.queue) or self.restoration is not None
        return taking or self.applied_index < self.appliable or self.can_commit() or self.has_unsent()

    def has_unsent(self) -> bool:
        """Whether a connected follower lacks entries that may be sent."""
        if self.state != State.LEADER:
            return False
        last, first = self.log.last.index, self.log.first.index
        return any(
            self.next_index[peer] <= last and self.next_index[peer] - self.match_index[peer] <= WINDOW
            if self.next_index[peer] > first
            else self.snapshots.has_room(peer.name)
            for peer in self.connected_peers
        )

    # ---- what it looks like --------------------------------------------------------------------------------------

    @property
    def lag(self) -> int:
        """Entries known to be committed and not applied here."""
        return max(self.commit_index, self.leader_commit or 0) - self.applied_index

    @property
    def ready(self) -> bool:
        """It votes, knows a leader, and has what that leader had committed. A leader does not know that before an entry
        of its own term is committed (Raft, section 8): until it has applied one, it may lack what others acknowledged.
        """
        if self.state == State.LEADER:
            applied = self.log.at(self.applied_index)
            if applied is None or applied.term != self.current_term:
                return False
        return bool(self.log.voter and self.leader is not None and self.isReady() and self.lag <= READY_LAG)

    @property
    def stance(self) -> tuple[Peer | None, int, State, bool]:
        """What of the outline is worth a look in every turn; the rest may be seen a `tick_s` later, but not while this
        server waits to be ready.
        """
        return self.leader, self.current_term, self.state, self.log.voter

    def outline(self) -> tuple[Peer | None, int, State, bool, bool]:
        """What of the role is worth a call when it changes."""
        return self.leader, self.current_term, self.state, self.ready, self.log.voter

    def role(self) -> Role:
        """A view of this moment."""
        leads = self.state == State.LEADER
        return Role(
            name=self.config.name,
            term=self.current_term,
            leader=None if self.leader is None else self.leader.name,
            is_leader=leads,
            ready=self.ready,
            commit_index=self.commit_index,
            applied_index=self.applied_index,
            lag=self.lag,
            voter=self.log.voter,
            peers={name: self.peer_status(peer, leads) for name, peer in self.peers.items()},
        )

    def peer_status(self, peer: Peer, leads: bool) -> PeerStatus:
        """What is known of a peer."""
        lag = self.log.last.index - self.match_index[peer] if leads else None
        return PeerStatus(connected=peer in self.connected_peers, lag=lag)
