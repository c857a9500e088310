"""The barrier: no promise leaves before everything that the log got until then is on the disk (K6).

A turn's messages are kept together with the log's sequence number at its end. `synced` lets them go, in order. One
flush a turn and a peer: all messages for it travel as one frame. Two things do not wait (docs/adr/0013):

* what a leader sends, and commands on their way to it (`EARLY`): they promise nothing about the sender's disk but its
  term, so the record of the term (the floor) is enough. They may overtake what is kept, and keep their own order.
* answers to callers: they tell what a majority has on disk, or promise nothing.
"""

import logging
from collections import deque
from collections.abc import Callable

from tenured.raft.interface import Answer, Outcome
from tenured.raft.messages import (
    AnyMessage,
    AppendEntries,
    Forward,
    ForwardReply,
    InstallSnapshot,
    encode_frame,
)

logger = logging.getLogger(__name__)

EARLY = (AppendEntries, InstallSnapshot, Forward, ForwardReply)
"""Messages that leave before the sender's own sync."""


class _Turn:
    __slots__ = ("early", "messages", "sequence")

    def __init__(self) -> None:
        self.sequence = 0
        self.early: dict[str, list[AnyMessage]] = {}
        self.messages: dict[str, list[AnyMessage]] = {}


class Outbox:
    """Owned by one engine. `send` is the link's: a frame for a peer, False when it will never arrive.

    `send_first` False: everything waits, as a plain reading of Raft has it.
    """

    def __init__(self, send: Callable[[str, bytes], bool], *, send_first: bool = True) -> None:
        self._send = send
        self._early: tuple[type[AnyMessage], ...] = EARLY if send_first else ()
        self._turn = _Turn()
        self._answers: list[tuple[Answer, Outcome]] = []
        self._held: deque[_Turn] = deque()  # sequence numbers never fall
        self._synced = 0
        self.on_undelivered: Callable[[Forward], None] = lambda _: None

    def message(self, peer: str, message: AnyMessage) -> None:
        """Say this to `peer` at the end of the turn."""
        queue = self._turn.early if isinstance(message, self._early) else self._turn.messages
        queue.setdefault(peer, []).append(message)

    def answer(self, answer: Answer, outcome: Outcome) -> None:
        """Tell a caller at the end of the turn. What its function raises is logged and goes no further (K8)."""
        self._answers.append((answer, outcome))

    def end_turn(self, sequence: int, floor: int | None = None) -> None:
        """Close the turn; `sequence` is that of the last record it gave to the log, `floor` that of the term's record.

        Without a floor everything waits for `sequence`.
        """
        answers, self._answers = self._answers, []
        for answer, outcome in answers:  # first: somebody waits for them
            self._call(answer, outcome)
        turn = self._turn
        if turn.early or turn.messages:
            turn.sequence = sequence
            self._turn = _Turn()
            if turn.early and floor is not None and floor <= self._synced:
                self._flush(turn.early)
                turn.early = {}
            if turn.early or turn.messages:
                self._held.append(turn)
        self._release()

    def synced(self, sequence: int) -> None:
        """All records up to `sequence` are on the disk."""
        self._synced = max(self._synced, sequence)
        self._release()

    def clear(self) -> list[Answer]:
        """Drop everything: the log failed. Returns those who wait for an answer that must not be given."""
        waiting = [answer for answer, _ in self._answers]
        self._held.clear()
        self._answers = []
        self._turn = _Turn()
        return waiting

    def _release(self) -> None:
        while self._held and self._held[0].sequence <= self._synced:
            turn = self._held.popleft()
            self._flush(turn.early)
            self._flush(turn.messages)

    def _flush(self, queues: dict[str, list[AnyMessage]]) -> None:
        for peer, messages in queues.items():
            if not self._send(peer, encode_frame(messages)):
                self._undelivered(messages)

    def _undelivered(self, messages: list[AnyMessage]) -> None:
        """A command that certainly never left can be called not applied; other messages are repeated anyway."""
        for message in messages:
            if isinstance(message, Forward):
                self.on_undelivered(message)

    @staticmethod
    def _call(answer: Answer, outcome: Outcome) -> None:
        try:
            answer(outcome)
        except Exception:  # a caller's function: whatever it raises is the caller's fault and must not stop consensus
            logger.exception("the receiver of %s raised", outcome)
