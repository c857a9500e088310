"""The turns of one agent in a worker, one after the other, each on the draft that the one before left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tenure import _eager
from tenure.worker.begun import Notes
from tenure.worker.resident import Resident
from tenure_link import Fault, FrameTooLarge, Turn, TurnDone


class Line:
    """See the module. Queries run beside it. Thousands of them wait for nothing, and have next to nothing."""

    __slots__ = ("_notes", "_open", "_queries", "_running", "_send", "_task", "_waiting", "resident")

    def __init__(self, resident: Resident, send: Callable[[TurnDone], None], notes: Notes) -> None:
        """`send` raises FrameTooLarge."""
        self.resident = resident
        self._send = send
        self._notes = notes
        self._waiting: list[Turn] = []
        self._task: asyncio.Task[None] | None = None
        self._running: Turn | None = None
        self._queries: set[asyncio.Task[None]] | None = None
        """Those that run; None: none."""
        self._open = True

    @property
    def epoch(self) -> int:
        """Of the activation."""
        return self.resident.activation.epoch

    @property
    def idle(self) -> bool:
        """Whether nothing runs, and nothing waits."""
        return self._task is None and not self._waiting and not self._queries

    def take(self, turn: Turn) -> None:
        """Run it when its turn comes; a query at once."""
        if turn.kind in {"query", "by_name"} and self.resident.activation.is_query(turn.method):
            task = _eager.begin(self._answer(turn))
            if task is not None:
                self._queries = self._queries or set()
                self._queries.add(task)
                task.add_done_callback(self._answered)
            return
        self._waiting.append(turn)
        if self._task is None:
            self._start()

    def drop(self, turn: int) -> None:
        """Undo this turn and all later ones: what waits is forgotten, what runs is cancelled and undone as it ends."""
        self.resident.drop(turn)
        self._waiting = [one for one in self._waiting if one.turn < turn]
        if self._task is not None and self._running is not None and self._running.turn >= turn:
            self._task.cancel()  # the next one waits until it has ended, however long that takes

    def close(self) -> None:
        """Nothing of it is answered any more."""
        self._open = False
        self._waiting.clear()
        if self.idle and self.resident.settled:
            self.resident.activation.dissolve()
        for task in (self._task, *(self._queries or ())):
            if task is not None:
                task.cancel()

    def _answered(self, query: asyncio.Task[None]) -> None:
        if self._queries is not None:
            self._queries.discard(query)
            self._queries = self._queries or None

    def _start(self) -> None:
        self._task = _eager.begin(self._run())
        if self._task is None:
            self._running = None
        else:
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = self._running = None
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
        if self._waiting and self._open:
            self._start()

    async def _run(self) -> None:
        while self._waiting:
            self._running = turn = self._waiting.pop(0)
            await self._answer(turn)
            self._running = None

    async def _answer(self, turn: Turn) -> None:
        place = self._notes.begin(turn.turn)  # [note_first]
        try:
            await self._run_and_tell(turn)
        finally:
            self._notes.end(place)

    async def _run_and_tell(self, turn: Turn) -> None:
        done = await self.resident.run(turn)
        if not self._open:
            return  # deactivated meanwhile: nobody waits for this
        try:
            self._send(done)
        except FrameTooLarge as error:
            self.resident.drop(turn.turn)
            text = f"state, reply and signals of {turn.method or turn.kind}: {error}"
            self._send(TurnDone(turn.turn, fault=Fault("StateInvalid", text)))
