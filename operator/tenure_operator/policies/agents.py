"""What to do about one Agent, and what to say of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from tenure_api.agent import AgentSpec
from tenure_api.model import Json
from tenure_api.reasons import Reason
from tenure_operator.policies import conditions
from tenure_operator.policies.conditions import Finding
from tenure_operator.registry.values import KUBERNETES, AgentRow, Outcome
from tenure_operator.registry.values import AgentSpec as RowSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView:
    """An AgentCluster of the agent's namespace, and what its servers say of the agent."""

    name: str
    pools: tuple[str, ...]
    deleting: bool = False
    reachable: bool = False
    """Its servers answer, and the mirror of the registry is whole."""
    problem: str = ""
    row: AgentRow | None = None
    """The row of the agent's id, whoever made it."""
    refusal: tuple[RowSpec, Outcome] | None = None
    gone: bool = False
    """A server has confirmed that this object has no row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentView:
    """Everything that was gathered about one Agent."""

    namespace: str
    name: str
    uid: str
    generation: int
    deleting: bool
    finalized: bool
    """Our finalizer is on it."""
    paused: bool
    status: Json
    spec: AgentSpec | None
    """None: it cannot be read, `invalid` says why."""
    invalid: str = ""
    wanted: RowSpec | None = None
    """The row that the spec asks for."""
    clusters: tuple[ClusterView, ...] = ()
    """All of the namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDecision:
    """What is to be done, in this order: finalizer on, row, status, finalizer off."""

    finalizer: bool
    """Whether the finalizer is to be there."""
    apply_to: str = ""
    """Cluster that is to have the row."""
    delete_from: tuple[str, ...] = ()
    """Clusters that are to lose it."""
    status: Json | None = None
    """None: leave it as it is."""


@dataclass(frozen=True, slots=True)
class _Said:
    """What a user reads, before it becomes a status."""

    accepted: Finding
    phase: str = "Pending"
    summary: str = ""
    reason: str = ""
    next_action: str = ""
    row: AgentRow | None = None
    extra: dict[str, Finding] = field(default_factory=dict[str, Finding])


_TROUBLE = frozenset(
    {
        Reason.CLASS_NOT_FOUND,
        Reason.IMPORT_FAILED,
        Reason.VERSION_SKEW,
        Reason.STATE_INVALID,
        Reason.STATE_UNREADABLE,
        Reason.NO_HOST_FITS,
        Reason.CAPABILITY_MISSING,
        Reason.ACTIVATION_FAILED,
        Reason.CRASH_LOOP,
        Reason.PAUSED,
    }
)
_DEGRADED_PHASES = frozenset({"FailingOver", "Backoff", "Paused", "Unavailable"})
_READY_PHASES = frozenset({"Running", "Hibernated"})
"""One that hibernates answers: what it is asked wakes it."""
_PROGRESSING_PHASES = frozenset({"Pending", "Starting", "FailingOver", "Migrating", "Backoff", "Terminating"})
ACCEPTED = Finding("Accepted", "True", "Accepted", "The registry has the agent.")


def decide(view: AgentView, now: datetime) -> AgentDecision:
    """The one decision about an Agent."""
    if view.deleting:
        return _decide_deletion(view, now)
    problem = _rejection(view)
    if problem is not None:
        row = _own_row(view)
        rejected = replace(problem, row=row) if row is not None else problem
        return AgentDecision(finalizer=row is not None or view.finalized, status=_status(view, rejected, now))
    cluster = _chosen(view)
    row, wanted = cluster.row, view.wanted
    stale = row is None or wanted is None or not row.is_of(wanted)
    refused = cluster.refusal is not None and cluster.refusal[0] == wanted
    apply_to = cluster.name if stale and not refused and not view.paused else ""
    said = _say(view, cluster)
    return AgentDecision(
        finalizer=view.finalized or not view.paused,
        apply_to=apply_to,
        status=_status(view, said, now) if said is not None else None,
    )


def _own_row(view: AgentView) -> AgentRow | None:
    rows = [cluster.row for cluster in view.clusters if cluster.row is not None]
    return next((row for row in rows if row.spec.object_uid == view.uid), None)


# --- what cannot be accepted -----------------------------------------------------------------------------------------


def _rejection(view: AgentView) -> _Said | None:
    """Why there is no cluster that could run it, if so: known from the objects alone, without any server."""
    if view.spec is None or view.wanted is None:
        return _rejected(Reason.SPEC_INVALID, view.invalid)
    named = view.spec.cluster_ref.name if view.spec.cluster_ref else ""
    if named and not any(cluster.name == named for cluster in view.clusters):
        return _rejected(Reason.CLUSTER_NOT_FOUND, f"AgentCluster {named} does not exist in namespace {view.namespace}")
    if not view.clusters:
        return _rejected(Reason.CLUSTER_NOT_FOUND, f"namespace {view.namespace} has no AgentCluster")
    if not named and len(view.clusters) > 1:
        names = ", ".join(sorted(cluster.name for cluster in view.clusters))
        return _rejected(Reason.CLUSTER_AMBIGUOUS, f"namespace {view.namespace} has several AgentClusters ({names})")
    cluster = _chosen(view)
    if view.spec.pool not in cluster.pools:
        known = ", ".join(cluster.pools)
        return _rejected(
            Reason.POOL_NOT_FOUND, f"AgentCluster {cluster.name} has no pool {view.spec.pool} (it has {known})"
        )
    return None


def _chosen(view: AgentView) -> ClusterView:
    named = view.spec.cluster_ref.name if view.spec and view.spec.cluster_ref else ""
    return next(cluster for cluster in view.clusters if named in ("", cluster.name))


def _rejected(reason: Reason, message: str) -> _Said:
    return _Said(
        accepted=Finding("Accepted", "False", reason, f"{message[:1].upper()}{message[1:]}."),
        summary=f"Waiting: {message}",
        reason=reason,
        next_action=reason.next_step,
    )


# --- what is said ----------------------------------------------------------------------------------------------------


def _say(view: AgentView, cluster: ClusterView) -> _Said | None:
    """What to say of an agent that can be accepted. None: nothing is known now, so what was said stands."""
    row = cluster.row
    if row is not None and row.spec.object_uid == view.uid:
        return _Said(accepted=_acceptance(view, cluster, row), row=row)
    if cluster.refusal is not None and cluster.refusal[0].object_uid == view.uid:
        return _refused(cluster.refusal[1])
    if view.status.get("uid") and not cluster.reachable:
        return None  # it has run: that nobody can be asked now does not mean that it does not
    if not cluster.reachable:
        message = f"no server of AgentCluster {cluster.name} answers ({cluster.problem})"
        accepted = Finding("Accepted", "Unknown", Reason.NO_QUORUM, f"N{message[1:]}.")
        return _Said(accepted, summary=f"Waiting: {message}", reason=Reason.NO_QUORUM)
    accepted = Finding("Accepted", "Unknown", Reason.SCHEDULED, "The registry is being told.")
    return _Said(accepted, summary="Waiting: to be registered", reason=Reason.SCHEDULED)


def _refused(outcome: Outcome) -> _Said:
    message = outcome.message or "the registry refused the agent"
    return _Said(
        accepted=Finding("Accepted", "False", outcome.code or Reason.SPEC_INVALID, message),
        summary=f"Waiting: {message}",
        reason=outcome.code or Reason.SPEC_INVALID,
        next_action=outcome.next_step or _next_step(outcome.code),
    )


def _acceptance(view: AgentView, cluster: ClusterView, row: AgentRow) -> Finding:
    refusal = cluster.refusal
    if refusal is not None and refusal[0] == view.wanted:
        outcome = refusal[1]
        return Finding("Accepted", "False", outcome.code or Reason.SPEC_INVALID, outcome.message)
    if view.wanted is not None and row.is_of(view.wanted) and row.spec.state != view.wanted.state:
        message = f"An edit of spec.state changes nothing. {Reason.STATE_IGNORED.next_step}"
        return Finding("Accepted", "True", Reason.STATE_IGNORED, message)
    return ACCEPTED


def _next_step(code: str) -> str:
    try:
        return Reason(code).next_step
    except ValueError:  # a server of another version may use a word that this catalogue lacks
        return ""


def _status(view: AgentView, said: _Said, now: datetime) -> Json:
    """The whole status."""
    row = said.row
    phase, summary = (row.phase, row.summary) if row else (said.phase, said.summary)
    reason, next_action = (row.reason, row.next_action) if row else (said.reason, said.next_action)
    generation = row.spec.generation if row else view.generation
    ready = row is not None and row.ready and phase in _READY_PHASES
    degraded = phase in _DEGRADED_PHASES or reason in _TROUBLE or said.accepted.status == "False"
    fine = reason or conditions.AS_EXPECTED
    findings = [
        said.accepted,
        Finding("Ready", conditions.verdict(ready), fine, summary),
        Finding("Progressing", conditions.verdict(phase in _PROGRESSING_PHASES), fine, summary),
        Finding(
            "Degraded",
            conditions.verdict(degraded),
            fine if degraded else conditions.AS_EXPECTED,
            summary if degraded else "",
        ),
    ]
    made: Json = {
        "observedGeneration": generation,
        "phase": phase,
        "summary": f"{summary} (paused)" if view.paused else summary,
        "reason": reason,
        "nextAction": next_action,
        "epoch": row.epoch if row else 0,
        "restarts": row.restarts if row else 0,
        "deadLetters": row.dead_letters if row else 0,
        "conditions": conditions.merged(view.status.get("conditions", []), findings, generation, now),
    }
    if row is not None:
        made |= {"uid": row.uid, "host": row.host, "nodeName": row.node}
        if row.last_failover is not None:
            made["lastFailover"] = _last_failover(row)
    return made


def _last_failover(row: AgentRow) -> Json:
    found = row.last_failover
    if found is None:
        return {}
    return {
        "time": conditions.from_wall(found.wall_time + found.duration_ms / 1000),
        "from": _place(found.from_host, found.from_node),
        "to": _place(found.to_host, found.to_node),
        "reason": found.reason,
        "durationMs": found.duration_ms,
    }


def _place(host: str, node: str) -> str:
    return f"{host} ({node})" if host and node else host or node


# --- deletion --------------------------------------------------------------------------------------------------------


def _decide_deletion(view: AgentView, now: datetime) -> AgentDecision:
    """Stop it, then let the object go. A cluster that is gone or going holds nothing back (API.md section 2)."""
    if not view.finalized:
        return AgentDecision(finalizer=False)
    going = tuple(cluster.name for cluster in view.clusters if cluster.deleting)
    open_ = [cluster for cluster in _concerned(view) if not cluster.deleting and not cluster.gone]
    delete_from = (*going, *(cluster.name for cluster in open_ if _to_ask(view, cluster)))
    if not open_:
        return AgentDecision(finalizer=False, delete_from=delete_from)
    return AgentDecision(finalizer=True, delete_from=delete_from, status=_terminating(view, open_[0], now))


def _concerned(view: AgentView) -> list[ClusterView]:
    """Clusters that may hold the agent: the named one; without a name any."""
    named = view.spec.cluster_ref.name if view.spec and view.spec.cluster_ref else ""
    return [cluster for cluster in view.clusters if named in ("", cluster.name)]


def _to_ask(view: AgentView, cluster: ClusterView) -> bool:
    """Not again while the row is on its way out: its end wakes us."""
    row = cluster.row
    return not (row is not None and row.deleting and row.spec.object_uid == view.uid)


def _terminating(view: AgentView, cluster: ClusterView, now: datetime) -> Json:
    row = cluster.row if cluster.row is not None and cluster.row.managed_by == KUBERNETES else None
    if not cluster.reachable:
        summary = f"Terminating: waits for AgentCluster {cluster.name}, no server answers ({cluster.problem})"
        reason, step = Reason.NO_QUORUM, Reason.NO_QUORUM.next_step
    else:
        summary = row.summary if row is not None and row.deleting else "Terminating"
        reason, step = Reason.DELETING, Reason.DELETING.next_step
    accepted = ACCEPTED if row is not None else Finding("Accepted", "Unknown", reason, summary)
    said = _Said(accepted, phase="Terminating", summary=summary, reason=reason, next_action=step)
    made = _status(view, said, now)
    if row is not None:
        made |= {"uid": row.uid, "host": row.host, "nodeName": row.node, "epoch": row.epoch, "restarts": row.restarts}
    return made
