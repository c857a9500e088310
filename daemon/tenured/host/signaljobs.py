"""Signals of other agents, as jobs (protocol 3, receiver): settled by their commits, or sent again by their senders."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

import tenure_link
from tenured.clocks import boot_ns, wall_s
from tenured.core import boxes, turns, waits
from tenured.core.journals import Journal, Owed
from tenured.core.signals import Again, Answer, Settled, Signal, Verdict
from tenured.host.jobs import SIGNAL_TURN_S, Job, dead_letter


class SignalJob(Job):
    """A signal of another agent."""

    ends_in_letter = True
    exclusive = False
    in_stream = True
    """It comes in the order of its sender's numbers, and its mark goes with its end."""

    def __init__(self, signal: Signal, *told: Callable[[Answer], None]) -> None:
        """`told`: take its answer."""
        self.signal = signal
        self.wanted = _wanted(signal)
        self.label = self.wanted.name or self.type or "a signal"
        self.begin_anew()
        self.tried_again = not self.wanted.reply
        self.caller = signal.source
        self.priority = signal.priority
        self.stream = boxes.stream_of(signal)
        self.key = self.name = boxes.name_of(signal)
        self._told = told
        self._answer: Answer | None = None

    def begin_anew(self) -> None:
        """It is judged once more, in whatever the agent is in by then."""
        self.meanwhile = False
        """A turn is owed: it ends its wait, or is accepted for later."""
        self.needs_worker = not (self.signal.void or self.wanted.answer or self.wanted.probe)
        self.alone = False

    def wait_for_the_owed(self) -> None:
        """A turn is owed: this is accepted for later, or ends its wait; neither needs a worker."""
        self.meanwhile, self.needs_worker = True, False

    @property
    def adds(self) -> int:
        """See Job: its body waits in the inbox."""
        return len(self.signal.body) if self.meanwhile and self.stays else 0

    @property
    def stays(self) -> bool:
        """It has a place in the inbox when a turn is owed: a word of one daemon to another has none."""
        return not (self.wanted.answer or self.wanted.probe)

    def turn_key(self, uid: str) -> str:
        """Of the turn, the same in every attempt, and never that of another signal [stable_key]."""
        return f"{uid}/{self.name}"

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
        return self._answer is not None

    def frame(self, number: int, uid: str, now: float) -> tenure_link.Turn:
        """See Job."""
        self.deadline_ns = boot_ns() + int(SIGNAL_TURN_S * 1e9)
        return tenure_link.Turn(
            turn=number,
            uid=uid,
            kind="work",
            method=self.label,
            arguments=self.signal.body,
            deadline_ns=self.deadline_ns,
            caller=self.caller,
            now=now,
            wall=wall_s(),
            key=self.turn_key(uid),
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
            key=self.turn_key(uid),
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
        elif self.wanted.probe:
            self._probed(draft, journal)
        elif self.meanwhile:
            if self.wanted.signal and journal.awaits(self.type, ""):
                draft.journal.wake(self.wanted.signal)
            else:
                draft.journal.take(self.signal)

    def _probed(self, draft: turns.Draft, journal: Journal) -> None:
        """Somebody asks whether the turn here waits for him. A request that waits in a cycle is refused in the same
        write in which it leaves the inbox [refuse_in_commit].
        """
        found = waits.judge(self.signal.receiver, waits.decode(self.wanted.probe), journal)
        if isinstance(found, waits.Probe):
            draft.boxes.send(probe_entry(found, draft.now))
        elif found is not None:
            asked = found.signal
            draft.journal.drop(found.k)
            fault = tenure_link.Fault("WaitCycle", found.message)
            draft.boxes.send(answer_to(asked.sender, asked.source, found.key, b"", fault, draft.now))

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
        self.answer(Settled(verdict))

    def cut_off(self, code: str, message: str) -> None:
        """See Job: its sender keeps it, and sends it again."""
        self.answer(Again(code, message))

    def answer(self, answer: Answer) -> None:
        """The first one counts."""
        if self._answer is None:
            self._answer = answer
            for tell in self._told:
                tell(answer)

    def join(self, later: SignalJob) -> None:
        """The same signal has come once more: it is answered as this one."""
        if self._answer is None:
            self._told = (*self._told, later.answer)
        else:
            later.answer(self._answer)

    def letter(self, to: str, fault: tenure_link.Fault) -> boxes.Letter | None:
        """What is left of it when it has failed for the last time; None: its sender waits, and is told."""
        if self.wanted.reply:
            return None
        signal = self.signal
        return dead_letter(
            self, fault, what=self.label, source=signal.source, to=to, body=signal.body, born=signal.born
        )


class HeldJob(SignalJob):
    """The signal that a paused agent has failed at, tried again."""

    exclusive = True
    in_stream = False

    def __init__(self, held: boxes.Held, uid: str) -> None:
        signal = Signal(held.sender, uid, held.n, 0, held.born, held.body, epoch=held.epoch, source=held.source)
        super().__init__(signal)
        self.label = held.what
        self.key = f"held/{self.name}"

    def consume(self, draft: turns.Draft) -> None:
        """Its mark is in the record since the pause [pause_mark]."""
        draft.boxes.forget_tries(self.key)
        draft.boxes.hold(None)


PROBE = "(probe)"
"""Type of a probe in an outbox: no signal of a user has such a one."""
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


def probe_entry(probe: waits.Probe, now: float) -> boxes.Entry:
    """A probe, as a signal: in its order, once, and past the loss of hosts."""
    body = _encode(tenure_link.Work(probe=waits.encode(probe)))
    return boxes.Entry(receiver="", to=probe.to, born=now, body=body, type=PROBE)
