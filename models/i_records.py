"""Model I, which record is whose (protocol 2, uid): agents created, deleted and created again, servers that lag.

The registry is a list of entries; an entry changes one or more rows, and the revision grows by one per changed row. An
agent's record is kept under its uid, the revision of the row that created it. Each server has applied a prefix of the
log, and none of it right after a restart, while its store is on disk. Writes are acknowledged at two servers of three.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from models.explore import Model, Step, put

Entries = tuple[tuple[str, tuple[str, ...]], ...]
"""(create | delete, names)"""


class Server(NamedTuple):
    """One server."""

    applied: int = 0  # entries
    store: frozenset[tuple[str, str]] = frozenset()  # (key, whose state it is): on disk


class World(NamedTuple):
    """A state of the whole."""

    log: Entries = ()
    servers: tuple[Server, ...] = (Server(), Server(), Server())
    acked: frozenset[str] = frozenset()  # agents (name.life) with an acknowledged state
    restarts: int = 0


class Records(Model[World]):
    """See the module."""

    script: Entries = (("create", ("x", "y")), ("delete", ("x",)), ("create", ("x",)))
    restarts = 1
    live = True
    FAST = ({"restarts": 0},)
    SMALL = ({}, {"restarts": 2})
    BIG = {"restarts": 8, "script": (*script, ("delete", ("y",)), ("create", ("y",)), ("delete", ("x",)))}
    GUARDS = {
        "uid": {"restarts": 0},
        "uid_row": {"restarts": 0},
        "uid_wait": {},
        "uid_refuse": {"restarts": 0},
        "uid_drop": {"restarts": 0},
    }
    SPARE = frozenset({"uid_refuse"})

    def init(self) -> World:
        """Return an empty registry."""
        return World()

    def rows(self, log: Entries) -> tuple[dict[str, str], dict[str, str], int]:
        """Live agents (name.life) with their keys, every agent that ever was with its key, and the revision."""
        live, ever, lives, revision = dict[str, str](), dict[str, str](), dict[str, int](), 0
        for index, (kind, names) in enumerate(log, 1):
            for name in names:
                revision += 1
                if kind == "create":
                    lives[name] = lives.get(name, 0) + 1
                    number = revision if self.on("uid_row") else index
                    life = f"{name}.{lives[name]}"
                    live[life] = ever[life] = str(number) if self.on("uid") else name
                else:
                    live.pop(f"{name}.{lives[name]}", None)
        return live, ever, revision

    def check(self, s: World) -> str | None:
        """A live agent's acknowledged state is on two servers, and nobody else's is under its key."""
        live, _, _ = self.rows(s.log)
        for life, key in live.items():
            if life in s.acked and sum((key, life) in server.store for server in s.servers) < len(s.servers) - 1:
                return f"the acknowledged state of {life} is gone"
            if any(k == key and whose != life for server in s.servers for k, whose in server.store):
                return f"{life} finds the state of another agent under its key"
        return None

    def goal(self, s: World) -> bool:
        """Everything is applied, and nothing is kept of agents that are gone."""
        keys = set(self.rows(s.log)[0].values())
        done = all(server.applied == len(s.log) for server in s.servers)
        return (
            len(s.log) == len(self.script) and done and all(k in keys for server in s.servers for k, _ in server.store)
        )

    def steps(self, s: World) -> Iterator[Step[World]]:
        """Entries, servers that apply, restart, store and drop."""
        if len(s.log) < len(self.script):
            kind, names = self.script[len(s.log)]
            yield f"entry: {kind} {' '.join(names)}", s._replace(log=(*s.log, (kind, names)))
        _, ever, _ = self.rows(s.log)
        for life, key in ever.items():
            holders = sum((key, life) in server.store for server in s.servers)
            if life not in s.acked and holders >= len(s.servers) - 1:
                yield f"a write of {life} is acknowledged", s._replace(acked=s.acked | {life})
        for i, server in enumerate(s.servers):
            for label, new in self.server(s, server):
                servers = tuple(sorted(put(s.servers, i, new), key=lambda v: (v.applied, sorted(v.store))))
                yield label, s._replace(servers=servers)
            if s.restarts < self.restarts and server.applied:
                servers = put(s.servers, i, server._replace(applied=0))
                yield f"!server at {server.applied} restarts", s._replace(servers=servers, restarts=s.restarts + 1)

    def server(self, s: World, me: Server) -> Iterator[tuple[str, Server]]:
        """What one server does by the registry that it has applied."""
        _, ever, _ = self.rows(s.log)
        live, _, revision = self.rows(s.log[: me.applied])
        known = set(live.values())
        if me.applied < len(s.log):
            yield f"server applies {me.applied + 1}", me._replace(applied=me.applied + 1)
        for life, key in ever.items():  # the writes of each agent's holder stay deliverable for ever
            gone = key not in known and (not key.isdecimal() or int(key) <= revision)
            may = key in known or (gone and not self.on("uid_refuse"))
            if may and (key, life) not in me.store:
                others = frozenset(each for each in me.store if each[0] != key)
                yield f"server at {me.applied} stores {life}", me._replace(store=others | {(key, life)})
        for key, life in me.store:
            reached = not key.isdecimal() or int(key) <= revision or not self.on("uid_wait")
            if key not in known and reached and self.on("uid_drop"):
                yield f"server at {me.applied} drops {life}", me._replace(store=me.store - {(key, life)})
