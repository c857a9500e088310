"""Commands: from a caller into the log, over the leader where needed, and out of the log into the state machine."""

import logging
from collections import deque
from dataclasses import dataclass

from tenured.raft.core import Core, Peer, State
from tenured.raft.interface import Answer, Applied, NotApplied, Outcome, Unknown
from tenured.raft.messages import NO_OP, REGULAR, Forward, ForwardReply

logger = logging.getLogger(__name__)

QUEUE_LIMIT = 20_000
"""Commands waiting for their turn. More are refused: not applied."""
TAKE_LIMIT = 500
APPLY_LIMIT = 200
TURN_BUDGET_S = 0.002
"""What one turn may spend on applying; the loop must not stand still for 5 ms."""
BUDGET_STRIDE = 8
"""Entries applied between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The follower that forwarded a command, and its request id."""

    peer: Peer
    request_id: int


class Commands(Core):
    """Rules K8, K9 and N3, and the bounds."""

    def prepare_commands(self) -> None:
        """Set up before the parent's __init__."""
        self.queue: deque[tuple[bytes, Answer | Origin, int | None]] = deque()
        self.waiting_commit: dict[int, list[tuple[int, Answer]]] = {}  # index -> (term it was placed in, caller)
        self.waiting_reply: dict[int, Answer] = {}
        self.asked_index = 0  # the last entry that a follower's caller waits for; a hint, of any term
        # N3: a reply to request 5 of this server's former life must not answer request 5 of this one.
        self.request_id = self.first_request_id()
        self.outbox.on_undelivered = self.undelivered

    def first_request_id(self) -> int:
        """Where request ids of this life begin."""
        return self.rng.getrandbits(60)

    # ---- in ------------------------------------------------------------------------------------------------------

    def submit(self, kind: int, command: bytes, answer: Answer, term: int | None = None) -> None:
        """Queue a command of a local caller. `answer` is called exactly once, or never (K9: keep a time-out).

        With a `term` it is placed only by this server as the leader of that term, and never forwarded: the leader's
        own entries (ticks, expiries) would mean something else in the log of its successor (protocol 1, leader 2, 4).
        """
        self.queue_up(bytes((kind,)) + command, answer, term)

    def queue_up(self, command: bytes, caller: Answer | Origin, term: int | None = None) -> None:
        """Bounded: what does not fit is refused at once."""
        if len(self.queue) >= QUEUE_LIMIT:
            self.refuse(caller, f"{QUEUE_LIMIT} commands are waiting already")
        else:
            self.queue.append((command, caller, term))

    def on_forward(self, peer: Peer, message: Forward) -> None:
        """A follower's command."""
        self.queue_up(message.command, Origin(peer, message.request_id))

    def take_commands(self) -> None:
        """Once a tick. Several commands of one tick travel in one message."""
        for _ in range(min(len(self.queue), TAKE_LIMIT)):
            command, caller, term = self.queue.popleft()
            if term is not None and (self.state != State.LEADER or self.current_term != term):
                self.refuse(caller, f"this server no longer leads term {term}")
            elif self.state == State.LEADER:
                self.place(command, caller)
            elif self.leader is not None and not isinstance(caller, Origin):
                self.forward(self.leader, command, caller)
            else:
                self.refuse(caller, "no leader is known" if self.leader is None else "this server is not the leader")

    def place(self, command: bytes, caller: Answer | Origin) -> None:
        """Append to the leader's log. What it completes, it completes once: here the command is not in any log yet."""
        if command[0] == REGULAR:
            command = command[:1] + self.complete(command[1:])
        index, term = self.log.last.index + 1, self.current_term
        self.log.add(command, index, term)
        if isinstance(caller, Origin):
            self.asked_index = index
            self.say(
                caller.peer, ForwardReply(term=term, request_id=caller.request_id, placed=(index, term), refusal="")
            )
        else:
            self.waiting_commit.setdefault(index, []).append((term, caller))

    def forward(self, leader: Peer, command: bytes, answer: Answer) -> None:
        """Send to the leader."""
        self.request_id += 1
        self.waiting_reply[self.request_id] = answer
        self.say(leader, Forward(term=self.current_term, request_id=self.request_id, command=command))

    def refuse(self, caller: Answer | Origin, reason: str) -> None:
        """Not applied, and never will be."""
        if isinstance(caller, Origin):
            reply = ForwardReply(term=self.current_term, request_id=caller.request_id, placed=None, refusal=reason)
            self.say(caller.peer, reply)
        else:
            self.outbox.answer(caller, NotApplied(reason))

    # ---- the leader's reply --------------------------------------------------------------------------------------

    def on_forward_reply(self, _peer: Peer, message: ForwardReply) -> None:
        """The command has a place; its outcome is known when this server applies that place."""
        answer = self.waiting_reply.pop(message.request_id, None)
        if answer is None:
            return
        if message.placed is None:
            self.outbox.answer(answer, NotApplied(message.refusal))
        elif message.placed[0] <= self.applied_index:  # jumped over, or the reply is late
            self.outbox.answer(answer, Unknown(f"entry {message.placed[0]} was applied before its reply came"))
        else:
            index, term = message.placed
            self.waiting_commit.setdefault(index, []).append((term, answer))

    def undelivered(self, message: Forward) -> None:
        """The link said that this command never left."""
        answer = self.waiting_reply.pop(message.request_id, None)
        if answer is not None:
            self.outbox.answer(answer, NotApplied("the leader is not connected"))

    def forget_forwarded(self) -> None:
        """K9: the reply will not come, the command may still be applied."""
        for request_id in sorted(self.waiting_reply):
            self.outbox.answer(self.waiting_reply.pop(request_id), Unknown("the leader changed before it replied"))

    def forget_placed(self, index: int) -> None:
        """K9: a snapshot jumped over these entries; whether the commands in them were ours is not known."""
        for covered in sorted(i for i in self.waiting_commit if i <= index):
            for _, answer in self.waiting_commit.pop(covered):
                self.outbox.answer(answer, Unknown(f"a snapshot replaced entry {covered}"))

    # ---- out -----------------------------------------------------------------------------------------------------

    @property
    def appliable(self) -> int:
        """What a majority has on its disks: no power cut forgets it. A follower waits for its own disk besides.

        The leader does not: two faster followers need not wait for its disk. A follower's answers hurry nobody, and its
        state, hence its snapshot, never runs ahead of its own vote.
        """
        if self.state == State.LEADER:
            return self.commit_index
        return min(self.commit_index, self.log.durable_index)

    def apply_committed(self) -> None:
        """Apply within the turn's budget. `behind` says whether there is more."""
        start = self.now()
        for done in range(APPLY_LIMIT):
            if self.applied_index >= self.appliable:
                return
            if done % BUDGET_STRIDE == BUDGET_STRIDE - 1 and self.now() - start > TURN_BUDGET_S:
                return
            self.apply_next()

    def apply_next(self) -> None:
        """Apply one entry and answer who waits for it. The index moves first: no entry is applied twice (K8)."""
        entry = self.log.at(self.applied_index + 1)
        if entry is None:
            raise LookupError(f"entry {self.applied_index + 1} is committed and not in the log")
        outcome = self.run(entry.index, entry.command)
        self.applied_index = entry.index
        for term, answer in self.waiting_commit.pop(entry.index, ()):
            mine = term == entry.term
            self.outbox.answer(answer, outcome if mine else NotApplied("another leader's entry took its place"))

    def run(self, index: int, command: bytes) -> Outcome:
        """One entry through the state machine.

        K8: a command that raises must not stop every server for ever. It must raise the same on all of them.
        """
        if command[0] == NO_OP:
            return Applied(index, b"")
        if command[0] != REGULAR:
            raise ValueError(f"entry {index} is of the unknown kind {command[0]}")
        try:
            return Applied(index, self.machine.apply(index, command[1:]))
        except MemoryError:
            raise  # not deterministic: this server alone would skip it
        except Exception:  # a bug in the state machine; logged, told as unknown, and the log goes on
            logger.exception("the state machine raised at entry %d", index)
            return Unknown(f"the state machine failed at entry {index}")
