"""Entries about agents: what users ask for, assignments, and what holders report."""

from __future__ import annotations

from itertools import zip_longest

import msgspec

from tenure_api.reasons import Reason
from tenured.core import commands
from tenured.core._apply_cluster import free_agents, unhold
from tenured.core._apply_failovers import note_left, note_moved, note_ready, note_returned
from tenured.core._apply_room import shortage, use_reservation
from tenured.core._refusing import refused
from tenured.core._specs import spec_error
from tenured.core.agentspec import AgentSpec
from tenured.core.model import Agent, Decision, Failover, Hibernation, Host, ManagedBy, RowKey, Trouble, Waiting
from tenured.core.registry import Registry
from tenured.core.results import Result, RowResult

EXPLANATION_LIMIT = 256
"""Bytes of an explanation in a row."""

PAUSED = "Paused"
"""Phase of an agent that keeps a failed signal and takes no other (protocol 3, Pause)."""
ENDING = "Terminating"
"""Phase of an agent that has ended by itself, and whose record still owes something (protocol 3, ends)."""
_LOST = frozenset({str(Reason.LEASE_EXPIRED), str(Reason.HOST_LOST)})

replace = msgspec.structs.replace


# --- what users ask for ---------------------------------------------------------------------------------------------


def apply_agents(registry: Registry, command: commands.ApplyAgents) -> Result:
    """Create or change rows, each on its own: one bad item disturbs no other."""
    seen: set[str] = set()
    rows: list[RowResult] = []
    for spec, place in zip_longest(command.agents, command.places[: len(command.agents)]):
        if spec.id in seen:
            rows.append(_refuse_row(spec.id, Reason.NAME_TAKEN, f"{spec.id} appears twice in one request"))
            continue
        seen.add(spec.id)
        found = _apply_agent(registry, spec, command)
        if found.outcome == "created" and place is not None and place.incarnation:
            _place(registry, found.uid, place)
        rows.append(found)
    return Result(rows=tuple(rows))


def _place(registry: Registry, uid: str, place: commands.Place) -> None:
    """Assign a row in the entry that creates it, under the same rules; one that they refuse waits for the planner."""
    _assign_one(
        registry,
        commands.Assignment(
            uid=uid,
            epoch=0,
            incarnation=place.incarnation,
            reason=Reason.SCHEDULED,
            explanation=place.explanation,
        ),
    )


def _apply_agent(registry: Registry, spec: AgentSpec, command: commands.ApplyAgents) -> RowResult:
    door = command.managed_by
    wrong = spec_error(spec)
    if wrong:
        return _refuse_row(spec.id, *wrong)
    old = registry.agent(spec.id)
    if old is None:
        uid = str(registry.revision + 1)  # the revision that creates the row (protocol additions 2)
        created = Agent(
            uid=uid,
            spec=spec,
            managed_by=door,
            created_wall=command.wall,
            asked_revision=int(uid),
            unheld_reason=Reason.SCHEDULED,
        )
        registry.put(created)
        return RowResult(spec.id, uid, "created")
    problem = (
        _door_error(old, door, "apply")
        or _stale_error(old, command.expected_revision)
        or _change_error(old, spec)
        or _growth_error(registry, old, spec)
    )
    if problem:
        return _refuse_row(spec.id, *problem, uid=old.uid)
    ignored = spec.state != old.spec.state
    new = replace(old, spec=replace(spec, state=old.spec.state), state_ignored=ignored)
    if new == old:
        return RowResult(spec.id, old.uid, "unchanged")
    registry.put(replace(new, asked_revision=registry.revision + 1))
    return RowResult(spec.id, old.uid, "configured")


def delete_agents(registry: Registry, command: commands.DeleteAgents) -> Result:
    """Mark rows as deleting. One that nobody holds goes at once; the others when their holder stopped or is dead
    (rule R).
    """
    rows: list[RowResult] = []
    for agent_id in command.ids:
        agent = registry.agent(agent_id)
        if agent is None or (command.object_uid and agent.spec.object_uid != command.object_uid):
            rows.append(RowResult(agent_id, "", "gone"))
            continue
        if agent.held and registry.ended(agent.incarnation):
            free_agents(registry, commands.FreeAgents(incarnation=agent.incarnation, uids=(agent.uid,)))
            agent = registry.agents[agent.uid]
        problem = _door_error(agent, command.managed_by, "delete") or _stale_error(agent, command.expected_revision)
        if problem:
            rows.append(_refuse_row(agent_id, *problem, uid=agent.uid))
        elif not agent.held:
            note_left(registry, agent)
            registry.drop(RowKey("agent", agent.uid))
            rows.append(RowResult(agent_id, agent.uid, "gone"))
        else:
            if not agent.deleting:
                registry.put(replace(agent, deleting=True, asked_revision=registry.revision + 1))
            rows.append(RowResult(agent_id, agent.uid, "deleting"))
    return Result(rows=tuple(rows))


def _refuse_row(agent_id: str, reason: Reason, message: str, uid: str = "") -> RowResult:
    return RowResult(agent_id, uid, "refused", reason, message)


def _door_error(agent: Agent, door: ManagedBy, verb: str) -> tuple[Reason, str] | None:
    if agent.managed_by == door:
        return None
    namespace, name = agent.id.split("/", 1)
    if agent.managed_by == "Kubernetes":
        command = "kubectl apply -f ..." if verb == "apply" else f"kubectl delete agent {name} -n {namespace}"
        return Reason.MANAGED_ELSEWHERE, f"{agent.id} is managed by Kubernetes: use `{command}`"
    command = "tenure apply -f ..." if verb == "apply" else f"tenure delete {agent.id}"
    return Reason.MANAGED_ELSEWHERE, f"{agent.id} was created through the API: use `{command}`"


def _stale_error(agent: Agent, expected_revision: int) -> tuple[Reason, str] | None:
    if not expected_revision or agent.asked_revision <= expected_revision:
        return None
    return (
        Reason.CONFLICT,
        f"{agent.id} was changed at revision {agent.asked_revision}, after {expected_revision}, which this is based on",
    )


def _change_error(old: Agent, spec: AgentSpec) -> tuple[Reason, str] | None:
    if old.deleting:
        return Reason.DELETING, f"{old.id} is being deleted; apply again when it is gone"
    if old.managed_by == "API" and old.trouble is not None and old.trouble.phase == ENDING:
        return Reason.DELETING, f"{old.id} has ended, and goes when nothing of it is left; apply again when it is gone"
    if old.spec.object_uid != spec.object_uid:
        return Reason.NAME_TAKEN, f"{old.id} still belongs to an earlier object of that name; delete that row first"
    if old.spec.class_name != spec.class_name:
        return (
            Reason.IMMUTABLE_FIELD,
            f"{old.id} is a {old.spec.class_name} and cannot become a {spec.class_name}: the class is fixed for life",
        )
    if old.spec.durability != spec.durability:
        change = f"{old.id} is {old.spec.durability} and cannot become {spec.durability}"
        return Reason.IMMUTABLE_FIELD, f"{change}: durability says whether its state is stored, and is fixed for life"
    return None


def _growth_error(registry: Registry, old: Agent, spec: AgentSpec) -> tuple[Reason, str] | None:
    """What a held agent asks for cannot grow beyond its host's room."""
    host = registry.hosts.get(old.incarnation)
    if host is None:
        return None
    short = shortage(
        registry,
        host,
        agents=0,
        cpu_milli=spec.cpu_milli - old.spec.cpu_milli,
        memory_bytes=spec.memory_bytes - old.spec.memory_bytes,
    )
    return (Reason.NO_ROOM, f"{old.id} cannot ask for more where it is: {short}") if short else None


# --- assignments ----------------------------------------------------------------------------------------------------


def assign(registry: Registry, command: commands.Assign) -> Result:
    """Assign agents, each by compare-and-set on (uid, epoch), under rule R."""
    return Result(rows=tuple(_assign_one(registry, item) for item in command.items))


def _assign_one(registry: Registry, item: commands.Assignment) -> RowResult:
    agent = registry.agents.get(item.uid)
    host = registry.hosts.get(item.incarnation)
    problem = _assign_error(agent, host, item)
    if problem or agent is None or host is None:
        return RowResult(item.uid, item.uid, "refused", Reason.STALE_ASSIGNMENT, problem)
    short = _take_room(registry, agent, host, item)
    if short:
        return RowResult(item.uid, item.uid, "refused", Reason.NO_ROOM, short)
    agent = note_returned(registry, agent)
    failover = agent.last_failover
    lost = agent.unheld_reason in _LOST or agent.failover_id > 0
    if failover is not None and lost:
        failover = replace(failover, to_host=host.name, to_node=host.node)
    explanation = _clip(item.explanation)
    registry.put(
        replace(
            agent,
            epoch=agent.epoch + 1,  # [cas]: one epoch, one holder
            host=host.name,
            incarnation=host.incarnation,
            node=host.node,
            assigned_reason=item.reason,
            unheld_reason="",
            ready=False,
            trouble=None,
            waiting=None,
            restarts=agent.restarts + lost,
            last_failover=failover,
            explanation=explanation,
            previous_explanation=agent.explanation,
        ),
    )
    note_moved(registry, registry.agents[agent.uid])
    registry.decisions.append(
        Decision(agent.uid, agent.id, agent.epoch + 1, host.name, registry.wall, item.reason, explanation)
    )
    return RowResult(agent.id, agent.uid, "assigned")


def _assign_error(agent: Agent | None, host: Host | None, item: commands.Assignment) -> str:  # noqa: PLR0911 - reasons
    if agent is None:
        return "the agent is gone"
    if agent.epoch != item.epoch:
        return f"the epoch is {agent.epoch}, not {item.epoch}"
    if agent.ended:
        return "the agent has ended"  # [row_stays]
    if agent.held:  # rule R (protocol 4): only a release or the end of the incarnation takes it from there
        return f"{agent.host} holds it and has neither released it nor expired"
    if host is None or not host.alive:
        return f"incarnation {item.incarnation} is not registered, or has ended"
    if host.quarantined:
        return f"{host.name} is quarantined: {host.quarantined}"
    return ""


def _take_room(registry: Registry, agent: Agent, host: Host, item: commands.Assignment) -> str:
    """Check the host's room, that of the item's reservation included, and shrink the reservation; else say why not."""
    reservation = registry.reservations.get(item.reservation) if item.reservation else None
    if reservation is not None and reservation.incarnation != host.incarnation:
        reservation = None
    cpu_milli, memory_bytes = agent.spec.cpu_milli, agent.spec.memory_bytes
    short = shortage(
        registry,
        host,
        agents=1 - (min(1, reservation.agents) if reservation is not None else 0),
        cpu_milli=cpu_milli - (min(cpu_milli, reservation.cpu_milli) if reservation is not None else 0),
        memory_bytes=memory_bytes - (min(memory_bytes, reservation.memory_bytes) if reservation is not None else 0),
    )
    if not short and reservation is not None:
        use_reservation(registry, reservation, cpu_milli, memory_bytes)
    return short


def _clip(text: str) -> str:
    return text.encode()[:EXPLANATION_LIMIT].decode(errors="ignore")


# --- what holders report --------------------------------------------------------------------------------------------


def agent_reports(registry: Registry, command: commands.AgentReports) -> Result:
    """Apply the reports that are of the row's own holder and epoch; the others are late and change nothing."""
    host = registry.hosts.get(command.incarnation)
    if host is None or not host.alive:
        return refused(Reason.INCARNATION_ENDED, f"incarnation {command.incarnation} is not registered, or has ended")
    for report in command.reports:
        agent = registry.agents.get(report.uid)
        if agent is None or agent.incarnation != command.incarnation or agent.epoch != report.epoch:
            continue
        new = agent if report.dead_letters is None else replace(agent, dead_letters=report.dead_letters)
        if report.released or report.stopped:  # rule R, a
            unhold(registry, new, Reason.DRAINING if host.draining else Reason.RELEASED, lost_wall=None)
            continue
        if report.ended is not None:
            _end(registry, new, report.ended)
            continue
        if report.ready:
            new = _ready(registry, new, command.wall)
        elif report.hibernated is not None:
            new = _ready(registry, new, command.wall, Hibernation(wake_wall=report.hibernated.wake_wall))
        elif report.trouble is not None:
            new = _trouble(registry, new, report.trouble, command.wall)
        if new != agent:
            registry.put(new)
    return Result()


def _end(registry: Registry, agent: Agent, reason: str) -> None:
    """It has ended by itself, and nothing of it is left but its row. That goes, unless a Kubernetes object has it: the
    object would make the agent anew [row_stays].
    """
    note_left(registry, agent)
    if agent.managed_by == "API" or agent.deleting:
        registry.drop(RowKey("agent", agent.uid))
        return
    ended = replace(agent, ended=_clip(reason) or "done", failover_id=0, last_failover=_over(agent.last_failover))
    unhold(registry, ended, Reason.ENDED, lost_wall=None)


def _over(failover: Failover | None) -> Failover | None:
    """One that has not ended will not: there is nothing left to move."""
    return failover if failover is None or failover.duration_ms else None


def _ready(registry: Registry, agent: Agent, wall: float, hibernation: Hibernation | None = None) -> Agent:
    failover = agent.last_failover
    if failover is not None and failover.to_host and not failover.duration_ms:
        failover = replace(failover, duration_ms=_milliseconds(failover, wall))
    return replace(
        note_ready(registry, agent),
        ready=True,
        ready_epoch=agent.epoch,
        trouble=None,
        hibernation=hibernation,
        last_failover=failover,
    )


def _milliseconds(failover: Failover, wall: float) -> int:
    """At least 1 ms: 0 says that the failover has not ended. Wall clocks may disagree, so it is bounded on both
    sides.
    """
    return round(min(max((wall - failover.wall) * 1000, 1), 2**31))


def _trouble(registry: Registry, agent: Agent, report: commands.TroubleReport, wall: float) -> Agent:
    attempts = agent.trouble.attempt if agent.trouble is not None else 0
    arrived = report.phase in {PAUSED, ENDING}
    if arrived:
        # Its holder has adopted the record and answers: the failover is over, and a state must exist from now on.
        agent = _ready(registry, agent, wall)
    return replace(
        agent,
        ready=False,
        hibernation=None,
        restarts=agent.restarts + (not arrived and report.attempt > attempts),
        trouble=Trouble(
            phase=report.phase,
            reason=report.reason,
            message=report.message,
            attempt=report.attempt,
            retry_wall=registry.wall + report.retry_in_seconds if report.retry_in_seconds > 0 else 0.0,
        ),
    )


def set_waiting(registry: Registry, command: commands.SetWaiting) -> Result:
    """Note why agents are not placed, for as long as they are not."""
    for item in command.items:
        agent = registry.agents.get(item.uid)
        if agent is None or agent.held or agent.epoch != item.epoch:
            continue
        waiting = Waiting(reason=item.reason, message=item.message, next_action=item.next_action)
        if agent.waiting != waiting:
            registry.put(replace(agent, waiting=waiting))
    return Result()
