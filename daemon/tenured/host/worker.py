"""One worker process, as the daemon sees it: what it holds, what it was asked, and whether it is known to be dead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import tenure_link
from tenured.host.link import Connection

MISSED_PINGS = 5
"""Pings, one a second, without an answer before a process counts as frozen (API.md section 3). Pings and not seconds:
after a pause of our own nobody is blamed for answers that we did not read.
"""


T_contra = TypeVar("T_contra", contravariant=True)


class Asker(Protocol[T_contra]):
    """Who asks for turns. Raises nothing."""

    def ended(self, asked: T_contra, done: tenure_link.TurnDone) -> None:
        """The end of one."""
        ...

    def progressed(self, asked: T_contra, progress: tenure_link.Progress) -> None:
        """A step of one; of a query there is none."""
        ...


class WorkerLost(Exception):
    """The worker is gone, or as good as gone; what it was asked has no answer. Await `Worker.dead` before its agents go
    on.
    """


class ActivationRefused(Exception):
    """User code could not take the agent into memory."""

    def __init__(self, fault: tenure_link.Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class Pulse:
    """Counts unanswered pings of one connection."""

    def __init__(self) -> None:
        self._sent = 0
        self._answered = 0

    @property
    def stopped(self) -> bool:
        """Too many pings in a row were not answered."""
        return self._sent - self._answered >= MISSED_PINGS

    def next_ping(self) -> tenure_link.Ping:
        """The ping to send now."""
        self._sent += 1
        return tenure_link.Ping(n=self._sent)

    def pong(self, n: int) -> None:
        """An answer; only one to a ping that was sent counts."""
        if self._answered < n <= self._sent:
            self._answered = n


class Worker:
    """A connected worker process. Activations end with `WorkerLost` when the connection does; `on_lost` tells those who
    wait for turns.
    """

    def __init__(self, connection: Connection, pid: int) -> None:
        self.connection = connection
        self.pid = pid
        self.agents: dict[str, None] = {}
        """In its memory; as keys of a dict they take less than in a set."""
        self.reserved = False
        """Kept for the trial of one suspect call (protocol additions 15): no other agent is placed here."""
        self.leaving = False
        """Its trial is over: it is being killed, and nobody is to take its place."""
        self.lost = False
        self.dead = asyncio.Event()
        """Set once PID 1 has reaped the process: from then on the same epoch may run elsewhere (protocol additions 3).
        """
        self.begun: frozenset[int] | None = None
        """Once it is dead: the turns that had begun there, and not ended; None: any may have."""
        self.no_fault = False
        """PID 1 ended it for reasons of its own: nothing that ran here is to blame."""
        self.pulse = Pulse()
        self.on_lost: dict[Callable[[], None], None] = {}
        """Called once, when the connection is gone, in the order in which they asked."""
        self._turns: dict[int, tuple[Asker[Any], Any]] = {}
        self._activations: dict[tuple[str, int], asyncio.Future[tenure_link.Activated]] = {}
        self._last_turn = 0

    async def activate(self, frame: tenure_link.Activate) -> tenure_link.Activated:
        """Takes an agent into the worker's memory. Raises ActivationRefused or WorkerLost."""
        self._check()
        future: asyncio.Future[tenure_link.Activated] = asyncio.get_running_loop().create_future()
        key = (frame.uid, frame.epoch)
        self._activations[key] = future
        self.agents[frame.uid] = None
        self.connection.send(frame)
        try:
            return await future
        except BaseException:
            self.agents.pop(frame.uid, None)
            raise
        finally:
            self._activations.pop(key, None)

    def ask(self, frame: tenure_link.Turn, asker: Asker[T_contra], asked: T_contra) -> None:
        """Run a turn; its asker hears of its steps and of its end, unless it is forgotten before. Raises WorkerLost."""
        self._check()
        self._turns[frame.turn] = (asker, asked)
        self._last_turn = max(self._last_turn, frame.turn)
        self.connection.send(frame)

    def commit(self, turn: int, uid: str) -> None:
        """Everything up to this turn is durable. The worker hears of it before whatever else it is asked; to wake it
        for this alone would take time from those who wait for the reply.
        """
        self.connection.send_soon(tenure_link.Commit(turn=turn, uid=uid))

    def progressed(self, turn: int, uid: str) -> None:
        """What the turn has said last is durable."""
        self.connection.send(tenure_link.Progressed(turn=turn, uid=uid))

    def drop(self, turn: int, uid: str) -> None:
        """This turn and all later ones of the agent did not happen. Who asked for them forgets them too."""
        self.connection.send(tenure_link.Drop(turn=turn, uid=uid))

    def forget(self, turn: int) -> None:
        """Nobody asks for the end of that turn any more."""
        self._turns.pop(turn, None)

    def deactivate(self, uid: str, epoch: int) -> None:
        """Forgets the agent."""
        self.agents.pop(uid, None)
        self.connection.send(tenure_link.Deactivate(uid=uid, epoch=epoch))

    def answered(self, frame: tenure_link.FromProcess) -> bool:
        """Takes an answer; false for a frame that no sane worker sends."""
        match frame:
            case tenure_link.TurnDone() | tenure_link.Progress():
                return self._of_turn(frame)
            case tenure_link.Activated():
                activation = self._activations.get((frame.uid, frame.epoch))
                if activation is not None and not activation.done():
                    activation.set_result(frame)
            case tenure_link.ActivationFailed():
                activation = self._activations.get((frame.uid, frame.epoch))
                if activation is not None and not activation.done():
                    activation.set_exception(ActivationRefused(frame.fault))
            case tenure_link.Pong():
                self.pulse.pong(frame.n)
            case _:
                return False
        return True

    def _of_turn(self, frame: tenure_link.TurnDone | tenure_link.Progress) -> bool:
        if frame.turn > self._last_turn:
            return False
        if isinstance(frame, tenure_link.Progress):
            if (waits := self._turns.get(frame.turn)) is not None:
                waits[0].progressed(waits[1], frame)
            return True
        if _says_nothing(frame):
            return False
        if (waits := self._turns.pop(frame.turn, None)) is not None:
            waits[0].ended(waits[1], frame)
        return True

    def abandon(self, why: str) -> None:
        """The connection is gone: everything that was asked ends now."""
        self.lost = True
        self._turns.clear()
        for future in self._activations.values():
            if not future.done():
                future.set_exception(WorkerLost(why))
        self.agents.clear()
        for notify in list(self.on_lost):
            notify()

    def _check(self) -> None:
        if self.lost:
            raise WorkerLost(f"worker {self.pid} is gone")


def _says_nothing(done: tenure_link.TurnDone) -> bool:
    return done.reply is None and done.fault is None and done.waits is None
