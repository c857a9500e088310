"""PID 1 of the daemon's container: starts `tenured host`, restarts it, passes signals on, reaps.

Belongs here: what must go on while the daemon is dead. Does not belong here: user code, servers, sockets, asyncio,
anything that takes long to import (a test measures that). `plan` decides and is pure; `process` does the system calls.
"""

from __future__ import annotations
