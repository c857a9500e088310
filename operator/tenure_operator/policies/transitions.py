"""Which events a change of status is worth: one for each thing that a user would want to have been told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tenure_api.model import Json
from tenure_api.reasons import Reason
from tenure_operator.policies import conditions
from tenure_operator.registry.values import HostRow

_WARNING_PHASES = frozenset({"FailingOver", "Backoff", "Paused", "Unavailable"})


_AT_PEACE = frozenset({"Running", "Hibernated"})
"""To and fro between these is no news: an agent may fall asleep and wake many times an hour."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event to be recorded about an object."""

    type: str
    """Normal or Warning."""
    reason: str
    message: str


def of_agent(old: Json, new: Json) -> list[Event]:
    """Of an Agent: a change of phase or reason, of what is accepted, each failover, and each new dead letter."""
    made: list[Event] = []
    accepted = conditions.find(new, "Accepted")
    if _changed(old, new, "Accepted"):
        fine = accepted["status"] != "False"
        made.append(Event("Normal" if fine else "Warning", accepted["reason"], accepted["message"]))
    moved = (old.get("phase"), old.get("reason")) != (new.get("phase"), new.get("reason"))
    moved = moved and not {old.get("phase"), new.get("phase")} <= _AT_PEACE
    if moved and new.get("reason") and new["reason"] != accepted.get("reason"):
        bad = new["phase"] in _WARNING_PHASES or conditions.find(new, "Degraded").get("status") == "True"
        made.append(Event("Warning" if bad else "Normal", new["reason"], new["summary"]))
    made += _failover(old.get("lastFailover") or {}, new.get("lastFailover") or {})
    letters = new.get("deadLetters", 0)
    if letters > old.get("deadLetters", 0):
        text = f"{letters} dead letter{'s' if letters > 1 else ''}. {Reason.DEAD_LETTERS.next_step}"
        made.append(Event("Warning", Reason.DEAD_LETTERS, text))
    return made


def _failover(old: Json, new: Json) -> list[Event]:
    """A failover that has ended, also one that no status in between has shown: once the lease has ended it takes
    milliseconds.
    """
    if not new.get("durationMs") or (old.get("time"), old.get("durationMs")) == (new["time"], new["durationMs"]):
        return []
    told = f"Failed over from {new['from']} to {new['to']} in {new['durationMs']} ms"
    return [Event("Warning", new["reason"], told)]


def of_cluster(old: Json, new: Json) -> list[Event]:
    """Of an AgentCluster: each condition that a user acts on."""
    made: list[Event] = []
    for kind, bad in (("Accepted", "False"), ("Ready", "False"), ("QuorumHealthy", "False"), ("Degraded", "True")):
        condition = conditions.find(new, kind)
        if _changed(old, new, kind) and (condition["message"] or condition["status"] == bad):
            severity = "Warning" if condition["status"] == bad else "Normal"
            made.append(Event(severity, condition["reason"], f"{kind}: {condition['message']}"))
    return made


def of_hosts(told: Mapping[str, str] | None, hosts: Iterable[HostRow]) -> tuple[list[Event], dict[str, str]]:
    """Of an AgentCluster: each host that joined or ended, once, however many servers or hosts noticed it.

    `told`: why each incarnation had ended when this was asked last (empty: it had not); None: never asked, then nothing
    is news. Returns the events and what is told now.
    """
    now = {host.incarnation: host.ended for host in hosts}
    if told is None:
        return [], now
    made: list[Event] = []
    for host in hosts:
        where = f"{host.name} of pool {host.pool} on {host.node or 'an unknown node'}"
        before = told.get(host.incarnation)
        if before is None and not host.ended:
            made.append(Event("Normal", "HostJoined", f"Host {where} joined"))
        elif host.ended and not before:
            if host.ended == "Released":
                made.append(Event("Normal", "HostLeft", f"Host {where} left, as it was told to"))
            else:
                made.append(Event("Warning", host.ended, f"Host {where} was lost: {host.ended}"))
    return made, now


def _changed(old: Json, new: Json, kind: str) -> bool:
    before, after = conditions.find(old, kind), conditions.find(new, kind)
    if not after:
        return False
    if not before and after["status"] == "True" and kind != "Degraded":
        return False  # it began as it should
    return (before.get("status"), before.get("reason")) != (after["status"], after["reason"])
