"""Operations on an agent by its holder's host, not by user code: dead letters, the pause, the state, timers.

What changes the record is a job like a call, with its mark and its reply in one commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

import tenure_link
from tenure_proto.v1.calls_pb2 import Call
from tenured.clocks import wall_s
from tenured.core import boxes, turns
from tenured.core.boxes import Entry, Letter, Side
from tenured.core.journals import Journal
from tenured.host.failures import not_applied
from tenured.host.jobs import CallJob
from tenured.host.ledger import Ledger

_decode = msgspec.msgpack.Decoder(dict[str, Any]).decode
_encode = msgspec.msgpack.Encoder().encode
READS = frozenset({"dlq.list", "dlq.show", "state.get", "timers.list"})
"""These change nothing, and are answered at once."""


class Refused(Exception):
    """The operation cannot be done: code and message."""

    def __init__(self, code: str, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.code, self.next_step = code, next_step


class ControlJob(CallJob):
    """An operation that changes the record."""

    needs_worker = False
    exclusive = False

    def __init__(self, call: Call, caller: str, deadline_ns: int, change: Callable[[turns.Draft], Any]) -> None:
        super().__init__(call, "action", caller, deadline_ns)
        self._change = change
        self._reply = b""

    @property
    def changes_state(self) -> bool:
        """A paused agent takes it."""
        return False

    def apply(self, draft: turns.Draft, reply: bytes) -> None:
        """See Job."""
        self._reply = reply or _encode(self._change(draft))
        super().apply(draft, self._reply)

    def released(self, reply: bytes) -> None:
        """See Job."""
        super().released(reply or self._reply)


class ReplaceJob(CallJob):
    """Other values for the fields of the state: the worker checks that they fit."""

    def __init__(self, call: Call, caller: str, deadline_ns: int, state: bytes, at: Callable[[], object]) -> None:
        super().__init__(call, "action", caller, deadline_ns)
        self._state, self._at = state, at

    @property
    def changes_state(self) -> bool:
        """A paused agent takes it: it may be the cure."""
        return False

    def frame(self, number: int, uid: str, now: float) -> tenure_link.Turn:
        """See Job."""
        frame = super().frame(number, uid, now)
        return msgspec.structs.replace(frame, kind="replace", method="state.put", arguments=self._state)

    def released(self, reply: bytes) -> None:  # noqa: ARG002 - the worker has nothing to say
        """See Job."""
        super().released(_encode({"at": self._at()}))


class Controls:
    """What can be done with one agent."""

    def __init__(
        self,
        agent: str,
        class_name: str,
        ledger: Ledger,
        due: Callable[[], tuple[tenure_link.Due, ...]],
        resume: Callable[[boxes.Held], None],
    ) -> None:
        """`due`: what the agent plans. `resume`: tries the held signal again."""
        self._agent = agent
        self._class = class_name
        self._ledger = ledger
        self._due = due
        self._try = resume

    def job(self, call: Call, caller: str, deadline_ns: int) -> CallJob | bytes:
        """The job that does it, or its answer. Raises Refused."""
        try:
            arguments = _decode(call.arguments) if call.arguments else {}
        except msgspec.DecodeError as error:
            raise Refused("InvalidArguments", f"the arguments of {call.method} are no map: {error}") from error
        if call.method in READS:
            return _encode(self._read(call.method, arguments))
        if self._known(call):  # before what it asks for is looked at: that is done, perhaps, and gone [judge]
            return ControlJob(call, caller, deadline_ns, lambda _: None)
        if call.method == "resume" and self._ledger.book.journal.owed is None:
            self._try(self._held())
            return _encode({"agent": self._agent, "phase": "Running"})
        if call.method == "state.put":
            return self._put(call, caller, deadline_ns, arguments)
        changes: Mapping[str, Callable[[Mapping[str, Any]], Callable[[turns.Draft], Any]]] = {
            "dlq.redrive": self._redrive,
            "dlq.drop": self._drop,
            "resume": self._resume,
            "skip": self._skip,
            "redrive": self._requeue,
        }
        if call.method not in changes:
            raise Refused("UnknownMethod", f"there is no operation {call.method!r}")
        return ControlJob(call, caller, deadline_ns, changes[call.method](arguments))

    # --- reading ----------------------------------------------------------------------------------------------------

    def _read(self, method: str, arguments: Mapping[str, Any]) -> Any:
        found = self._ledger.book.boxes
        match method:
            case "dlq.list":
                return [_line(key, letter) for key, letter in reversed(found.letters.items())]
            case "dlq.show":
                letter = self._letter(arguments)
                more = {"body": letter.body, "details": letter.details, "born": letter.born}
                return _line(str(arguments["id"]), letter) | more
            case "state.get":
                return self._state()
            case _:
                return [_plan(one) for one in self._due()]

    def _known(self, call: Call) -> bool:
        """Whether it is a repetition of what was done: its turn answers it from the record."""
        verdict = turns.judge(self._ledger.book, call.client_id, call.key, call.born, self._ledger.book.clock)
        return isinstance(verdict, turns.Recorded | turns.AppliedReplyGone)

    def _state(self) -> dict[str, Any]:
        content: dict[str, Any] = msgspec.msgpack.decode(self._ledger.state or b"\x80")
        fields = {name: value for name, value in content.items() if not name.startswith("@")}
        return {
            "class": self._class,
            "version": content.get("@version", 1),
            "at": self._at(),
            "state": fields,
        }

    def _at(self) -> list[int]:
        version = self._ledger.version
        return [version.epoch, version.seq]

    def _letter(self, arguments: Mapping[str, Any]) -> Letter:
        name = str(arguments.get("id", ""))
        letter = self._ledger.book.boxes.letters.get(name)
        if letter is None:
            raise Refused("NotFound", f"{self._agent} has no dead letter {name!r}", "tenure dlq list")
        return letter

    # --- changing ---------------------------------------------------------------------------------------------------

    def _put(self, call: Call, caller: str, deadline_ns: int, arguments: Mapping[str, Any]) -> CallJob:
        state, at = arguments.get("state"), arguments.get("at")
        if not isinstance(state, dict):
            raise Refused("InvalidArguments", "`state` is a map of fields")
        here = self._at()
        if at is not None and list(at) != here:
            text = f"the state of {self._agent} is that of {here[0]}.{here[1]}, not of {at}: it has changed since"
            raise Refused("Conflict", text, "tenure state get")
        packed = _encode(cast(dict[str, Any], state))
        return ReplaceJob(call, caller, deadline_ns, packed, self._at)

    def _redrive(self, arguments: Mapping[str, Any]) -> Callable[[turns.Draft], Any]:
        letter, name = self._letter(arguments), str(arguments["id"])
        if not letter.body:
            raise Refused("Conflict", f"of {letter.what} nothing is kept that could be sent again", "tenure dlq show")
        if letter.verdict != "not applied" and not arguments.get("confirm"):
            text = f"whether {letter.what} was applied is {letter.verdict}: once more may be twice"
            raise Refused("Conflict", text, "tenure dlq redrive --yes")

        def change(draft: turns.Draft) -> Any:
            if draft.boxes.drop_letter(name):
                draft.boxes.send(_again(letter, draft.now, self._agent))
            return {"id": name, "redriven": True}

        return change

    def _drop(self, arguments: Mapping[str, Any]) -> Callable[[turns.Draft], Any]:
        name = str(arguments.get("id", ""))
        if name != "*":
            self._letter(arguments)

        def change(draft: turns.Draft) -> Any:
            names = list(draft.boxes.letters) if name == "*" else [name]
            return {"dropped": sum(draft.boxes.drop_letter(one) for one in names)}

        return change

    def _held(self) -> boxes.Held:
        held = self._ledger.book.boxes.held
        if held is None:
            raise Refused("Conflict", f"{self._agent} is not paused")
        return held

    def _resume(self, _: Mapping[str, Any]) -> Callable[[turns.Draft], Any]:
        """The agent is paused at a turn that it owes: that goes on with its journal (protocol 9, rule 10)."""
        self._held()

        def change(draft: turns.Draft) -> Any:
            if draft.boxes.held is not None:
                draft.boxes.hold(None)
                draft.journal.resume(draft.now)
            return {"agent": self._agent, "phase": "Running"}

        return change

    def _skip(self, _: Mapping[str, Any]) -> Callable[[turns.Draft], Any]:
        held = self._held()
        letter = _letter_of(held, self._agent, self._ledger.book.journal)

        def change(draft: turns.Draft) -> Any:
            if draft.boxes.held is not None:
                _put_aside(draft)
                draft.boxes.add_letter(f"skipped-{held.at:.3f}", letter)
            return {"agent": self._agent, "phase": "Running"}

        return change

    def _requeue(self, _: Mapping[str, Any]) -> Callable[[turns.Draft], Any]:
        letter = _letter_of(self._held(), self._agent, self._ledger.book.journal)
        if letter.verdict != "not applied":
            text = f"{letter.what} has finished steps, which a new signal would do again"
            raise Refused("Conflict", text, "tenure resume, or tenure skip")

        def change(draft: turns.Draft) -> Any:
            if draft.boxes.held is not None:
                _put_aside(draft)
                draft.boxes.send(_again(letter, draft.now, self._agent))
            return {"agent": self._agent, "phase": "Running"}

        return change


def refusal(job: CallJob, refused: Refused) -> None:
    """Answers it."""
    job.fail(not_applied(refused.code, str(refused), next_step=refused.next_step))


def _again(letter: Letter, now: float, agent: str) -> Entry:
    """A new signal that asks for the same: of the agent to itself, if it had failed here."""
    to = agent if letter.side is Side.RECEIVER else letter.to
    return Entry(receiver="", to=to, born=now, body=letter.body, type=letter.what)


def _put_aside(draft: turns.Draft) -> None:
    """The pause is over, and what was failed at is not run any more."""
    draft.boxes.hold(None)
    if draft.journal.owed is not None:
        draft.journal.end()


def _letter_of(held: boxes.Held, agent: str, journal: Journal) -> Letter:
    steps = ", ".join(step.name for step in journal.steps)
    found = f"finished steps: {steps or 'none'}\n" if journal.owed is not None else ""
    return Letter(
        at=wall_s(),
        side=Side.RECEIVER,
        verdict="unknown" if steps else "not applied",
        what=held.what,
        source=held.source,
        to=agent,
        code=held.code,
        message=held.message,
        details=f"{found}{held.details}"[:4096],
        attempts=held.attempts,
        body=held.body,
        born=held.born,
    )


def _plan(one: tenure_link.Due) -> dict[str, Any]:
    clock = "wall" if one.wall else "cluster"
    return {"name": one.name, "at": one.at, "clock": clock, "what": one.what, "every": one.every or None}


def _line(name: str, letter: Letter) -> dict[str, Any]:
    return {
        "id": name,
        "at": letter.at,
        "side": str(letter.side),
        "verdict": letter.verdict,
        "what": letter.what,
        "from": letter.source,
        "to": letter.to,
        "code": letter.code,
        "message": letter.message,
        "attempts": letter.attempts,
    }
