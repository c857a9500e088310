"""What an agent is asked to do: calls here, signals in `signaljobs`, timers in `timerjobs`, what is owed in `owing`.
Each is answered once, by whoever is first: its turn, its deadline, or the end of the activation.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from enum import Enum
from typing import Literal

import tenure_link
from tenure_proto.v1.calls_pb2 import Call, Reply
from tenure_proto.v1.common_pb2 import Error
from tenured.clocks import boot_ns, wall_s
from tenured.core import boxes, turns
from tenured.core.journals import Owed
from tenured.core.signals import Verdict
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
    JOINED = "joined"
    """The same is under way, or owed, for somebody who asked before: that may have its effect yet [deadline_drop]."""


_OPEN = frozenset({Stage.WRITTEN, Stage.JOINED})


class Job:
    """Base of all jobs. No `ABC`: each turn is asked several times what kind it is, and `isinstance` would take four
    times as long; mypy knows what is abstract without it.
    """

    deadline_ns = 0
    """Boot clock; of a job that nobody waits for: of its turn, from when that runs."""
    label = ""
    """For messages: the action, or the type of the signal."""
    caller = ""
    stage = Stage.QUEUED
    sent_as = 0
    """Number of its turn on the worker link; 0: it was sent to none."""
    attempts = 0
    """Failed turns so far."""
    key = ""
    """Of its trials, when it may have ended a worker (protocol 3, poison)."""
    alone = False
    """To be run in a worker of its own."""
    suspected = False
    """It was running when its worker ended, and others are to run before it is tried."""
    on_trial = False
    """It is run so now, and that is written down."""
    try_noted = False
    """A try is written down that did not come about."""
    needs_worker = True
    ends_in_letter = False
    """A failure is tried again, and is a dead letter in the end; else the caller is told."""
    poisoned: tenure_link.Fault | None = None
    """It is not to be tried any more."""
    exclusive = True
    """It waits while another turn is owed (protocol 9)."""
    tried_again = True
    """A failure of its turn is no answer yet."""
    priority = 0
    """Of a signal: it goes before what is less urgent."""
    stream = ""
    """Of a signal: whose order it keeps."""
    planned = False
    """Its plan is in the state, and only a worker takes it off: also when it has failed for the last time."""

    @property
    def adds(self) -> int:
        """Bytes that it brings into the record, besides what its turn makes."""
        return 0

    @property
    @abstractmethod
    def answered(self) -> bool:
        """Nobody waits for it any more; it must have no effect from here on, unless it was written."""

    @abstractmethod
    def frame(self, number: int, uid: str, now: float) -> tenure_link.Turn:
        """What the worker is to do. `now`: cluster time."""

    @abstractmethod
    def apply(self, draft: turns.Draft, reply: bytes) -> None:
        """Its mark, in the commit of its turn [mark_in_commit]."""

    @abstractmethod
    def accept(self, draft: turns.Draft, uid: str, until: float) -> None:
        """Its turn has come to its first step: it is owed from now on [accept_first]. `until`: cluster seconds."""

    def answer_entry(self, reply: bytes, fault: tenure_link.Fault | None, now: float) -> boxes.Entry | None:  # noqa: ARG002
        """What goes back to an agent that waits for the end of this; None: none does."""
        return None

    @abstractmethod
    def released(self, reply: bytes) -> None:
        """The commit is durable, and the lease held after it."""

    @abstractmethod
    def cut_off(self, code: str, message: str) -> None:
        """The activation ends under it, or nothing of it may be released."""

    def out_of_time(self) -> None:
        """Its deadline passed."""

    def refuse(self, code: str, message: str) -> None:
        """It was not tried."""
        self.cut_off(code, message)


class OwnJob(Job):
    """What the agent does by itself, and nobody waits for."""

    over = False

    @property
    def answered(self) -> bool:
        """See Job."""
        return self.over

    def released(self, reply: bytes) -> None:  # noqa: ARG002 - nobody waits for it
        """See Job."""
        self.over = True

    def cut_off(self, code: str, message: str) -> None:  # noqa: ARG002 - as above
        """See Job."""
        self.over = True


def dead_letter(  # noqa: PLR0913 - what a letter says of its job
    job: Job,
    fault: tenure_link.Fault,
    *,
    what: str,
    source: str,
    to: str,
    verdict: str = Verdict.NOT_APPLIED,
    steps: str = "",
    body: bytes = b"",
    born: float = 0.0,
) -> boxes.Letter:
    """What is left of a job that has failed for the last time. `steps`: a line on those that it had finished."""
    return boxes.Letter(
        at=wall_s(),
        side=boxes.Side.RECEIVER,
        verdict=str(verdict),
        what=what,
        source=source,
        to=to,
        code=fault.code,
        message=fault.message,
        details=f"{steps}{fault.details}"[:4096],
        attempts=job.attempts,
        body=body,
        born=born,
    )


def enqueue(queue: list[Job], job: Job) -> None:
    """Put it behind all that is as urgent, and behind what its own sender has sent before, whatever that is [prev]."""
    behind = 0
    for other in reversed(queue):
        if other.priority >= job.priority or (job.stream and other.stream == job.stream):
            break
        behind += 1
    queue.insert(len(queue) - behind, job)


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
        self.deadline_ns = deadline_ns

    @property
    def answered(self) -> bool:
        """See Job."""
        return self.reply.done()

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
        return (self.deadline_ns - boot_ns()) / 1e9

    def frame(self, number: int, uid: str, now: float) -> tenure_link.Turn:
        """See Job."""
        return tenure_link.Turn(
            turn=number,
            uid=uid,
            kind=self.kind,
            method=self.call.method,
            arguments=self.call.arguments,
            deadline_ns=self.deadline_ns,
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
        if self.stage in _OPEN:
            how = "was being committed" if self.stage is Stage.WRITTEN else "of an earlier send was under way"
            text = f"the deadline passed while the turn {how}: it may have been applied"
            self.fail(unknown("DeadlineExceeded", text))
        else:
            where = "waited for its turn" if self.stage is Stage.QUEUED else "ran"
            self.fail(
                not_applied("DeadlineExceeded", f"the deadline passed while the call {where}; nothing of it was kept")
            )

    def cut_off(self, code: str, message: str) -> None:
        """See Job."""
        self.fail(unknown(code, message) if self.stage in _OPEN else not_applied(code, message))
