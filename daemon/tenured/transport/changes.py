"""The `Changes` service: many changes under way on one stream, where a call of Registry carries one.

In Python a unary call of gRPC costs more than the change itself (docs/adr/0013).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tenure_api.identity import Identity
from tenure_proto.v1.changes_pb2 import ChangeBatch, ChangedBatch
from tenured.transport.serving import Duplex, Method, duplex

STREAM = "/tenure.v1.Changes/Stream"


def method(handler: Callable[[Identity, Duplex[ChangeBatch, ChangedBatch]], Awaitable[None]]) -> Method:
    """The service, for the API listener."""
    return duplex(STREAM, ChangeBatch, handler)
