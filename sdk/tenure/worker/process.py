"""A worker: runs agents for one daemon, and ends with the connection to it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import platform
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn, cast

import msgspec
import uvloop

import tenure
from tenure import _eager
from tenure._agent import Agent
from tenure._faults import fault_of
from tenure._methods import near
from tenure.errors import ClassNotFound
from tenure.worker import linux, output
from tenure.worker.begun import Notes
from tenure.worker.config import Config
from tenure.worker.dozing import Dozing
from tenure.worker.line import Line
from tenure.worker.lines import Lines
from tenure.worker.resident import BEGIN, Resident
from tenure_link import (
    LINK_VERSION,
    Activate,
    Activated,
    ActivationFailed,
    AgentClass,
    Commit,
    Deactivate,
    Drop,
    Fault,
    Frame,
    FrameTooLarge,
    Hello,
    LogLine,
    Ping,
    Pong,
    Progressed,
    Refused,
    Splitter,
    Turn,
    TurnDone,
    Welcome,
    decode_from_daemon,
    encode,
)

LOG_BACKLOG = 1024 * 1024
"""Unsent bytes on the socket beyond which log lines are dropped: replies go before words."""

_LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}

EXIT_LOST, EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_LOCKED = 0, 77, 75, 76


class Worker(asyncio.Protocol):
    """The connection, and the agents behind it. All on one event loop: a loop that user code blocks answers no ping."""

    def __init__(self, classes: dict[str, type[Agent[Any]]], described: tuple[AgentClass, ...], notes: Notes) -> None:
        self._classes = classes
        self._notes = notes
        self._described = described
        self._splitter = Splitter()
        self._transport: asyncio.WriteTransport | None = None
        self._beginning: dict[str, asyncio.Task[None]] = {}
        self._lines = Lines(self._woken, lambda uid: uid not in self._beginning)
        self._loop = asyncio.get_running_loop()
        self._lock = -1
        self._tell = self._send
        """The same for every agent."""
        self.lost = self._loop.create_future()
        """Done with the exit status when this process has to end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's are no subclasses of asyncio's
        version = platform.python_version()
        self._send(Hello(LINK_VERSION, "worker", os.getpid(), tenure.__version__, version, self._described))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        # The lease guards nobody who has no daemon: end at once, whatever turns are doing.
        os._exit(EXIT_LOST)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._splitter.feed(data):
                self._handle(decode_from_daemon(body))
        except (msgspec.MsgspecError, FrameTooLarge) as error:
            self._end(EXIT_REFUSED, f"the daemon sent what is no frame: {error}")

    def log(self, entry: LogLine) -> None:
        """Hand a line to the daemon; dropped when much is unsent. From any thread."""
        self._loop.call_soon_threadsafe(self._send_log, entry)

    def _send_log(self, entry: LogLine) -> None:
        if self._transport is not None and self._transport.get_write_buffer_size() < LOG_BACKLOG:
            self._send(entry)

    def _handle(self, frame: object) -> None:
        match frame:
            case Turn():
                self._start(frame)
            case Commit() | Drop() | Progressed():
                self._settle(frame)
            case Ping(n):
                self._send(Pong(n))
            case Activate():
                self._activate(frame)
            case Deactivate(uid, epoch):
                self._deactivate(uid, epoch)
            case Welcome():
                self._welcome(frame)
            case Refused(fault):
                self._end(EXIT_REFUSED, f"the daemon refused this worker: {fault.message}")
            case _:
                pass  # for the supervisor, or of a later version

    def _settle(self, frame: Commit | Drop | Progressed) -> None:
        line = self._lines.get(frame.uid)
        if isinstance(line, Dozing):  # everything of it is settled, and nothing to be undone
            if isinstance(frame, Drop):
                self._lines.forget_told(frame.uid)
            return
        if line is None:
            return
        if isinstance(frame, Commit):
            line.resident.commit(frame.turn)
        elif isinstance(frame, Progressed):
            line.resident.progressed(frame.turn)
        else:
            line.drop(frame.turn)

    def _welcome(self, welcome: Welcome) -> None:
        """Before any answer: hold the lock of this incarnation while this process lives (API.md 3, proof of death)."""
        try:
            self._lock = os.open(welcome.lock, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.fstat(self._lock).st_nlink == 0:
                # Paused between the two lines, while a successor took the lock, was believed and removed the file.
                raise FileNotFoundError("the file was removed meanwhile")
        except OSError as error:
            # Held exclusively: a successor has declared this incarnation dead.
            self._end(EXIT_LOCKED, f"no lock on {welcome.lock}: {error}")

    def _activate(self, order: Activate) -> None:
        self._deactivate(order.uid, None)
        place = self._notes.begin(order.turn)  # validators and `on_start` are user code, as turns are [note_first]
        try:
            resident = self._make(order)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a validator raises
            self._send(ActivationFailed(order.uid, order.epoch, fault_of(error, "activation")))
            self._notes.end(place)
            return
        line = Line(resident, self._tell, self._notes)
        self._lines.put(order.uid, line)
        hooked = resident.activation.has_hook("on_start")
        task = self._loop.create_task(self._begin(line)) if hooked else _eager.begin(self._begin(line))
        if task is None:  # in the same moment: a thousand may come at once, and each finds a place in the notes
            self._notes.end(place)
            return
        self._beginning[order.uid] = task
        task.add_done_callback(partial(self._has_begun, order.uid, place))

    def _has_begun(self, uid: str, place: int, task: asyncio.Task[None]) -> None:
        self._notes.end(place)
        if self._beginning.get(uid) is task:
            del self._beginning[uid]

    async def _begin(self, line: Line) -> None:
        """What comes before the first turn; the daemon commits what that makes of the state."""
        resident, activation = line.resident, line.resident.activation
        done = await resident.begin()
        if self._lines.get(activation.uid) is not line:
            return  # deactivated meanwhile
        if done.fault is not None:
            self._lines.take(activation.uid)
            self._send(ActivationFailed(activation.uid, activation.epoch, done.fault))
            return
        resident.commit(BEGIN)  # a daemon that cannot commit it forgets this activation
        state = done.state or activation.first
        self._send(Activated(activation.uid, activation.epoch, state, resident.due, done.sends, done.stop))

    def _make(self, order: Activate) -> Resident:
        cls = self._classes.get(order.class_name)
        if cls is None:
            raise ClassNotFound(
                f"the pool's modules have no class {order.class_name}; {near(order.class_name, self._classes)}"
            )
        return Resident(cls, order, self._tell)

    def _woken(self, dozing: Dozing) -> Line:
        return Line(Resident.woken(dozing, self._tell), self._tell, self._notes)

    def _deactivate(self, uid: str, epoch: int | None) -> None:
        """Forget the agent, if it is of this epoch (None: of any); what it does is cancelled and not answered."""
        line = self._lines.get(uid)
        if line is None or (epoch is not None and line.epoch != epoch):
            return
        self._lines.take(uid)
        if (beginning := self._beginning.pop(uid, None)) is not None:
            beginning.cancel()
        if isinstance(line, Line):
            line.close()

    def _start(self, turn: Turn) -> None:
        place = self._notes.begin(turn.turn)  # to wake one that dozes runs validators, which are user code [note_first]
        try:
            line = self._lines.awake(turn.uid)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a validator raises
            self._send(TurnDone(turn.turn, fault=fault_of(error, "activation")))
            return
        finally:
            self._notes.end(place)
        if line is None:
            self._send(TurnDone(turn.turn, fault=Fault("NotReady", "the agent is not active in this worker")))
        else:
            line.take(turn)

    def _send(self, frame: Frame) -> None:
        if self._transport is not None:
            self._transport.write(encode(frame))

    def _end(self, status: int, why: str) -> None:
        print(f"tenure.worker: {why}", file=sys.__stderr__, flush=True)
        os._exit(status)


def run_worker(
    config: Config, classes: dict[str, type[Agent[Any]]], described: tuple[AgentClass, ...], notes: Notes
) -> NoReturn:
    """The life of a worker process. Never returns."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Only the supervisor decides; a handler, since children of user code would inherit an ignored signal.
        signal.signal(number, linux.note_signal)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        link = linux.connect(config.socket)
    except OSError as error:
        print(f"tenure.worker: cannot reach the daemon: {error}", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(EXIT_UNREACHABLE)
    with asyncio.Runner(loop_factory=_LOOPS[config.loop]) as runner:
        runner.run(_serve(link, classes, described, notes))
    os._exit(EXIT_LOST)


async def _serve(
    link: socket.socket, classes: dict[str, type[Agent[Any]]], described: tuple[AgentClass, ...], notes: Notes
) -> None:
    loop = asyncio.get_running_loop()
    worker = Worker(classes, described, notes)
    output.capture(worker.log)
    await loop.create_unix_connection(lambda: worker, sock=link)
    await worker.lost
