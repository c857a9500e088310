"""What happened to an agent, in its own words: entries that are appended and never changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic

from tenure._methods import action, query
from tenure._state import State
from tenure.skills._skill import Skill


class Entry(pydantic.BaseModel):
    """One thing that happened."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    seq: int
    """From 1 on, without gaps."""
    kind: str
    content: Any = None
    refs: dict[str, str] = pydantic.Field(default_factory=dict)
    """What it is about: e.g. `{"order": "7"}`."""


class JournalState(State):
    """The last entries, and how many there ever were."""

    entries: list[Entry] = pydantic.Field(default_factory=list[Entry])
    written: int = 0


class Journal(Skill[JournalState], key="journal"):
    """Entries with a number, a kind and references. Of more than `limit`, the oldest are dropped."""

    limit: int = pydantic.Field(default=1000, ge=1, le=100_000)

    @action
    def append(self, kind: str, content: Any = None, refs: Mapping[str, str] | None = None) -> int:
        """One more entry; returns its number."""
        state = self.state
        state.written += 1
        state.entries.append(Entry(seq=state.written, kind=kind, content=content, refs=dict(refs or {})))
        del state.entries[: -self.limit]
        return state.written

    @query
    def entries(
        self, after: int = 0, kind: str = "", refs: Mapping[str, str] | None = None, limit: int = 100
    ) -> list[Entry]:
        """Entries with a higher number than `after`, oldest first, of this kind and with these references."""
        wanted = dict(refs or {}).items()
        found = [
            entry
            for entry in self.state.entries
            if entry.seq > after and kind in {"", entry.kind} and wanted <= entry.refs.items()
        ]
        return found[: max(limit, 0)]
