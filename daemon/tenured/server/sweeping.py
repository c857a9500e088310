"""Records of deleted agents leave the store: no tombstones, the registry knows what is gone (protocol 2)."""

from __future__ import annotations

import asyncio
import logging

from tenured.core.cells import Verdict, guard_uid
from tenured.core.changes import Delta
from tenured.server.replica import Replica
from tenured.storage import Register
from tenured.storage.errors import StoreFailed

_log = logging.getLogger(__name__)

_BATCH = 500


class Sweeper:
    """A replica's listener. What fails is found again by `sweep_all` at the next start."""

    def __init__(self, replica: Replica, register: Register) -> None:
        self._replica = replica
        self._register = register
        self._pending: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def changed(self, delta: Delta, /) -> None:
        """Agents may have gone."""
        gone = [key.name for key in delta.gone if key.kind == "agent"]
        if gone:
            self._pending.update(gone)
            self._run()

    def replaced(self) -> None:
        """Everything may have gone."""
        self.sweep_all()

    def sweep_all(self) -> None:
        """Look through the whole store."""
        if not self._register.joining:
            self._run(everything=True)

    async def stop(self) -> None:
        """End what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _run(self, *, everything: bool = False) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._sweep(everything=everything))

    async def _sweep(self, *, everything: bool) -> None:
        if everything:
            self._pending.update(await self._register.uids())
        while self._pending:
            batch = [self._pending.pop() for _ in range(min(_BATCH, len(self._pending)))]
            registry = self._replica.registry
            gone = [uid for uid in batch if guard_uid(uid, registry.agents, registry.revision) is Verdict.DELETED]
            if not gone:
                continue
            try:
                await self._register.forget(gone)
            except StoreFailed as error:
                _log.warning("records of deleted agents stay for now: %s", error)
                return
