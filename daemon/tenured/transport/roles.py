"""Who may call what: one row per method. A method that is not listed may be called by nobody."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tenure_api.identity import Role

_USERS = frozenset({Role.CLIENT, Role.OPERATOR})
_READERS = _USERS | {Role.HOST}

SERVER_API: Mapping[str, frozenset[Role]] = MappingProxyType(
    {
        "/tenure.v1.Registry/ApplyAgents": _USERS,
        "/tenure.v1.Registry/DeleteAgents": _USERS,
        "/tenure.v1.Registry/ApplyCluster": frozenset({Role.OPERATOR}),
        "/tenure.v1.Registry/SetNodes": frozenset({Role.OPERATOR}),
        "/tenure.v1.Registry/Resolve": _READERS,
        "/tenure.v1.Registry/Watch": _READERS,
        "/tenure.v1.Registry/Status": _USERS,
        "/tenure.v1.Registry/Lookup": _USERS,
        "/tenure.v1.Registry/Failovers": _USERS,
        "/tenure.v1.Registry/ConfirmFailover": _USERS,
        "/tenure.v1.Registry/Explain": _USERS,
        "/tenure.v1.Registry/DryRun": _USERS,
        "/tenure.v1.Registry/Resources": _USERS,
        "/tenure.v1.Registry/Decisions": _USERS,
        "/tenure.v1.Registry/Quarantine": _USERS,
        "/tenure.v1.Registry/Reserve": _USERS,
        "/tenure.v1.Registry/Unreserve": _USERS,
        "/tenure.v1.Changes/Stream": _USERS,
        "/tenure.v1.Calls/Session": _USERS,
        "/tenure.v1.Calls/Logs": _USERS,
    }
)
"""Port 7443."""

CONTROLLERS = frozenset({Role.CLIENT, Role.OPERATOR, Role.SERVER})
"""Who may send a host operations on an agent (CALL_KIND_CONTROL): users, and servers that pass theirs on. A host may
not: it could read the state of an agent that is not its own, or take away its dead letters.
"""

SERVER_API_DEV: Mapping[str, frozenset[Role]] = MappingProxyType(
    {**SERVER_API, "/tenure.v1.Registry/ApplyCluster": _USERS}
)
"""Port 7443 where there is no operator and the user's own command sets the pools (`tenure dev`)."""

SERVER_PEERS: Mapping[str, frozenset[Role]] = MappingProxyType(
    {
        "/tenure.v1.Store/List": frozenset({Role.SERVER}),
        "/tenure.v1.Store/Fetch": frozenset({Role.SERVER}),
        "/tenure.v1.HostLink/Connect": frozenset({Role.HOST}),
        # Hosts know only this port of a server.
        "/tenure.v1.Registry/Watch": frozenset({Role.HOST}),
        "/tenure.v1.Registry/Resolve": frozenset({Role.HOST}),
    }
)
"""Port 7444."""

HOST_CALLS: Mapping[str, frozenset[Role]] = MappingProxyType(
    {
        "/tenure.v1.Calls/Session": frozenset({Role.CLIENT, Role.SERVER, Role.HOST}),
        "/tenure.v1.Calls/Logs": frozenset({Role.CLIENT, Role.SERVER}),
    }
)
"""Port 7445."""
