"""Agents in a storage: one checkpoint each, with the class that wrote it."""

from __future__ import annotations

from typing import Any

from tenure import _codec
from tenure._local.held import Held
from tenure.errors import StateUnreadable
from tenure.storage import RevisionConflict, Storage


async def load(storage: Storage, agent_id: str) -> tuple[str, bytes, int] | None:
    """Class, record and revision; None: nothing is stored. Raises StorageError, StateUnreadable."""
    checkpoint = await storage.get(agent_id)
    if checkpoint is None:
        return None
    try:
        content: dict[str, Any] = _codec.unpack_map(checkpoint.data)
        return str(content["class"]), bytes(content["record"]), checkpoint.revision
    except (ValueError, KeyError, TypeError) as error:
        raise StateUnreadable(f"what is stored of {agent_id} is no record of an agent", agent=agent_id) from error


async def save(storage: Storage, held: Held, record: bytes) -> None:
    """Replace the record. Raises StorageError; RevisionConflict if somebody else has written it."""
    data = _codec.pack({"class": held.activation.cls.__name__, "record": record})
    held.revision = await storage.put(held.id, data, expected=held.revision)


async def check(storage: Storage, held: Held) -> None:
    """That what is stored is what the agent is. Raises StorageError, StateUnreadable."""
    stored = await load(storage, held.id)
    revision = stored[2] if stored is not None else 0
    if stored is None or revision != held.revision or stored[1] != held.activation.committed:
        raise RevisionConflict(held.id, held.revision, revision)
