"""What an agent remembers, in named spaces of keys and values, or of lists."""

from __future__ import annotations

from typing import Any, Literal

import pydantic

from tenure._methods import action, query
from tenure._state import State
from tenure.errors import Conflict, NotFound
from tenure.skills._skill import Skill

SpaceKind = Literal["map", "list"]


class Space(pydantic.BaseModel):
    """Keys and values, or items in order."""

    model_config = pydantic.ConfigDict(validate_assignment=True, extra="forbid")

    kind: SpaceKind
    revision: int = 0
    """One more with each change."""
    values: dict[str, Any] = pydantic.Field(default_factory=dict)
    items: list[Any] = pydantic.Field(default_factory=list)


RESERVED: dict[str, SpaceKind] = {"world": "map", "tasks": "list"}


def _reserved() -> dict[str, Space]:
    return {name: Space(kind=kind) for name, kind in RESERVED.items()}


class MemoryState(State):
    """Spaces by name, and one more revision with each change of any of them."""

    spaces: dict[str, Space] = pydantic.Field(default_factory=_reserved)
    revision: int = 0


class Memory(Skill[MemoryState], key="memory"):
    """Spaces by name. There always are `world`, of keys and values, and `tasks`, a list.

    Actions return the revision of the space. They raise NotFound for a space that there is not, and Conflict for one of
    the other kind.
    """

    @action
    def make(self, space: str, kind: SpaceKind) -> int:
        """A new space, empty. One that is there stays as it is."""
        known = self.state.spaces.get(space)
        if known is None:
            self.state.revision += 1
            known = self.state.spaces[space] = Space(kind=kind)
        return self._of(space, kind).revision

    @action
    def drop(self, space: str) -> None:
        """Forget a space and what is in it. Raises Conflict for `world` and `tasks`: they are emptied by `clear`."""
        if space in RESERVED:
            raise Conflict(f"the space {space!r} is always there: clear it")
        if self.state.spaces.pop(space, None) is not None:
            self.state.revision += 1

    @action
    def clear(self, space: str) -> int:
        """Empty a space."""
        found = self._any(space)
        found.values, found.items = {}, []
        return self._changed(found)

    @action
    def put(self, space: str, key: str, value: Any) -> int:
        """Keep a value under a key."""
        found = self._of(space, "map")
        found.values[key] = value
        return self._changed(found)

    @action
    def remove(self, space: str, key: str) -> int:
        """Forget a key; nothing happens if there is none."""
        found = self._of(space, "map")
        if key not in found.values:
            return found.revision
        del found.values[key]
        return self._changed(found)

    @action
    def append(self, space: str, item: Any) -> int:
        """One more item at the end."""
        found = self._of(space, "list")
        found.items.append(item)
        return self._changed(found)

    @action
    def take(self, space: str, at: int = 0) -> Any:
        """Remove the item at this place, and return it. Raises NotFound if there is none."""
        found = self._of(space, "list")
        if not -len(found.items) <= at < len(found.items):
            raise NotFound(f"the space {space!r} has {len(found.items)} items, and none at {at}")
        item = found.items.pop(at)
        self._changed(found)
        return item

    @query
    def get(self, space: str, key: str, default: Any = None) -> Any:
        """What is under a key."""
        return self._of(space, "map").values.get(key, default)

    @query
    def read(self, space: str) -> Any:
        """All of a space: a map, or a list."""
        found = self._any(space)
        return found.values if found.kind == "map" else found.items

    @query
    def revisions(self) -> dict[str, int]:
        """Of the spaces, by name."""
        return {name: space.revision for name, space in self.state.spaces.items()}

    def _any(self, space: str) -> Space:
        found = self.state.spaces.get(space)
        if found is None:
            raise NotFound(f"there is no space {space!r}, but {', '.join(sorted(self.state.spaces))}")
        return found

    def _of(self, space: str, kind: SpaceKind) -> Space:
        found = self._any(space)
        if found.kind != kind:
            raise Conflict(f"the space {space!r} is a {found.kind}, not a {kind}")
        return found

    def _changed(self, space: Space) -> int:
        space.revision += 1
        self.state.revision += 1
        return space.revision
