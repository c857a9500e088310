"""What a host keeps of a row of the registry: it has a row of every agent of the cluster, whoever holds it.

As it comes from the wire a row takes 2.3 KB, and keeps all that came with it in memory. Most of what it says is for
people, who ask a server; and most of the rest is said of many agents in the same words, which are kept once.
"""

from __future__ import annotations

from dataclasses import dataclass
from sys import intern

import msgspec

from tenure_proto.v1.registry_pb2 import AgentRow, AgentSpec
from tenured.host.policy import Policy, policy_of

KINDS_LIMIT = 10_000
"""Kinds, and stands, that are looked for when a row comes; then they are gathered anew."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What agents of the same spec have in common: how they are found, and how they are served."""

    namespace: str
    pool: str
    name: str
    """Of the class."""
    capabilities: tuple[str, ...]
    groups: tuple[str, ...]
    """Of spreads."""
    policy: Policy


class Stand(msgspec.Struct, frozen=True, gc=False):
    """How an agent stands: as many others of its host do."""

    host: str
    incarnation: str
    phase: str
    summary: str
    ended: str
    ready: bool
    deleting: bool
    hibernated: bool
    attempt: int


class Row(msgspec.Struct, frozen=True, gc=False):
    """One agent, as the registry says. See AgentRow and AgentSpec."""

    uid: str
    id: str
    kind: Kind
    stand: Stand
    epoch: int
    ready_epoch: int
    revision: int
    """Of its last change."""
    state: bytes
    """What an agent begins with; like `config` only of those that are this host's own."""
    config: bytes

    @property
    def host(self) -> str:
        """Where it is; empty: nowhere."""
        return self.stand.host

    @property
    def incarnation(self) -> str:
        """The process start of that host."""
        return self.stand.incarnation

    @property
    def phase(self) -> str:
        """As people are told, like `summary`."""
        return self.stand.phase

    @property
    def summary(self) -> str:
        """A sentence."""
        return self.stand.summary

    @property
    def ended(self) -> str:
        """Why it has ended; empty: it has not."""
        return self.stand.ended

    @property
    def ready(self) -> bool:
        """It serves."""
        return self.stand.ready

    @property
    def deleting(self) -> bool:
        """It is leaving."""
        return self.stand.deleting

    @property
    def hibernated(self) -> bool:
        """It sleeps."""
        return self.stand.hibernated

    @property
    def attempt(self) -> int:
        """Failures in a row."""
        return self.stand.attempt

    @property
    def listed(self) -> bool:
        """It may be found by what it is: it is not leaving, or gone."""
        return not (self.deleting or self.ended)


_kinds: dict[tuple[object, ...], Kind] = {}
"""By what it is made of."""
_stands: dict[Stand, Stand] = {}
"""Each by itself."""


def row_of(given: AgentRow, *, own: bool = True, old: Row | None = None) -> Row:
    """Of a row from the wire. `own`: it is assigned to this host. `old`: what was there before of the same uid; its
    texts are the keys of tables, which keep their first ones.
    """
    spec, name = given.spec, given.spec.id
    return Row(
        uid=given.uid if old is None else old.uid,
        id=name if old is None or old.id != name else old.id,
        kind=_kind_of(spec),
        stand=_stand_of(given),
        epoch=given.epoch,
        ready_epoch=given.ready_epoch,
        revision=given.revision,
        state=spec.state if own else b"",
        config=spec.config if own else b"",
    )


def _stand_of(given: AgentRow) -> Stand:
    stand = Stand(
        host=intern(given.host),
        incarnation=intern(given.incarnation),
        phase=intern(given.phase),
        summary=intern(given.summary),
        ended=intern(given.ended),
        ready=given.ready,
        deleting=given.deleting,
        hibernated=given.hibernated,
        attempt=given.attempt,
    )
    if len(_stands) >= KINDS_LIMIT:
        _stands.clear()
    return _stands.setdefault(stand, stand)


def _kind_of(spec: AgentSpec) -> Kind:
    name: str = getattr(spec, "class")  # the field is a keyword of Python
    delivery = spec.delivery
    words, groups = tuple(spec.capabilities), tuple([rule.group for rule in spec.spread])
    served = (spec.durability, spec.reads, spec.on_exhausted, spec.idle_timeout_s)
    tried = (delivery.max_attempts, delivery.backoff_s, delivery.ttl_s)
    namespace = spec.id.partition("/")[0]
    key = (namespace, spec.pool, name, words, groups, served, tried)
    known = _kinds.get(key)
    if known is None:
        if len(_kinds) >= KINDS_LIMIT:
            _kinds.clear()
        listed = tuple(sorted({group for group in groups if group}))
        known = _kinds[key] = Kind(namespace, key[1], name, words, listed, policy_of(spec))
    return known
