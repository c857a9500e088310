"""Holders of agents that answer operations (CALL_KIND_CONTROL) as a host does: docs/operating.md has the shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tenure.errors import CallError, Conflict, NotFound, StateInvalid

Letter = dict[str, Any]


@dataclass
class Holder:
    """One agent at its host."""

    agent: str
    class_: str = "Counter"
    version: int = 1
    state: dict[str, Any] = field(default_factory=lambda: {"count": 0})
    seq: int = 17
    letters: list[Letter] = field(default_factory=list)
    """The newest first."""
    paused: bool = False
    plans: list[dict[str, Any]] = field(default_factory=list)
    down: CallError | None = None
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def letter(self, letter_id: str, at: float, verdict: str = "not applied", **fields: Any) -> None:
        """Put one aside."""
        made = {
            "id": letter_id, "at": at, "side": "receiver", "verdict": verdict, "what": "increment",
            "from": "shop/orders-7", "to": self.agent, "code": "ActionFailed",
            "message": "ValueError in increment: by must be positive", "attempts": 5,
            "body": b"\x81\xa2by\xff", "details": "Traceback ...\n", "born": at - 60,
        }  # fmt: skip
        self.letters.insert(0, made | fields)

    def control(self, method: str, arguments: Mapping[str, Any]) -> Any:
        """Raises CallError."""
        self.asked.append((method, dict(arguments)))
        if self.down is not None:
            raise self.down
        head, _, rest = method.partition(".")
        if head == "dlq":
            return self._dlq(rest, arguments)
        if head == "state":
            return self._get() if rest == "get" else self._put(arguments)
        if method == "timers.list":
            return self.plans
        if not self.paused:
            raise Conflict(f"{self.agent} is not paused")
        self.paused = False
        return {"agent": self.agent, "phase": "Running"}

    def _dlq(self, what: str, arguments: Mapping[str, Any]) -> Any:
        if what == "list":
            hidden = ("body", "details", "born")
            return [{key: value for key, value in each.items() if key not in hidden} for each in self.letters]
        if what == "drop" and arguments["id"] == "*":
            count, self.letters = len(self.letters), []
            return {"dropped": count}
        found = next((each for each in self.letters if each["id"] == arguments["id"]), None)
        if found is None:
            raise NotFound(f"{self.agent} has no dead letter {arguments['id']}")
        if what == "show":
            return found
        if what == "redrive" and found["verdict"] != "not applied" and not arguments["confirm"]:
            raise Conflict(f"it is {found['verdict']} whether it took effect")
        self.letters.remove(found)
        return {"id": found["id"], "redriven": True} if what == "redrive" else {"dropped": 1}

    def _get(self) -> Any:
        return {"class": self.class_, "version": self.version, "at": [3, self.seq], "state": dict(self.state)}

    def _put(self, arguments: Mapping[str, Any]) -> Any:
        if arguments["at"] not in (None, [3, self.seq]):
            raise Conflict(f"the state of {self.agent} is at 3.{self.seq}")
        if not isinstance(arguments["state"].get("count"), int):
            raise StateInvalid("`count` should be a valid integer")
        self.state = dict(arguments["state"])
        self.seq += 1
        return {"at": [3, self.seq]}
