"""What to say of one AgentCluster, and whether it may go."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tenure_api.agentcluster import AgentClusterSpec
from tenure_api.model import Json
from tenure_api.reasons import Reason
from tenure_operator.policies import conditions, pods, rolls
from tenure_operator.policies.conditions import Finding
from tenure_operator.policies.reading import name_of, part
from tenure_operator.registry.values import AgentRow, ClusterState, HostRow

DELETE_AGENTS = "tenure.dev/delete-agents"
PAUSED = "tenure.dev/paused"
VISIBLE_LAG = 100
"""Entries. Smaller lags come and go with every write, and each would be a write of the status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView:
    """Everything that was gathered about one AgentCluster."""

    namespace: str
    name: str
    generation: int
    deleting: bool
    finalized: bool
    annotations: Json
    status: Json
    spec: AgentClusterSpec | None
    """None: it cannot be read, `invalid` says why."""
    invalid: str = ""
    statefulset: Json | None = None
    server_pods: tuple[Json, ...] = ()
    host_sets: tuple[Json, ...] = ()
    """DaemonSets and Deployments."""
    claims: tuple[Json, ...] = ()
    storage_classes: tuple[Json, ...] | None = None
    certificates_expire: datetime | None = None
    refused: str = ""
    """What the API server or we ourselves refused to make, in a sentence."""
    refused_reason: Reason = Reason.OBJECT_REFUSED
    reachable: bool = False
    problem: str = ""
    state: ClusterState | None = None
    rows: tuple[AgentRow, ...] = ()
    hosts: tuple[HostRow, ...] = ()
    object_agents: int = 0
    """Agent objects that this cluster has registered, as their status says."""
    namespace_going: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCount:
    """The hosts of a pool, wanted and ready."""

    name: str
    desired: int
    ready: int
    seen: bool
    """The controller has taken the newest template up, so that `desired` can be believed."""
    updated: bool
    empty: bool
    """The user asked for no host."""
    classes: tuple[str, ...]
    error: str
    reason: str


# --- deletion ---------------------------------------------------------------------------------------------------------


def agents_left(view: ClusterView) -> int:
    """How many agents would be lost. Without an answer from the servers the last known number counts."""
    if view.reachable:
        return len(view.rows)
    return max(int(view.status.get("agents") or 0), view.object_agents)


def agents_go_too(view: ClusterView) -> bool:
    """The user has said that the agents may go with the cluster."""
    return view.annotations.get(DELETE_AGENTS) == "true"


def may_go(view: ClusterView) -> bool:
    """Whether the finalizer may come off."""
    return view.namespace_going or agents_go_too(view) or agents_left(view) == 0


# --- status -----------------------------------------------------------------------------------------------------------


def status(view: ClusterView, now: datetime) -> Json:
    """The whole status."""
    pools = [_count(view, name) for name in _pool_names(view)]
    findings = _findings(view, pools)
    problem = _problem(view, findings, pools)
    made: Json = {
        "observedGeneration": view.generation,
        "phase": _phase(view, findings),
        "summary": problem or _all_well(view, pools),
        "quorum": f"{_caught_up(view)}/{_replicas(view)}" if view.spec else "",
        "hosts": f"{sum(pool.ready for pool in pools)}/{sum(pool.desired for pool in pools)}",
        "leader": view.state.leader if view.state and view.reachable else "",
        "term": view.state.term if view.state else 0,
        "members": _members(view),
        "pools": [
            {"name": pool.name, "desired": pool.desired, "ready": pool.ready, "classes": list(pool.classes)}
            for pool in pools
        ],
        "conditions": conditions.merged(
            view.status.get("conditions", []), list(findings.values()), view.generation, now
        ),
    }
    agents = len(view.rows) if view.reachable else view.status.get("agents")
    if agents is not None:
        made["agents"] = agents
    if view.certificates_expire is not None:
        made["certificatesExpire"] = conditions.timestamp(view.certificates_expire)
    return made


def _findings(view: ClusterView, pools: list[PoolCount]) -> dict[str, Finding]:
    quorum = _quorum(view)
    hosts = _hosts_ready(pools)
    serving = quorum.status == "True" and all(pool.ready or pool.empty for pool in pools)
    first = quorum if quorum.status != "True" else hosts
    found = [
        _accepted(view),
        Finding(
            "Ready",
            conditions.verdict(serving),
            Reason.AS_EXPECTED if serving else first.reason,
            "Agents can run." if serving else first.message,
        ),
        quorum,
        hosts,
        _progressing(view, pools),
        _degraded(view, pools),
    ]
    return {finding.type: finding for finding in found}


def _accepted(view: ClusterView) -> Finding:
    if view.spec is None:
        return Finding("Accepted", "False", Reason.SPEC_INVALID, view.invalid)
    if view.refused:
        return Finding("Accepted", "False", view.refused_reason, view.refused)
    return Finding("Accepted", "True", Reason.ACCEPTED, "The specification has been taken up.")


def _quorum(view: ClusterView) -> Finding:
    replicas = _replicas(view)
    if not view.reachable or view.state is None:
        starting = view.status.get("agents") is None
        reason = Reason.SERVERS_STARTING if starting else Reason.NO_QUORUM
        return Finding("QuorumHealthy", "Unknown", reason, f"No server answers: {view.problem}.")
    caught_up = view.state.quorum_ready
    if not view.state.leader or caught_up <= replicas // 2:
        return Finding(
            "QuorumHealthy", "False", Reason.NO_QUORUM, f"{caught_up} of {replicas} servers are caught up, none leads."
        )
    leader = f"{view.state.leader} leads (term {view.state.term})"
    return Finding(
        "QuorumHealthy", "True", Reason.AS_EXPECTED, f"{caught_up} of {replicas} servers are caught up, {leader}."
    )


def _hosts_ready(pools: list[PoolCount]) -> Finding:
    for pool in pools:
        if not pool.seen:
            return Finding("HostsReady", "False", Reason.HOSTS_STARTING, f"Pool {pool.name}: its hosts are being made.")
        if not pool.desired and not pool.empty:
            message = f"Pool {pool.name}: no node takes its hosts. Check nodeSelector, affinity and tolerations."
            return Finding("HostsReady", "False", Reason.NO_HOST_FITS, message)
        if pool.ready < pool.desired:
            message = f"Pool {pool.name}: {pool.ready} of {pool.desired} hosts are ready" + (
                f"; {pool.error}" if pool.error else "."
            )
            return Finding("HostsReady", "False", pool.reason or Reason.HOSTS_STARTING, message)
    return Finding("HostsReady", "True", Reason.AS_EXPECTED, "Every host holds a lease and has a worker.")


def _progressing(view: ClusterView, pools: list[PoolCount]) -> Finding:
    old = len(rolls.outdated(_servers(view))) if view.statefulset else 0
    if old:
        done = _replicas(view) - old
        return Finding(
            "Progressing", "True", Reason.ROLLING, f"{done} of {_replicas(view)} servers are of the new revision."
        )
    if _caught_up(view) < _replicas(view):
        return Finding("Progressing", "True", Reason.SERVERS_STARTING, "Servers are starting.")
    for pool in pools:
        if pool.seen and not pool.updated:
            return Finding("Progressing", "True", Reason.ROLLING, f"Hosts of pool {pool.name} are being replaced.")
    return Finding("Progressing", "False", Reason.AS_EXPECTED, "")


def _degraded(view: ClusterView, pools: list[PoolCount]) -> Finding:  # noqa: PLR0911 - worst first, one line each
    if view.deleting and not may_go(view):
        return Finding("Degraded", "True", Reason.DELETION_BLOCKED, _blocked(view))
    if view.refused:
        return Finding("Degraded", "True", view.refused_reason, view.refused)
    claim = pods.waiting_claim(view.claims, view.storage_classes)
    if claim:
        return Finding("Degraded", "True", Reason.CLAIM_WAITING, f"{_capital(claim)}. {Reason.CLAIM_WAITING.next_step}")
    failing = _failing_server(view)
    if failing:
        return Finding("Degraded", "True", Reason.SERVER_FAILING, failing)
    for pool in pools:
        if pool.error:
            return Finding("Degraded", "True", pool.reason or Reason.IMPORT_FAILED, f"Pool {pool.name}: {pool.error}")
    if view.spec and view.spec.servers.storage.type == "Ephemeral":
        message = "The servers keep no volumes: the state of every agent is lost with a majority of their pods."
        return Finding("Degraded", "True", Reason.EPHEMERAL_STORAGE, message)
    return Finding("Degraded", "False", Reason.AS_EXPECTED, "")


def _problem(  # noqa: PLR0911 - one sentence each
    view: ClusterView, findings: dict[str, Finding], pools: list[PoolCount]
) -> str:
    """The sentence of what is wrong or going on; empty when all is well."""
    if view.deleting:
        return _blocked(view) if not may_go(view) else "Terminating"
    if findings["Accepted"].status == "False":
        return f"Not accepted: {findings['Accepted'].message}"
    quorum, degraded, progressing = findings["QuorumHealthy"], findings["Degraded"], findings["Progressing"]
    if quorum.status != "True":
        if degraded.reason in (Reason.CLAIM_WAITING, Reason.SERVER_FAILING):
            return f"Waiting: {degraded.message}"
        if view.status.get("agents") is None:
            return f"Starting: {_caught_up(view)} of {_replicas(view)} servers are ready"
        return f"No quorum: {quorum.message}"
    if progressing.reason == Reason.ROLLING:
        return f"Rolling: {progressing.message}"
    if findings["HostsReady"].status != "True":
        prefix = "Running" if any(pool.ready for pool in pools) else "Waiting"
        return f"{prefix}: {findings['HostsReady'].message}"
    if _caught_up(view) < _replicas(view):
        return f"Running: {quorum.message}"
    return ""


def _all_well(view: ClusterView, pools: list[PoolCount]) -> str:
    hosts = sum(pool.ready for pool in pools)
    text = f"Running: {_some(_replicas(view), 'server')}, {_some(hosts, 'host')}, {_some(len(view.rows), 'agent')}"
    return f"{text} (paused)" if view.annotations.get(PAUSED) == "true" else text


def _blocked(view: ClusterView) -> str:
    asked = "" if view.reachable else f" (last known; no server answers: {view.problem})"
    return f"Deletion blocked: {_some(agents_left(view), 'agent')}{asked}. {Reason.DELETION_BLOCKED.next_step}"


def _phase(view: ClusterView, findings: dict[str, Finding]) -> str:
    if view.deleting:
        return "Terminating"
    if findings["Accepted"].status == "False":
        return "Pending"
    if findings["Ready"].status == "True":
        whole = findings["HostsReady"].status == "True" and _caught_up(view) >= _replicas(view)
        return "Running" if whole else "Degraded"
    return "Creating" if view.status.get("agents") is None else "Degraded"


# --- counting ---------------------------------------------------------------------------------------------------------


def _replicas(view: ClusterView) -> int:
    return view.spec.servers.replicas if view.spec else 0


def _caught_up(view: ClusterView) -> int:
    """As the servers say; while none answers, pods that are ready say the same of themselves."""
    if view.reachable and view.state is not None:
        return view.state.quorum_ready
    return sum(rolls.ready(pod) for pod in view.server_pods)


def _servers(view: ClusterView) -> rolls.Servers:
    state = view.state if view.reachable else None
    return rolls.Servers(
        statefulset=view.statefulset or {},
        pods=view.server_pods,
        leader=state.leader if state else "",
        caught_up=state.quorum_ready if state else 0,
    )


def next_server(view: ClusterView) -> str | None:
    """The server to replace now, if any."""
    return rolls.next_server(_servers(view)) if view.statefulset else None


def _pool_names(view: ClusterView) -> list[str]:
    return [pool.name for pool in view.spec.pools] if view.spec else []


def _count(view: ClusterView, pool: str) -> PoolCount:
    own = next((item for item in view.host_sets if item["metadata"]["labels"].get("tenure.dev/pool") == pool), None)
    hosts = [host for host in view.hosts if host.pool == pool and not host.expired]
    desired, seen, updated = _rollout(own) if own else (0, False, False)
    broken = next((host for host in hosts if host.worker_error), None)
    return PoolCount(
        name=pool,
        desired=desired,
        ready=min(desired, sum(host.ready for host in hosts)),
        seen=seen,
        updated=updated,
        empty=own is not None and own["kind"] == "Deployment" and not desired,
        classes=tuple(sorted({name for host in hosts for name in host.classes})),
        error=f"no worker on {broken.node or broken.name}: {broken.worker_error}" if broken else "",
        reason=broken.worker_reason if broken else "",
    )


def _rollout(item: Json) -> tuple[int, bool, bool]:
    """(hosts wanted, whether the controller has seen the newest template, whether all hosts are of it)."""
    found = part(item, "status")
    seen = found.get("observedGeneration") == item["metadata"].get("generation")
    if item["kind"] == "DaemonSet":
        desired = found.get("desiredNumberScheduled", 0)
        return desired, seen, seen and found.get("updatedNumberScheduled", 0) >= desired
    desired = item["spec"].get("replicas", 0)
    surplus = found.get("replicas", 0) > desired
    return desired, seen, seen and found.get("updatedReplicas", 0) >= desired and not surplus


def _members(view: ClusterView) -> list[Json]:
    states = {server.name: server for server in view.state.servers} if view.state and view.reachable else {}
    nodes = {name_of(pod): part(pod, "spec").get("nodeName", "") for pod in view.server_pods}
    made: list[Json] = []
    for number in range(_replicas(view)):
        name = f"{view.name}-server-{number}"
        known = states.get(name)
        role, lag, version = (known.role, known.lag, known.version) if known else ("unknown", 0, "")
        lag = lag if lag >= VISIBLE_LAG else 0
        made.append({"name": name, "node": nodes.get(name, ""), "role": role, "lag": lag, "version": version})
    return made


def _failing_server(view: ClusterView) -> str:
    return next((found for pod in view.server_pods if (found := pods.trouble(pod))), "")


def _some(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
