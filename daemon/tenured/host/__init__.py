"""The host: holds agents on one node.

Belongs here: leases as a host keeps them, assignments, turns, the worker link, the Calls service, proof of death. Does
not belong here: decisions that the simulator must share (`tenured.core`), sockets of gRPC (`tenured.transport`), user
code (`tenure.worker`).

Reading order: `app` (what is started), `holder` (one agent), `turning` (one call), `pool`, `worker` (the worker link).
"""

from __future__ import annotations
