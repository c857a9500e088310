"""What `tenure doctor` looks at, in order. Pure: each check is a function from what the cluster says to a verdict."""

from collections.abc import Sequence
from dataclasses import dataclass

from tenure_cli.ports import Rows
from tenure_cli.ready import near_class
from tenure_cli.render.tables import host_status
from tenure_proto.v1 import registry_pb2

HOUR_S = 3600.0
RENEW = "Restart the servers: they get a new one."


@dataclass(frozen=True)
class Verdict:
    """One line of the doctor's report; `next_step` is empty when all is well."""

    name: str
    good: bool
    detail: str
    next_step: str = ""


def certificate(expires_wall: float, now: float) -> Verdict:
    """A certificate that has ended, or ends within the hour."""
    left = expires_wall - now
    if left <= 0:
        return Verdict("certificate", False, "the servers' certificate has ended", RENEW)
    if left < HOUR_S:
        return Verdict("certificate", False, f"ends in {int(left // 60)} min", RENEW)
    return Verdict("certificate", True, f"accepted; the servers' own is good for {int(left // HOUR_S)} h")


def servers(status: registry_pb2.StatusResponse) -> Verdict:
    """Servers that nobody reaches, or that still catch up."""
    total = len(status.servers)
    missing = [server.name for server in status.servers if server.role in ("unreachable", "unknown")]
    joining = [server.name for server in status.servers if server.role == "joining" or server.store == "joining"]
    if missing:
        detail = f"{total - len(missing)} of {total} answer; not {', '.join(missing)}"
        return Verdict("servers", False, detail, "Look at their logs; the cluster works on with a majority.")
    if joining:
        return Verdict("servers", False, f"{', '.join(joining)} still catches up", "Wait; see `tenure get servers`.")
    for server in status.servers:
        if server.snapshot_failure:
            detail = f"{server.name} cannot write a snapshot: {server.snapshot_failure}"
            return Verdict("servers", False, detail, "Make room on its volume; nothing is lost until it is full.")
    return Verdict("servers", True, f"{total} of {total} answer")


def quorum(status: registry_pb2.StatusResponse) -> Verdict:
    """No leader, or no majority."""
    total, ready = len(status.servers), status.quorum_ready
    if not status.leader:
        return Verdict("quorum", False, "no server leads", "Bring back a majority of the servers.")
    if total and ready * 2 <= total:
        return Verdict("quorum", False, f"{ready} of {total} are caught up", "Bring back a majority of the servers.")
    return Verdict("quorum", True, f"{status.leader} leads in term {status.term}, {ready} of {total} are caught up")


def hosts(rows: Rows) -> Verdict:
    """Pools without hosts, and hosts that are not ready."""
    live = rows.live_hosts()
    empty = sorted(name for name in rows.pools if not any(host.pool == name for host in live))
    if empty:
        detail = f"the pool {empty[0]!r} has no host"
        return Verdict("hosts", False, detail, "Look at the logs of its hosts, or at its DaemonSet's events.")
    waiting = [host for host in live if not host.ready and not host.worker_error]
    if waiting:
        detail = f"{len(live) - len(waiting)} of {len(live)} ready; {waiting[0].name}: {host_status(waiting[0])}"
        return Verdict("hosts", False, detail, f"Look at the log of {waiting[0].name}.")
    silent = [host for host in live if host.suspect]
    if silent:
        detail = f"{len(live) - len(silent)} of {len(live)} are heard; {silent[0].name}: {host_status(silent[0])}"
        return Verdict("hosts", False, detail, f"Look at node {silent[0].node} and its network.")
    return Verdict(
        "hosts", bool(live), f"{len(live)} hosts hold a lease", "" if live else "No host has ever registered."
    )


def failover(rows: Rows) -> Sequence[Verdict]:
    """Many hosts silent at once: nothing is moved before that is confirmed. Nothing is said when all is well."""
    live = rows.live_hosts()
    held = sorted({host.name for host in live if host.silence == "Held"})
    if not held:
        return []
    detail = f"{len(held)} of {len({host.name for host in live})} hosts fell silent at once: {', '.join(held[:5])}"
    detail += ", …" if len(held) > 5 else ""
    step = "Look at the network between servers and hosts; `tenure failover confirm` moves their agents at once."
    return [Verdict("failover", False, f"held back; {detail}", step)]


def workers(rows: Rows) -> Verdict:
    """Hosts whose user code does not load."""
    broken = [host for host in rows.live_hosts() if host.worker_error]
    if broken:
        detail = f"on {broken[0].name}: {host_status(broken[0])}"
        return Verdict("workers", False, detail, "Fix the modules of the pool; the workers are started again.")
    classes = sorted({info.name for host in rows.live_hosts() for info in host.classes})
    return Verdict("workers", True, f"classes: {', '.join(classes) or 'none'}")


def agents(rows: Rows) -> Verdict:
    """Agents that are not Ready. One that has ended is not meant to be."""
    live = [row for row in rows.agents.values() if not row.ended]
    waiting = sorted((row for row in live if not row.ready), key=lambda row: row.spec.id)
    total = len(live)
    if not waiting:
        return Verdict("agents", True, f"{total} of {total} Ready")
    first = waiting[0]
    step = near_class(first, rows) or first.next_action or f"`tenure describe agent {first.spec.id}`"
    detail = f"{total - len(waiting)} of {total} Ready; {first.spec.id}: {first.summary or first.phase or 'Pending'}"
    return Verdict("agents", False, detail, step)


def letters(rows: Rows) -> Sequence[Verdict]:
    """Signals that were put aside. Nothing is said when there are none."""
    having = sorted((row for row in rows.agents.values() if row.dead_letters), key=lambda row: -row.dead_letters)
    if not having:
        return []
    total, most = sum(row.dead_letters for row in having), having[0]
    many = (
        f"{total} in {len(having)} agents, most in {most.spec.id}" if len(having) > 1 else f"{total} in {most.spec.id}"
    )
    step = f"`tenure dlq list {most.spec.id}` shows what it could not process, and why."
    return [Verdict("dead letters", False, many, step)]


def examine(status: registry_pb2.StatusResponse, rows: Rows, now: float) -> Sequence[Verdict]:
    """All checks that need an answering cluster, in their order."""
    first = [certificate(status.certificate_expires_wall, now)] if status.certificate_expires_wall else []
    of_agents = [agents(rows), *letters(rows)]
    return [*first, servers(status), quorum(status), *failover(rows), hosts(rows), workers(rows), *of_agents]
