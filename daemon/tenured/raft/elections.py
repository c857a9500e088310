"""Elections: votes that count once, a vote before the vote, and leadership handed over."""

from tenured.raft.core import Peer, State
from tenured.raft.messages import Hint, PreVote, RequestPreVote, RequestVote, TimeoutNow, Vote
from tenured.raft.replication import Replication


class Elections(Replication):
    """Rules K4 and K10."""

    def prepare_elections(self) -> None:
        """Set up before the parent's __init__."""
        self.ballot: tuple[int, set[str]] = (0, set())  # (term, who voted for me in it)
        self.poll_term = 0  # the term that a pre-vote asks about; 0: none runs
        self.poll_yes: set[str] = set()
        self.poll_since = 0.0

    # ---- votes ---------------------------------------------------------------------------------------------------

    def on_request_vote(self, peer: Peer, message: RequestVote) -> None:
        """Grant at most one vote a term, to a log that is not behind, from a disk that carries a vote (K11)."""
        if message.term < self.current_term:
            self.say(peer, Hint(term=self.current_term))
            return
        free = self.voted_for in (None, peer.name)
        if self.state == State.LEADER or not free or not self.log.voter or not self.up_to_date(message):
            return
        if self.voted_for is None:
            self.set_term(message.term, peer.name)
        self.defer_election()
        self.say(peer, Vote(term=self.current_term))

    def on_vote(self, peer: Peer, message: Vote) -> None:
        """K4: a voter counts once, however often its vote arrives."""
        if self.state != State.CANDIDATE or message.term != self.current_term:
            return
        if self.ballot[0] != message.term:
            self.ballot = (message.term, set())
        if self.count_vote(peer):
            self.vote_count += 1
            if self.majority(self.vote_count):
                self.become_leader()

    def count_vote(self, peer: Peer) -> bool:
        """Whether this vote is new."""
        new = peer.name not in self.ballot[1]
        self.ballot[1].add(peer.name)
        return new

    def up_to_date(self, message: RequestVote | RequestPreVote) -> bool:
        """Raft, section 5.4.1."""
        return (message.last_term, message.last_index) >= (self.log.last.term, self.log.last.index)

    def defer_election(self) -> None:
        """Start the election timer anew, unless leadership is being handed to this server."""
        if not self.transferring:
            self.election_deadline = self.now() + self.random_timeout()

    def heard_leader(self) -> None:
        """A leader is there: no election, and no pre-vote that was begun without it."""
        self.heard_leader_at = self.now()
        self.poll_term = 0
        self.defer_election()

    def forget_silent_leader(self) -> None:
        """Once a tick. A leader that is silent for the longest election timeout is none to forward to, or to show."""
        silent = self.now() - self.heard_leader_at > self.config.election_max_s
        if self.state == State.FOLLOWER and self.leader is not None and silent:
            self.leader = None
            self.forget_forwarded()

    def lost_link_to_leader(self) -> None:
        """The connection to the leader ended: a dead process, or a network that resets. A hint, no proof.

        A leader that lives says so within one heartbeat, on a connection of its own, and all is as before
        (`heard_leader`).
        If two pass in silence, this server stands soon, and agrees that others do. Nobody is elected without a majority
        that hears no leader either; terms and votes are untouched.
        """
        if self.state == State.FOLLOWER:
            now, wait = self.now(), 2 * self.parameters.appendEntriesPeriod
            self.heard_leader_at = min(self.heard_leader_at, now + wait - self.config.election_min_s)
            self.election_deadline = min(self.election_deadline, now + wait * (1 + self.rng.random()))

    def on_hint(self, peer: Peer, message: Hint) -> None:
        """The higher term was taken over before this was called; there is nothing else in a hint."""

    # ---- pre-vote (Raft thesis, section 9.6) ---------------------------------------------------------------------

    def may_campaign(self) -> bool:
        """K10: raise the term only when a majority would vote now. A server that hears nobody burns no terms."""
        if not self.log.voter:
            return False
        if not self.peers or self.transferring:
            return True
        term = self.current_term + 1
        if self.poll_term == term and self.enough(len(self.poll_yes) + 1):
            self.poll_term = 0
            return True
        if self.poll_term != term or self.now() - self.poll_since > self.config.election_min_s:
            self.poll_term, self.poll_yes, self.poll_since = term, set(), self.now()
            last = self.log.last
            self.say_to_all(RequestPreVote(term=term, last_index=last.index, last_term=last.term))
        return False

    def enough(self, yes: int) -> bool:
        """Whether so many, with this server, are enough to stand."""
        return self.majority(yes)

    def on_request_pre_vote(self, peer: Peer, message: RequestPreVote) -> None:
        """Yes, if this server misses its leader as well and would vote for that log."""
        if message.term <= self.current_term:
            self.say(peer, Hint(term=self.current_term))
            return
        alone = self.state != State.LEADER and self.now() - self.heard_leader_at >= self.config.election_min_s
        if alone and self.log.voter and self.up_to_date(message):
            self.say(peer, PreVote(term=message.term))

    def on_pre_vote(self, peer: Peer, message: PreVote) -> None:
        """A yes to the question that is open."""
        if message.term == self.poll_term:
            self.poll_yes.add(peer.name)

    # ---- handing over (Raft thesis, section 3.10) ----------------------------------------------------------------

    def on_timeout_now(self, peer: Peer, message: TimeoutNow) -> None:
        """The leader asks this server to take over: stand at the next tick, and let its heartbeats not prevent it."""
        if message.term >= self.current_term and peer == self.leader and self.log.voter:
            self.election_deadline = 0
            self.transferring = True
