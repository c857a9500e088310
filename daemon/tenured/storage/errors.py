"""What can go wrong with the store's file.

StorageError
├── StoreCorrupt   the file is damaged: the server refuses to start
├── StoreForeign   another program's, another format's, or in use by another process
└── StoreFailed    the disk refused an operation; nothing was acknowledged
"""

from __future__ import annotations


class StorageError(Exception):
    """Base of this package's errors. The message is a sentence, with the next step."""


class StoreCorrupt(StorageError):
    """The file is damaged."""


class StoreForeign(StorageError):
    """The file is not a store that this version reads, or another process has it open."""


class StoreFailed(StorageError):
    """The disk refused. `fatal`: nothing can be trusted until the file has been opened anew."""

    def __init__(self, message: str, *, fatal: bool) -> None:
        super().__init__(message)
        self.fatal = fatal
