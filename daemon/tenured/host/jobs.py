"""What an agent is asked to do: calls, signals, timers. Each is answered once, by whoever is first: its turn, its
deadline, or the end of the activation.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Literal

import msgspec

import tenure_link
from tenure_proto.v1.calls_pb2 import Call, Reply
from tenure_proto.v1.common_pb2 import Error
from tenured.clocks import boot_ns, wall_s
from tenured.core import boxes, turns
from tenured.core.journals import Owed
from tenured.core.signals import Again, Answer, Settled, Signal, Verdict
from tenured.host.failures import not_applied, unknown

Kind = Literal["action", "query", "by_name"]

SIGNAL_TURN_S = 30.0
"""How long the turn of a signal or a timer may take: nothing waits for ever."""


class Stage(Enum):
    """How far a job has come."""

    QUEUED = "queued"
    RUNNING = "running"
    """The worker has it, or its draft waits for the write before."""
    WRITTEN = "written"
    """A store write that carries its effect was sent."""


class Job:
    """Base of all jobs."""

    label = ""
    """For messages: the action, or the type of the signal."""
    caller = ""
    stage = Stage.QUEUED
    attempts = 0
    """Failed turns so far."""
    key = ""
    """Of its trials, when it may have ended a worker (protocol 3, poison)."""
    alone = False
    """To be run in a worker of its own."""
    needs_worker = True
    ends_in_letter = False
    """A failure is tried again, and is a dead letter in the end; else the caller is told."""
    poisoned: tenure_link.Fault | None = None
    """It is not to be tried any more."""
    exclusive = True
    """It waits while another turn is owed (protocol 9)."""
    tried_again = True
    """A failure of its turn is no answer yet."""

    @property
    def answered(self) -> bool:
        """Nobody waits for it any more; it must have no effect from here on, unless it was written."""
        raise NotImplementedError

    @property
    def deadline_ns(self) -> int:
        """Boot clock."""
        raise NotImplementedError

    def frame(self, number: int, uid: str, now: float) -> tenure_link.Turn:
        """What the worker is to do. `now`: cluster time."""
        raise NotImplementedError

    def apply(self, draft: turns.Draft, reply: bytes) -> None:
        """Its mark, in the commit of its turn [mark_in_commit]."""

    def accept(self, draft: turns.Draft, uid: str, until: float) -> None:
        """Its turn has come to its first step: it is owed from now on [accept_first]. `until`: cluster seconds."""
        raise NotImplementedError

    def answer_entry(self, reply: bytes, fault: tenure_link.Fault | None, now: float) -> boxes.Entry | None:  # noqa: ARG002
        """What goes back to an agent that waits for the end of this; None: none does."""
        return None

    def released(self, reply: bytes) -> None:
        """The commit is durable, and the lease held after it."""

    def cut_off(self, code: str, message: str) -> None:
        """The activation ends under it, or nothing of it may be released."""

    def out_of_time(self) -> None:
        """Its deadline passed."""

    def refuse(self, code: str, message: str) -> None:
        """It was not tried."""
        self.cut_off(code, message)


class CallJob(Job):
    """A call of a client."""

    def __init__(self, call: Call, kind: Kind, caller: str, deadline_ns: int) -> None:
        self.call = call
        self.kind: Kind = kind
        self.caller = caller
        self.label = call.method
        self.key = f"{call.client_id}/{call.key}" if call.client_id else ""
        self._unnamed = "" if self.key else f"call {boot_ns()}"
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.confirmed: asyncio.Task[None] | None = None
        """Of a quorum read: that this epoch is still what is sealed."""
        self._deadline_ns = deadline_ns

    @property
    def answered(self) -> bool:
        """See Job."""
        return self.reply.done()

    @property
    def deadline_ns(self) -> int:
        """Of the caller."""
        return self._deadline_ns

    @property
    def changes_state(self) -> bool:
        """Whether a paused agent refuses it."""
        return self.kind != "query"

    @property
    def call_id(self) -> turns.CallId:
        """What a repetition has in common with it."""
        return self.call.client_id, self.call.key

    def remaining_s(self) -> float:
        """Seconds to its deadline."""
        return (self._deadline_ns - boot_ns()) / 1e9

    def frame(self, number: int, uid: str, now: float) -> tenure_link.Turn:
        """See Job."""
        return tenure_link.Turn(
            turn=number,
            uid=uid,
            kind=self.kind,
            method=self.call.method,
            arguments=self.call.arguments,
            deadline_ns=self._deadline_ns,
            caller=self.caller,
            call_id=self.key,
            now=now,
            wall=wall_s(),
            key=self.turn_key(uid),
        )

    def apply(self, draft: turns.Draft, reply: bytes) -> None:
        """See Job."""
        draft.call(self.call_id, self.call.born, reply)

    def accept(self, draft: turns.Draft, uid: str, until: float) -> None:
        """See Job."""
        draft.saw(self.call.born)
        owed = Owed(
            kind="action",
            method=self.call.method,
            arguments=self.call.arguments,
            caller=self.caller,
            key=self.turn_key(uid),
            label=self.label,
            until=until,
            born=self.call.born,
            client=self.call.client_id,
            call=self.call.key,
        )
        draft.journal.accept(owed)

    def turn_key(self, uid: str) -> str:
        """Of the turn, the same in every attempt [stable_key]."""
        return f"{uid}/{self.key or self._unnamed}"

    def released(self, reply: bytes) -> None:
        """See Job."""
        self.answer(reply)

    def answer(self, value: bytes, *, recorded: bool = False) -> None:
        """Success."""
        if not self.reply.done():
            self.reply.set_result(Reply(value=value, recorded=recorded))

    def fail(self, error: Error) -> None:
        """A typed error."""
        if not self.reply.done():
            self.reply.set_result(Reply(error=error))

    def out_of_time(self) -> None:
        """The deadline passed: what is known depends on the stage."""
        if self.stage is Stage.WRITTEN:
            self.fail(
                unknown(
                    "DeadlineExceeded",
                    "the deadline passed while the turn was being committed: it may have been applied",
                )
            )
        else:
            where = "waited for its turn" if self.stage is Stage.QUEUED else "ran"
            self.fail(
                not_applied("DeadlineExceeded", f"the deadline passed while the call {where}; nothing of it was kept")
            )

    def cut_off(self, code: str, message: str) -> None:
        """See Job."""
        self.fail(unknown(code, message) if self.stage is Stage.WRITTEN else not_applied(code, message))


class SignalJob(Job):
    """A signal of another agent."""

    ends_in_letter = True
    exclusive = False

    def __init__(self, signal: Signal) -> None:
        self.signal = signal
        self.wanted = _wanted(signal)
        self.label = self.wanted.name or self.type or "a signal"
        self.needs_worker = not signal.void and not self.wanted.answer
        self.tried_again = not self.wanted.reply
        self.meanwhile = False
        """A turn is owed: it ends its wait, or is accepted for later."""
        self.caller = signal.source
        self.key = f"{signal.sender}/{signal.n}"
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._deadline_ns = 0

    @property
    def type(self) -> str:
        """Of a signal; empty: an action is asked for by its name."""
        try:
            return str(_attributes(self.wanted.signal).get("type", "")) if self.wanted.signal else ""
        except msgspec.DecodeError:
            return ""

    @property
    def answered(self) -> bool:
        """See Job."""
        return self.answer.done()

    @property
    def deadline_ns(self) -> int:
        """Of the turn that runs."""
        return self._deadline_ns

    def frame(self, number: int, uid: str, now: float) -> tenure_link.Turn:
        """See Job."""
        self._deadline_ns = boot_ns() + int(SIGNAL_TURN_S * 1e9)
        return tenure_link.Turn(
            turn=number,
            uid=uid,
            kind="work",
            method=self.label,
            arguments=self.signal.body,
            deadline_ns=self._deadline_ns,
            caller=self.caller,
            now=now,
            wall=wall_s(),
            key=f"{uid}/{self.key}",
        )

    def accept(self, draft: turns.Draft, uid: str, until: float) -> None:
        """See Job: mark and signal in one write."""
        self.consume(draft)
        signal = self.signal
        owed = Owed(
            kind="work",
            method=self.label,
            arguments=signal.body,
            caller=self.caller,
            key=f"{uid}/{self.key}",
            label=self.label,
            until=until,
            born=signal.born,
            source=signal.source,
            sender=signal.sender,
            reply=self.wanted.reply,
        )
        draft.journal.accept(owed)

    def consume(self, draft: turns.Draft) -> None:
        """It is settled: it never comes again."""
        draft.saw(self.signal.born)
        draft.boxes.mark(self.signal, draft.now, applied=not self.signal.void)

    def apply(self, draft: turns.Draft, reply: bytes) -> None:  # noqa: ARG002 - nobody waits for it
        """See Job."""
        self.consume(draft)
        if self.signal.void:
            return
        journal = draft.journal.journal()
        if self.wanted.answer:
            if journal.awaits("", self.wanted.answer):
                draft.journal.wake(self.wanted.arguments)
        elif self.meanwhile:
            if self.wanted.signal and journal.awaits(self.type, ""):
                draft.journal.wake(self.wanted.signal)
            else:
                draft.journal.take(self.signal)

    def answer_entry(self, reply: bytes, fault: tenure_link.Fault | None, now: float) -> boxes.Entry | None:
        """See Job."""
        if not self.wanted.reply or self.meanwhile:
            return None
        return answer_to(self.signal.sender, self.signal.source, self.wanted.reply, reply, fault, now)

    def released(self, reply: bytes) -> None:  # noqa: ARG002 - nobody waits for it
        """See Job."""
        self.settle(Verdict.NOT_APPLIED if self.signal.void else Verdict.APPLIED)

    def settle(self, verdict: Verdict) -> None:
        """The answer, after the commit."""
        if not self.answer.done():
            self.answer.set_result(Settled(verdict))

    def cut_off(self, code: str, message: str) -> None:
        """See Job: its sender keeps it, and sends it again."""
        if not self.answer.done():
            self.answer.set_result(Again(code, message))

    def letter(self, to: str, fault: tenure_link.Fault) -> boxes.Letter | None:
        """What is left of it when it has failed for the last time; None: its sender waits, and is told."""
        if self.wanted.reply:
            return None
        return boxes.Letter(
            at=wall_s(),
            side=boxes.Side.RECEIVER,
            verdict=str(Verdict.NOT_APPLIED),
            what=self.label,
            source=self.signal.source,
            to=to,
            code=fault.code,
            message=fault.message,
            details=fault.details[:4096],
            attempts=self.attempts,
            body=self.signal.body,
            born=self.signal.born,
        )


class TimerJob(Job):
    """A run that the agent's state plans."""

    ends_in_letter = True

    def __init__(self, due: tenure_link.Due) -> None:
        self.due = due
        self.label = due.name
        self.caller = "timer"
        self.key = f"timer/{due.name}"
        self.over = False
        self._deadline_ns = 0

    @property
    def answered(self) -> bool:
        """See Job."""
        return self.over

    @property
    def deadline_ns(self) -> int:
        """Of the turn that runs."""
        return self._deadline_ns

    def frame(self, number: int, uid: str, now: float) -> tenure_link.Turn:
        """See Job."""
        self._deadline_ns = boot_ns() + int(SIGNAL_TURN_S * 1e9)
        return tenure_link.Turn(
            turn=number,
            uid=uid,
            kind="timer",
            method=self.due.name,
            arguments=b"" if self.poisoned is None else b"skip",
            deadline_ns=self._deadline_ns,
            caller=f"timer {self.due.name}",
            at=self.due.at,
            now=now,
            wall=wall_s(),
            key=self.turn_key(uid),
        )

    def accept(self, draft: turns.Draft, uid: str, until: float) -> None:
        """See Job. The plan stays in the state until the turn has ended."""
        owed = Owed(
            kind="timer",
            method=self.due.name,
            arguments=b"",
            caller=f"timer {self.due.name}",
            key=self.turn_key(uid),
            label=self.label,
            until=until,
            at=self.due.at,
        )
        draft.journal.accept(owed)

    def turn_key(self, uid: str) -> str:
        """Of the turn, the same in every attempt [stable_key]."""
        return f"{uid}/{self.key}/{self.due.at}"

    def apply(self, draft: turns.Draft, reply: bytes) -> None:  # noqa: ARG002 - nobody waits for it
        """Its plan is in the state: taken off, or moved on, by the turn itself [timer_in_commit, cron_in_commit]."""
        draft.boxes.forget_tries(self.key)

    def released(self, reply: bytes) -> None:  # noqa: ARG002 - as above
        """See Job."""
        self.over = True

    def cut_off(self, code: str, message: str) -> None:  # noqa: ARG002 - as above
        """See Job: the plan stands, and is run by whoever holds the agent next."""
        self.over = True

    def letter(self, agent: str, fault: tenure_link.Fault) -> boxes.Letter:
        """What is left of it when it has failed for the last time."""
        return boxes.Letter(
            at=wall_s(),
            side=boxes.Side.RECEIVER,
            verdict=str(Verdict.NOT_APPLIED),
            what=f"timer {self.due.name}",
            source=agent,
            to=agent,
            code=fault.code,
            message=fault.message,
            details=fault.details[:4096],
            attempts=self.attempts,
        )


class HeldJob(SignalJob):
    """The signal that a paused agent has failed at, tried again."""

    exclusive = True

    def __init__(self, held: boxes.Held, uid: str) -> None:
        super().__init__(Signal("", uid, 0, 0, held.born, held.body, source=held.source))
        self.label = held.what

    def consume(self, draft: turns.Draft) -> None:
        """Its mark is in the record since the pause [pause_mark]."""
        draft.boxes.hold(None)


_work = msgspec.msgpack.Decoder(tenure_link.Work).decode
_attributes = msgspec.msgpack.Decoder(dict[str, object]).decode
_encode = msgspec.msgpack.Encoder().encode


def _wanted(signal: Signal) -> tenure_link.Work:
    """What it asks for; a worker says what is wrong with one that does not decode."""
    try:
        return _work(signal.body) if signal.body else tenure_link.Work()
    except msgspec.DecodeError:
        return tenure_link.Work()


def answer_to(
    sender: str, source: str, name: str, reply: bytes, fault: tenure_link.Fault | None, now: float
) -> boxes.Entry:
    """The end of what an agent's turn waits for, as a signal to it (`tenure._steps.outcome` has the shape)."""
    how = {"reply": reply} if fault is None else {"fault": [fault.code, fault.message, fault.details[:4096]]}
    body = _encode(tenure_link.Work(answer=name, arguments=_encode(how)))
    return boxes.Entry(receiver=sender, to=source, born=now, body=body, type="reply")
