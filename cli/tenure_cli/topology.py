"""Who sees whom: the daemons of a cluster as its servers see them, and the parts that a cut network leaves. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tenure_cli.ports import Rows
from tenure_proto.v1 import registry_pb2


@dataclass(frozen=True)
class Daemon:
    """A server or a host."""

    name: str
    role: str
    """leader, follower, candidate, joining, unreachable (no server can tell more), or host."""
    node: str
    address: str
    version: str
    agents: int


@dataclass(frozen=True)
class Topology:
    """One picture out of the views of all servers that answered."""

    daemons: tuple[Daemon, ...]
    """Servers first, by name."""
    seen: Mapping[tuple[str, str], bool]
    """(server that answered, daemon) -> it has a connection to it. A server that did not answer has no entries."""
    leaders: Mapping[str, str]
    """Server that answered -> whom it takes for the leader; empty: nobody."""
    partitions: tuple[tuple[str, ...], ...]
    """The parts, when the daemons do not all reach each other; empty when they do. The largest first."""
    total_agents: int


def picture(views: Sequence[registry_pb2.StatusResponse], rows: Rows) -> Topology:
    """Put the views together. `rows`: of any server; its hosts that have not ended are the ones that count."""
    by_name = {view.answered_by: view for view in views}
    hosts = rows.live_hosts()
    daemons = (*_servers(by_name), *(_host(host, rows) for host in hosts))
    names = [daemon.name for daemon in daemons]
    seen = {
        (observer, name): observer == name or name in reached
        for observer, view in sorted(by_name.items())
        for reached in [_reached(view)]
        for name in names
    }
    return Topology(
        daemons,
        seen,
        {observer: view.leader for observer, view in sorted(by_name.items())},
        _parts(names, seen),
        sum(daemon.agents for daemon in daemons),
    )


def _reached(view: registry_pb2.StatusResponse) -> set[str]:
    return {server.name for server in view.servers if server.connected} | set(view.linked_hosts)


def _servers(by_name: Mapping[str, registry_pb2.StatusResponse]) -> list[Daemon]:
    told: dict[str, registry_pb2.ServerStatus] = {}
    for observer, view in by_name.items():
        for server in view.servers:
            if server.name == observer or server.name not in told:  # of itself a server knows best
                told[server.name] = server
    return [
        Daemon(name, server.role if name in by_name else "unreachable", "", server.address, server.version, 0)
        for name, server in sorted(told.items())
    ]


def _host(host: registry_pb2.HostRow, rows: Rows) -> Daemon:
    agents = sum(1 for agent in rows.agents.values() if agent.incarnation == host.incarnation)
    return Daemon(host.name, "host", host.node, host.address, host.version, agents)


def _parts(names: Sequence[str], seen: Mapping[tuple[str, str], bool]) -> tuple[tuple[str, ...], ...]:
    """Connected components. Two servers that both answered are joined only if each sees the other."""
    observers = {observer for observer, _ in seen}
    joined: dict[str, set[str]] = {name: set() for name in names}
    for (observer, name), connected in seen.items():
        if connected and (name not in observers or seen[name, observer]):
            joined[observer].add(name)
            joined[name].add(observer)
    parts: list[tuple[str, ...]] = []
    left = list(names)
    while left:
        part, todo = set[str](), [left[0]]
        while todo:
            name = todo.pop()
            if name not in part:
                part.add(name)
                todo += joined[name]
        parts.append(tuple(name for name in names if name in part))
        left = [name for name in left if name not in part]
    return tuple(sorted(parts, key=len, reverse=True)) if len(parts) > 1 else ()
