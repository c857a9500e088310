"""Turns that are accepted and not ended: slices of the agent's record, and what changes them (protocol 9).

`@turn` is the one turn that is owed, with its journal and what it waits for; `@inbox` what was accepted meanwhile, to
be run after it; `@calls` replies to other agents' turns, until those have committed them. Values in, values out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from tenure._instruction import Kind
from tenure._journal import chain_of
from tenure._local import work
from tenure._local.carrying import NOTHING
from tenure._local.work import Asked
from tenure._turn import Slices
from tenure.directives import Directive
from tenure.signals import Signal, from_msgpack, new_id, to_msgpack
from tenure.signals._router import matches
from tenure_link import Entry, Wait, Work

TURN, INBOX, CALLS = "@turn", "@inbox", "@calls"
INBOX_LIMIT = 1000
"""Works in the inbox of one agent; beyond it they are held back."""
CALLS_KEPT = 1000
"""Replies of one agent that are not acknowledged; of more, the oldest are forgotten."""
Row = Mapping[str, Any]


@dataclass(slots=True)
class Request:
    """What an agent is to do, with all that must outlive the process once it is accepted."""

    wanted: Asked | Signal
    kind: Kind = "action"
    caller: str = ""
    key: str = ""
    """Of its turn [stable_key]: made once, and committed with the acceptance, before any step."""
    chain: tuple[str, ...] = ()
    """Agents whose turns wait for its end."""
    reply_to: str = ""
    """The agent whose turn waits for its reply, under `key`."""
    priority: int = 0
    """Where it waits for its turn: the higher the earlier. Once it is accepted, that is no more of interest."""

    def named(self) -> str:
        """Its key."""
        self.key = self.key or new_id()
        return self.key

    def row(self) -> dict[str, Any]:
        """A map that msgpack can write."""
        carried = {"carried": dict(work.carried_of(self.wanted))} if isinstance(self.wanted, Asked) else {}
        return {
            **work.write(self.wanted), **carried, "kind": self.kind, "caller": self.caller, "key": self.named(),
            "chain": list(self.chain), "reply_to": self.reply_to,
        }  # fmt: skip


def request_of(row: Row) -> Request:
    """What `Request.row` wrote. Raises ValueError."""
    wanted = work.carrying(work.read(row), row.get("carried") or NOTHING)
    return Request(wanted, row["kind"], row["caller"], row["key"], tuple(row["chain"]), row["reply_to"])


# --- reading ---


def turn_of(slices: Mapping[str, Any]) -> Row | None:
    """The turn that is owed."""
    return slices.get(TURN)


def inbox_of(slices: Mapping[str, Any]) -> list[Row]:
    """What is to be run after it, in order."""
    return cast("list[Row]", slices.get(INBOX, []))


def queues(slices: Mapping[str, Any]) -> bool:
    """Whether what comes now has to wait for what was accepted before."""
    return TURN in slices or INBOX in slices


def runs(slices: Mapping[str, Any]) -> bool:
    """Whether there is something that can be run at once."""
    turn = turn_of(slices)
    return INBOX in slices if turn is None else turn["wait"] is None


def due(slices: Mapping[str, Any]) -> float | None:
    """When something is to happen by itself, on the runtime's clock; 0: at once. None: never."""
    if runs(slices):
        return 0.0
    turn = turn_of(slices)
    if turn is None:
        return None
    until, ends = cast("tuple[float, float]", (turn["wait"]["until"], turn["ends"]))
    return min(until, ends) if until else ends


def wait_of(slices: Mapping[str, Any]) -> Row | None:
    """What the turn that is owed waits for."""
    turn = turn_of(slices)
    return None if turn is None else turn["wait"]


def entries_of(turn: Row) -> list[Entry]:
    """The journal."""
    return [Entry(name, result) for name, result in turn["journal"]]


def holds(slices: Mapping[str, Any], key: str) -> bool:
    """Whether the turn of this key is owed."""
    return _turn_with(slices, key) is not None or any(row["key"] == key for row in inbox_of(slices))


def ends_wait(slices: Mapping[str, Any], wanted: Asked | Signal) -> bool:
    """Whether this is what the turn waits for."""
    wait = wait_of(slices)
    if wait is None or not isinstance(wanted, Signal):
        return False
    return any(matches(pattern, wanted.type) for pattern in wait["types"])


def waits_for_agent(slices: Mapping[str, Any]) -> str:
    """The agent whose reply the turn waits for; empty: it waits for none."""
    wait = wait_of(slices)
    return "" if wait is None else wait["to"]


def outgoing(turn: Row) -> tuple[str, Request]:
    """To whom the request of a waiting turn goes, and what it is."""
    wait = turn["wait"]
    asked = msgspec.msgpack.decode(wait["work"], type=Work)
    chain = chain_of(asked.carried)
    wanted = Asked(asked.name, asked.arguments, turn.get("carried") or NOTHING)
    return wait["to"], Request(wanted, "by_name", chain[-1], wait["key"], chain, chain[-1])


# --- changes ---


@dataclass(frozen=True, slots=True)
class Accepted(Directive):
    """The turn is owed from now on [accept_first]."""

    request: Request
    ends: float
    """Seconds, of the runtime's clock."""


@dataclass(frozen=True, slots=True)
class Journalled(Directive):
    """A step is finished [journal_first]."""

    key: str
    position: int
    entry: Entry


@dataclass(frozen=True, slots=True)
class Waiting(Directive):
    """The turn is suspended. A signal that is in the inbox already ends that at once [inbox_seen]."""

    key: str
    wait: Wait


@dataclass(frozen=True, slots=True)
class Woken(Directive):
    """What the turn waited for, with its result [wake_in_commit]. The first one counts."""

    key: str
    position: int
    result: bytes


@dataclass(frozen=True, slots=True)
class Inboxed(Directive):
    """Accepted, to be run after the turn [inbox, inbox_in_commit]."""

    request: Request


@dataclass(frozen=True, slots=True)
class Taken(Directive):
    """What was in the inbox is being run; once, however often it is said."""

    key: str


@dataclass(frozen=True, slots=True)
class Ended(Directive):
    """The turn is not owed any more; its journal goes with it [end_in_commit]."""

    key: str


@dataclass(frozen=True, slots=True)
class Answered(Directive):
    """How a request of another agent's turn ended: told again to who asks again under its key."""

    key: str
    outcome: bytes


@dataclass(frozen=True, slots=True)
class Acknowledged(Directive):
    """That agent has committed the reply: it will not ask again."""

    key: str


def fold(slices: Slices, directive: Directive) -> None:  # noqa: C901 - one case each
    """Change what is owed as a directive says."""
    match directive:
        case Accepted(request, ends):
            slices[TURN] = {**request.row(), "ends": ends, "journal": [], "wait": None}
        case Journalled(key, position, entry):
            _finish(slices, key, position, entry)
        case Waiting(key, wait):
            _wait(slices, key, wait)
        case Woken(key, position, result):
            if (waits := wait_of(slices)) is not None:
                _finish(slices, key, position, Entry(waits["name"], result))
        case Inboxed(request):
            _put(slices, [*inbox_of(slices), request.row()])
        case Taken(key):
            _put(slices, [row for row in inbox_of(slices) if row["key"] != key])
        case Ended(key):
            if _turn_with(slices, key) is not None:
                del slices[TURN]
        case Answered(key, outcome):
            rows = [*slices.get(CALLS, {}).items(), (key, outcome)]
            slices[CALLS] = dict(rows[-CALLS_KEPT:])
        case Acknowledged(key):
            _keep(slices, CALLS, {name: row for name, row in slices.get(CALLS, {}).items() if name != key})
        case _:
            return


def _turn_with(slices: Mapping[str, Any], key: str) -> Row | None:
    """The turn that is owed, if it is this one."""
    turn = turn_of(slices)
    return turn if turn is not None and turn["key"] == key else None


def _finish(slices: Slices, key: str, position: int, entry: Entry) -> None:
    turn = _turn_with(slices, key)
    if turn is not None and position == len(turn["journal"]):
        slices[TURN] = {**turn, "wait": None, "journal": [*turn["journal"], [entry.name, entry.result]]}


def _wait(slices: Slices, key: str, wait: Wait) -> None:
    turn = _turn_with(slices, key)
    if turn is None:
        return
    sends = wait.sends[0] if wait.sends else None
    slices[TURN] = {
        **turn,
        "wait": {
            "position": wait.position, "name": wait.name, "until": wait.until, "types": list(wait.types),
            "key": wait.key, "to": sends.to if sends else "", "work": sends.work if sends else b"",
        },
    }  # fmt: skip
    for row in inbox_of(slices):
        if "signal" in row and ends_wait(slices, signal := from_msgpack(row["signal"])):
            _finish(slices, key, wait.position, Entry(wait.name, to_msgpack(signal)))
            _put(slices, [one for one in inbox_of(slices) if one is not row])
            return


def _put(slices: Slices, inbox: Iterable[Row]) -> None:
    _keep(slices, INBOX, list(inbox))


def _keep(slices: Slices, name: str, content: Any) -> None:
    if content:
        slices[name] = content
    else:
        slices.pop(name, None)
