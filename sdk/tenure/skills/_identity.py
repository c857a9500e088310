"""Who an agent is: a profile that evolves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pydantic

from tenure import ops
from tenure._methods import action, query
from tenure._state import State
from tenure.skills._skill import Skill


class IdentityState(State):
    """The profile, and how often it was changed."""

    profile: dict[str, Any] = pydantic.Field(default_factory=dict)
    revision: int = 0


class Identity(Skill[IdentityState], key="identity", singleton=True):
    """What an agent knows of itself: names to any values that msgpack can write."""

    @action
    def evolve(self, changes: dict[str, Any]) -> int:
        """Merge changes into the profile, maps field by field; returns its revision."""
        merged = ops.apply(ops.SetState({"profile": changes}), self.state)
        self.state.profile = merged.profile
        self.state.revision += 1
        return self.state.revision

    @action
    def forget(self, names: Sequence[str]) -> int:
        """Remove what is under these names; returns the revision."""
        self.state.profile = {name: value for name, value in self.state.profile.items() if name not in names}
        self.state.revision += 1
        return self.state.revision

    @query
    def profile(self) -> dict[str, Any]:
        """All of it."""
        return self.state.profile
