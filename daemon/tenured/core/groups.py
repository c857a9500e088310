"""How many agents of each group every host holds: what spread asks for. Derived from the rows, kept at every change."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tenured.core.agentspec import AgentSpec
from tenured.core.model import Agent

_NONE: Mapping[str, int] = MappingProxyType({})


def groups_of(spec: AgentSpec) -> tuple[str, ...]:
    """The groups in which an agent counts, each once: its class first, then those that its spread names. A group is
    its namespace's own.
    """
    namespace = spec.id.partition("/")[0]
    own = f"{namespace}/{spec.class_name}"
    if not spec.spread:
        return (own,)
    named = {f"{namespace}/{rule.group}" for rule in spec.spread if rule.group}
    return (own, *sorted(named - {own}))


class Groups:
    """Agents by group and incarnation."""

    def __init__(self) -> None:
        self._held: dict[str, dict[str, int]] = {}

    def update(self, old: Agent | None, new: Agent | None) -> None:
        """Follow one row."""
        if (
            old is not None
            and new is not None
            and old.incarnation == new.incarnation
            and (old.spec is new.spec or groups_of(old.spec) == groups_of(new.spec))
        ):
            return
        if old is not None and old.held:
            for group in groups_of(old.spec):
                self._add(group, old.incarnation, -1)
        if new is not None and new.held:
            for group in groups_of(new.spec):
                self._add(group, new.incarnation, 1)

    def held(self, group: str) -> Mapping[str, int]:
        """incarnation -> agents of that group that it holds; only those that hold any."""
        return self._held.get(group, _NONE)

    def _add(self, group: str, incarnation: str, change: int) -> None:
        counts = self._held.setdefault(group, {})
        counts[incarnation] = counts.get(incarnation, 0) + change
        if not counts[incarnation]:
            del counts[incarnation]
            if not counts:
                del self._held[group]
