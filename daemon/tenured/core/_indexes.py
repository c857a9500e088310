"""Indexes that lookups need: by what an agent offers, by its class, by its labels. Derived, kept at every change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tenured.core.agentspec import AgentSpec
from tenured.core.model import GENERAL_PURPOSE, Agent, Host


class Lookups:
    """uids by capability, class and label. A capability comes from the agent's own spec, or from its class, as the
    living hosts describe that; an agent with neither offers `general_purpose`.
    """

    def __init__(self) -> None:
        self._offering: dict[str, set[str]] = {}
        self._plain: dict[str, set[str]] = {}
        """class -> agents whose specs offer nothing themselves."""
        self._of_class: dict[str, set[str]] = {}
        self._labelled: dict[tuple[str, str], set[str]] = {}

    def update(self, old: Agent | None, new: Agent | None) -> None:
        """Follow one row."""
        if old is not None and new is not None and _same(old.spec, new.spec):
            return
        if old is not None:
            for table, keys in self._places(old.spec):
                for key in keys:
                    _discard(table, key, old.uid)
        if new is not None:
            for table, keys in self._places(new.spec):
                for key in keys:
                    table.setdefault(key, set()).add(new.uid)

    def offering(self, capability: str, hosts: Iterable[Host]) -> set[str]:
        """All agents that offer it, held or not."""
        offered: dict[str, set[str]] = {}
        for host in hosts:
            if host.alive:
                for kind in host.classes:
                    offered.setdefault(kind.name, set()).update(kind.capabilities)
        found = set(self._offering.get(capability, ()))
        for name, capabilities in offered.items():
            if capability in capabilities:
                found |= self._of_class.get(name, set())
        if capability == GENERAL_PURPOSE:
            for name, uids in self._plain.items():
                if not offered.get(name):
                    found |= uids
        return found

    def labelled(self, labels: Mapping[str, str]) -> set[str]:
        """All agents that have every one of the labels (at least one is given)."""
        sets: list[set[str]] = sorted((self._labelled.get(pair, set[str]()) for pair in labels.items()), key=len)
        return sets[0].intersection(*sets[1:]) if sets else set()

    def _places(self, spec: AgentSpec) -> Iterable[tuple[dict[str, set[str]], Iterable[str]]]:
        yield self._offering, spec.capabilities
        yield self._of_class, (spec.class_name,)
        if not spec.capabilities:
            yield self._plain, (spec.class_name,)
        yield self._labelled, spec.labels.items()  # type: ignore[misc] # pairs are keys of that table


def _same(old: AgentSpec, new: AgentSpec) -> bool:
    return old is new or (
        old.capabilities == new.capabilities and old.labels == new.labels and old.class_name == new.class_name
    )


def _discard(table: dict[str, set[str]], key: str, uid: str) -> None:
    uids = table[key]
    uids.discard(uid)
    if not uids:
        del table[key]
