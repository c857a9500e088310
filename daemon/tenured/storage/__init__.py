"""The server's part of the state store: one durable register per agent's uid (protocol 2).

`Register` keeps; `tenured.core.cells` decides. Nothing here knows of the network, of the registry, or of what a
record means.
"""

from tenured.storage.errors import StorageError, StoreCorrupt, StoreFailed, StoreForeign
from tenured.storage.register import Register
from tenured.storage.values import AdoptItem, Reading, SealAnswer, SealItem, WriteAnswer, WriteItem

__all__ = [
    "AdoptItem",
    "Reading",
    "Register",
    "SealAnswer",
    "SealItem",
    "StorageError",
    "StoreCorrupt",
    "StoreFailed",
    "StoreForeign",
    "WriteAnswer",
    "WriteItem",
]
