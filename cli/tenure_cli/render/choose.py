"""Which agents a user asked for, and how many there are of each kind."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tenure_cli.ports import Rows
from tenure_cli.render.tables import NONE, Table
from tenure_cli.wire import class_of
from tenure_proto.v1 import registry_pb2

GENERAL_PURPOSE = "general_purpose"
"""What an agent offers whose spec and class declare nothing."""


class By(StrEnum):
    """What agents can be counted by."""

    NODE = "node"
    HOST = "host"
    CLASS = "class"
    POOL = "pool"
    PHASE = "phase"


@dataclass(frozen=True)
class Chosen:
    """Agents with all of these labels that offer the capability; empty ones ask for nothing."""

    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    capability: str = ""

    def takes(self, row: registry_pb2.AgentRow, rows: Rows) -> bool:
        """Whether the agent is one of them."""
        if any(row.spec.labels.get(key) != value for key, value in self.labels.items()):
            return False
        return not self.capability or self.capability in capabilities(row, rows)


def capabilities(row: registry_pb2.AgentRow, rows: Rows) -> set[str]:
    """What an agent offers: what its spec says, and what hosts that live say of its class."""
    wanted = class_of(row.spec)
    of_class = {
        name for host in rows.live_hosts() for kind in host.classes if kind.name == wanted for name in kind.capabilities
    }
    return {*row.spec.capabilities, *of_class} or {GENERAL_PURPOSE}


def counts(rows: Rows, by: By) -> list[dict[str, str | int]]:
    """How many agents there are by node, host, class, pool or phase, and how many of them are ready."""
    agents: Counter[str] = Counter()
    ready: Counter[str] = Counter()
    for row in rows.agents.values():
        values = {By.NODE: row.node, By.HOST: row.host, By.CLASS: class_of(row.spec), By.POOL: row.spec.pool}
        key = values.get(by, row.phase) or NONE
        agents[key] += 1
        ready[key] += row.ready
    return [{by.value: key, "agents": agents[key], "ready": ready[key]} for key in sorted(agents)]


def counted(rows: Rows, by: By) -> Table:
    """The counts, and their sum."""
    found = counts(rows, by)
    lines = [(str(one[by]), str(one["agents"]), str(one["ready"])) for one in found]
    if lines:
        agents, ready = (sum(int(one[name]) for one in found) for name in ("agents", "ready"))
        lines.append(("total", str(agents), str(ready)))
    return Table((by.upper(), "AGENTS", "READY"), tuple(lines))
