"""Where agents of `tenure.local()` keep what must outlive the process: checkpoints and journals, by key.

    async with storage.SQLiteStorage("agents.db") as kept:
        revision = await kept.put("shop/counter-1", data, expected=0)

Fail closed: what cannot be read raises `StorageUnreadable` and stays as it is; it never reads as "nothing there". A
storage of your own implements `Storage` and passes `tenure.testing.StorageContract`.
"""

from tenure.storage._file import FileStorage
from tenure.storage._interface import (
    Checkpoint,
    Journal,
    RevisionConflict,
    Storage,
    StorageBusy,
    StorageError,
    StorageUnreadable,
)
from tenure.storage._memory import MemoryStorage
from tenure.storage._sqlite import SQLiteStorage

__all__ = [
    "Checkpoint",
    "FileStorage",
    "Journal",
    "MemoryStorage",
    "RevisionConflict",
    "SQLiteStorage",
    "Storage",
    "StorageBusy",
    "StorageError",
    "StorageUnreadable",
]
