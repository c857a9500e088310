"""The barrier: nothing that a turn says leaves before everything the log got until then is on the disk (K6).

A turn's messages and answers are kept together with the log's sequence number at its end. `synced` lets them go, in
order. One flush a turn and a peer: all messages for it travel as one frame.
"""

import logging
from collections import deque
from collections.abc import Callable

from tenured.raft.interface import Answer, Outcome
from tenured.raft.messages import AnyMessage, Forward, encode_frame

logger = logging.getLogger(__name__)


class _Turn:
    __slots__ = ("answers", "messages", "sequence")

    def __init__(self) -> None:
        self.sequence = 0
        self.messages: dict[str, list[AnyMessage]] = {}
        self.answers: list[tuple[Answer, Outcome]] = []


class Outbox:
    """Owned by one engine. `send` is the link's: a frame for a peer, False when it will never arrive."""

    def __init__(self, send: Callable[[str, bytes], bool]) -> None:
        self._send = send
        self._turn = _Turn()
        self._held: deque[_Turn] = deque()  # sequence numbers never fall
        self._synced = 0
        self.on_undelivered: Callable[[Forward], None] = lambda _: None

    def message(self, peer: str, message: AnyMessage) -> None:
        """Say this to `peer` at the end of the turn."""
        self._turn.messages.setdefault(peer, []).append(message)

    def answer(self, answer: Answer, outcome: Outcome) -> None:
        """Tell a caller at the end of the turn. What its function raises is logged and goes no further (K8)."""
        self._turn.answers.append((answer, outcome))

    def end_turn(self, sequence: int) -> None:
        """Close the turn; `sequence` is that of the last record it gave to the log."""
        turn = self._turn
        if turn.messages or turn.answers:
            turn.sequence = sequence
            self._held.append(turn)
            self._turn = _Turn()
        self._release()

    def synced(self, sequence: int) -> None:
        """All records up to `sequence` are on the disk."""
        self._synced = max(self._synced, sequence)
        self._release()

    def clear(self) -> list[Answer]:
        """Drop everything: the log failed. Returns those who wait for an answer that must not be given."""
        waiting = [answer for turn in (*self._held, self._turn) for answer, _ in turn.answers]
        self._held.clear()
        self._turn = _Turn()
        return waiting

    def _release(self) -> None:
        while self._held and self._held[0].sequence <= self._synced:
            turn = self._held.popleft()
            for peer, messages in turn.messages.items():
                if not self._send(peer, encode_frame(messages)):
                    self._undelivered(messages)
            for answer, outcome in turn.answers:
                self._call(answer, outcome)

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
