"""What `tenure describe agent` prints: everything the registry says about one agent, in words."""

from datetime import UTC, datetime

from tenure_cli.arguments import schema_of
from tenure_cli.ports import Rows
from tenure_cli.render.choose import capabilities
from tenure_cli.render.tables import NONE, age, failover
from tenure_cli.wire import class_of
from tenure_proto.v1 import registry_pb2

INDENT = 2
DOORS = {
    registry_pb2.MANAGED_BY_KUBERNETES: "Kubernetes (change it with kubectl)",
    registry_pb2.MANAGED_BY_API: "API (change it with tenure apply)",
}


def agent(row: registry_pb2.AgentRow, rows: Rows, now: float) -> list[str]:
    """Lines of text."""
    fields = [
        ("Name", row.spec.id),
        ("Class", class_of(row.spec)),
        ("Pool", row.spec.pool),
        ("Managed by", DOORS.get(row.managed_by, NONE)),
        ("Phase", row.phase or NONE),
        ("Status", row.summary or NONE),
        ("Reason", row.reason or NONE),
        ("Next step", row.next_action or NONE),
        ("Ready", str(row.ready)),
        ("Epoch", str(row.epoch)),
        ("Host", row.host or NONE),
        ("Node", row.node or NONE),
        ("Restarts", str(row.restarts)),
        ("Dead letters", str(row.dead_letters)),
        ("Created", f"{_moment(row.created_wall)} ({age(row.created_wall, now)} ago)"),
        ("Last failover", failover(row, now)),
        ("Recovered from", row.recovered_from or NONE),
        ("Capabilities", ", ".join(sorted(capabilities(row, rows)))),
        ("Labels", ", ".join(f"{key}={value}" for key, value in sorted(row.spec.labels.items())) or NONE),
        ("Works", _works(row.spec)),
        ("Placement", f"{row.assigned_reason or NONE}: {row.explanation or 'no explanation is kept'}"),
        ("UID", row.uid),
    ]
    width = max(len(name) for name, _ in fields) + 1 + INDENT
    lines = [f"{name + ':':<{width}}{value}" for name, value in fields]
    return lines + _moved(row) + methods(row, rows)


def _works(spec: registry_pb2.AgentSpec) -> str:
    """How it keeps its state, and what becomes of signals that fail."""
    words = [f"durability {spec.durability or 'Quorum'}", f"reads {spec.reads or 'Local'}"]
    words.append(f"{spec.on_exhausted or 'DeadLetter'} after {spec.delivery.max_attempts or 5} attempts")
    if spec.idle_timeout_s:
        words.append(f"hibernates after {spec.idle_timeout_s:g} s")
    return ", ".join(words)


def _moment(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if wall else NONE


def _moved(row: registry_pb2.AgentRow) -> list[str]:
    last = row.last_failover
    if not last.wall_time:
        return []
    return [f"  {_moment(last.wall_time)}: from {last.from_host} ({last.from_node}) to {last.to_host} ({last.to_node})"]


def methods(row: registry_pb2.AgentRow, rows: Rows) -> list[str]:
    """What can be called, with the options that `tenure call` takes for it; nothing while no host knows the class."""
    info = class_info(row, rows)
    if info is None:
        return []
    lines = ["Methods:"]
    for method in info.methods:
        kind = "query" if method.query else "action"
        named = " ".join([method.name, *_options(method)])
        lines.append(f"  {named} ({kind}): {method.description or 'no description'}".rstrip())
    return lines


def _options(method: registry_pb2.MethodInfo) -> list[str]:
    """`--by INTEGER`, in brackets where it may be left out."""
    schema = schema_of(method)
    properties: dict[str, dict[str, object]] = schema.get("properties", {})
    required: list[str] = schema.get("required", [])
    texts = [
        (name, f"--{name.replace('_', '-')} {str(about.get('type', 'json')).upper()}")
        for name, about in properties.items()
    ]
    return [text if name in required else f"[{text}]" for name, text in texts]


def class_info(row: registry_pb2.AgentRow, rows: Rows) -> registry_pb2.ClassInfo | None:
    """What the hosts of its pool report of the agent's class; its own host's word first."""
    hosts = sorted(rows.live_hosts(), key=lambda host: host.name != row.host)
    for host in hosts:
        if host.pool == row.spec.pool:
            for info in host.classes:
                if info.name == class_of(row.spec):
                    return info
    return None
