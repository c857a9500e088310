"""What a lookup answers. `NOT_FOUND`, `UNAVAILABLE` and `NODE_UNAVAILABLE` are three different answers."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tenure_api.reasons import Reason
from tenured.core.model import Agent, Host

LOST = frozenset({str(Reason.LEASE_EXPIRED), str(Reason.HOST_LOST)})
"""Reasons for which nobody holds an agent although nobody asked for that."""


class Answer(StrEnum):
    """Of a lookup by id."""

    FOUND = "Found"
    """Held, or on its way to a holder; the row says which."""
    NOT_FOUND = "NotFound"
    """The registry has no such agent, or it has ended by itself."""
    UNAVAILABLE = "AgentUnavailable"
    """It exists, and by a decision or its own fault nobody serves it now."""
    NODE_UNAVAILABLE = "NodeUnavailable"
    """Its host is silent, or was lost and nobody has taken over yet."""


class Lookup(msgspec.Struct, frozen=True):
    """The answer, with the row that it is about (None: not found) and a sentence when it is not `FOUND`."""

    answer: Answer
    agent: Agent | None = None
    message: str = ""


def look(agent_id: str, agent: Agent | None, host: Host | None) -> Lookup:  # noqa: PLR0911 - answers
    """Judge one row; `host`: the row of its holder."""
    if agent is None:
        return Lookup(Answer.NOT_FOUND, None, f"There is no agent {agent_id}.")
    if agent.ended:
        return Lookup(Answer.NOT_FOUND, agent, f"{agent.id} has ended: {agent.ended}")
    if agent.unavailable:
        return Lookup(Answer.UNAVAILABLE, agent, f"{agent.id} is unavailable: {agent.unavailable_message}")
    if agent.trouble is not None and agent.trouble.phase == "Unavailable":
        return Lookup(Answer.UNAVAILABLE, agent, f"{agent.id} is unavailable: {agent.trouble.message}")
    if not agent.held and (agent.unheld_reason in LOST or agent.failover_id):
        return Lookup(Answer.NODE_UNAVAILABLE, agent, f"{agent.last_node}, where {agent.id} was, is lost.")
    if agent.held and host is not None and (host.suspect or not host.alive):
        return Lookup(Answer.NODE_UNAVAILABLE, agent, f"{host.node}, where {agent.id} is, does not answer.")
    return Lookup(Answer.FOUND, agent)
