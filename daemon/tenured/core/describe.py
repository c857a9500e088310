"""The sentences that kubectl, the CLI and the console print. One function, so that all of them say the same."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from tenure_api.reasons import Reason
from tenured.core.model import Agent, Host, Trouble
from tenured.core.registry import Registry

SUMMARY_LIMIT = 300
"""Characters of a summary; user code's messages are cut."""
_LOST = frozenset({str(Reason.LEASE_EXPIRED), str(Reason.HOST_LOST)})


class Phase(StrEnum):
    """Of an agent, as status.phase says it."""

    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    FAILING_OVER = "FailingOver"
    MIGRATING = "Migrating"
    BACKOFF = "Backoff"
    UNAVAILABLE = "Unavailable"
    PAUSED = "Paused"
    HIBERNATED = "Hibernated"
    TERMINATING = "Terminating"
    ENDED = "Ended"


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What a user reads of one agent."""

    phase: Phase
    summary: str
    reason: str
    next_action: str = ""


def describe(registry: Registry, agent: Agent, wall: float = 0.0) -> Description:
    """Say where an agent is and why. `wall` (0: the registry's own) is for "next in 8 s" only."""
    found = _describe(registry, agent, wall or registry.wall)
    if len(found.summary) > SUMMARY_LIMIT:
        return msgspec.structs.replace(found, summary=found.summary[: SUMMARY_LIMIT - 1] + "…")
    return found


def _describe(registry: Registry, agent: Agent, wall: float) -> Description:  # noqa: PLR0911 - one sentence each
    if agent.deleting:
        return _say(Phase.TERMINATING, f"Stopping on {agent.node}" if agent.node else "Stopping", Reason.DELETING)
    if agent.ended:
        return _say(Phase.ENDED, f"Ended: {agent.ended}", Reason.ENDED)
    if not agent.held:
        return _unheld(agent)
    if agent.ready:
        return _running(agent, registry.hosts.get(agent.incarnation), wall)
    if agent.trouble is not None:
        return _in_trouble(agent, agent.trouble, wall)
    failover = agent.last_failover
    if failover is not None and failover.to_host and not failover.duration_ms:
        return _say(Phase.FAILING_OVER, f"Failing over from {failover.from_node} to {agent.node}", failover.reason)
    if agent.epoch > 1 and agent.last_node and agent.last_node != agent.node:
        return _say(Phase.MIGRATING, f"Moving from {agent.last_node} to {agent.node}", agent.assigned_reason)
    host = registry.hosts.get(agent.incarnation)
    if host is not None and host.worker_error:
        return _worker_down(host)
    return _say(Phase.STARTING, f"Starting on {agent.node}", Reason.STARTING)


def _running(agent: Agent, host: Host | None, wall: float) -> Description:
    """A host that is silent may still serve, until it has been silent for a whole lease. Whoever sleeps there is not
    spoken of: a host may have a hundred thousand of them.
    """
    if host is not None and not host.alive:
        return _say(Phase.FAILING_OVER, f"Failing over from {agent.node}", host.ended)
    if host is None or not host.silence or agent.hibernation is not None:
        return _at_peace(agent, wall)
    if host.silence == "Held":
        summary = f"Failing over from {agent.node}: held back, many hosts fell silent at once"
        return _say(Phase.FAILING_OVER, summary, Reason.FAILOVER_HELD)
    if host.silence == "Silent" or not agent.spec.critical:
        return _say(Phase.RUNNING, f"Running on {agent.node} (its host is silent)", Reason.HOST_SILENT)
    return _say(Phase.FAILING_OVER, f"Failing over from {agent.node}: its lease ends", Reason.HOST_SILENT)


def _at_peace(agent: Agent, wall: float) -> Description:
    """Its host is heard: it runs, or would."""
    count = agent.dead_letters
    letters = f", {count} dead letter{'s' if count > 1 else ''}" if count else ""
    step = f"`tenure dlq list {agent.id}` shows what it could not process." if count else ""
    if agent.hibernation is None:
        return _say(Phase.RUNNING, f"Running on {agent.node}{letters}", Reason.RUNNING, step)
    wake = agent.hibernation.wake_wall
    until = f"a call, a signal or at {_time(wake, wall)}" if wake > 0 else "a call or a signal"
    return _say(Phase.HIBERNATED, f"Hibernated on {agent.node}{letters}: wakes on {until}", Reason.HIBERNATED, step)


def _time(at: float, wall: float) -> str:
    """In UTC, with the day if it is not today's."""
    try:
        moment, now = datetime.fromtimestamp(at, UTC), datetime.fromtimestamp(wall, UTC)
    except (ValueError, OverflowError, OSError):  # a clock that is far off
        return f"{at:g} s"
    return moment.strftime("%H:%M:%SZ" if moment.date() == now.date() else "%Y-%m-%dT%H:%M:%SZ")


def _unheld(agent: Agent) -> Description:
    waiting = agent.waiting
    if agent.unavailable:
        return _say(Phase.UNAVAILABLE, f"Unavailable: {agent.unavailable_message}", agent.unavailable)
    if agent.unheld_reason in _LOST and not agent.spec.critical:
        summary = f"Unavailable: {agent.last_node} was lost, and an agent that is not critical waits for it"
        return _say(Phase.UNAVAILABLE, summary, Reason.NODE_LOST)
    if agent.unheld_reason in _LOST or agent.failover_id:
        return _failing_over(agent)
    if waiting is not None:
        return _say(Phase.PENDING, waiting.message, waiting.reason, waiting.next_action)
    if agent.epoch:
        return _say(Phase.MIGRATING, f"Moving from {agent.last_node}", agent.unheld_reason)
    return _say(Phase.PENDING, "Waiting: to be placed", Reason.SCHEDULED)


def _failing_over(agent: Agent) -> Description:
    summary, waiting = f"Failing over from {agent.last_node}", agent.waiting
    if waiting is not None:
        return _say(Phase.FAILING_OVER, f"{summary}. {waiting.message}", waiting.reason, waiting.next_action)
    return _say(Phase.FAILING_OVER, summary, agent.unheld_reason)


def _in_trouble(agent: Agent, trouble: Trouble, wall: float) -> Description:
    if trouble.phase == Phase.BACKOFF:
        left = max(0, round(trouble.retry_wall - wall))
        when = f"next in {left} s" if left else "next now"
        return _say(
            Phase.BACKOFF, f"Backing off (attempt {trouble.attempt}, {when}): {trouble.message}", trouble.reason
        )
    if trouble.phase == Phase.PAUSED:
        return _paused(agent, trouble)
    if trouble.phase == Phase.TERMINATING:
        count, step = agent.dead_letters, f"`tenure dlq drop {agent.id}` lets it go, `tenure dlq list` shows them."
        step = step if count else "It goes by itself once what it sent has been taken."
        return _say(Phase.TERMINATING, f"Ending: {trouble.message}", trouble.reason, step)
    if trouble.phase == Phase.UNAVAILABLE:
        return _say(Phase.UNAVAILABLE, f"Unavailable: {trouble.message}", trouble.reason)
    message = f": {trouble.message}" if trouble.message else ""
    return _say(Phase.STARTING, f"Starting on {agent.node}{message}", trouble.reason or Reason.STARTING)


def _paused(agent: Agent, trouble: Trouble) -> Description:
    """What to do stands in the sentence: it is all that `kubectl get` shows."""
    ways = " (tenure resume, skip or redrive)"
    message = trouble.message
    room = SUMMARY_LIMIT - len("Paused: ") - len(ways)
    if len(message) > room:
        message = message[: room - 1] + "…"
    step = f"`tenure resume {agent.id}` tries the signal again, `skip` makes it a dead letter, `redrive` puts it last."
    return _say(Phase.PAUSED, f"Paused: {message}{ways}", trouble.reason or Reason.PAUSED, step)


def _worker_down(host: Host) -> Description:
    return _say(
        Phase.UNAVAILABLE,
        f"Unavailable: no worker on {host.node}: {host.worker_error}",
        host.worker_reason or Reason.IMPORT_FAILED,
    )


def _say(phase: Phase, summary: str, reason: str, next_action: str = "") -> Description:
    if not next_action:
        try:
            next_action = Reason(reason).next_step
        except ValueError:  # a holder of another version may use a word that this catalogue lacks
            next_action = ""
    return Description(phase=phase, summary=summary, reason=str(reason), next_action=next_action)
