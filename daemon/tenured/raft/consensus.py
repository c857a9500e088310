"""Consensus on the event loop: the engine, its log on a real disk, and the answers that callers wait for.

One turn of the loop takes what arrived, ticks once and ends; the writer's thread syncs; its word lets the turn's output
leave. Nothing here blocks the loop, and no callback works longer than a few milliseconds.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

from tenured.raft.answers import Answers, Submit, of_many, of_one
from tenured.raft.core import Seams, check_version
from tenured.raft.engine import Engine
from tenured.raft.files import DiskFiles, Files
from tenured.raft.interface import (
    COMMAND_LIMIT,
    NotApplied,
    Outcome,
    PeerLink,
    PeerStatus,
    RaftConfig,
    Role,
    SnapshotStatus,
    StateMachine,
)
from tenured.raft.journal import Journal
from tenured.raft.opening import Found, open_storage, restoring
from tenured.raft.outbox import Outbox
from tenured.raft.snapfiles import SnapshotStore
from tenured.raft.snapshots import Snapshots
from tenured.raft.threads import LogThread, SnapshotThread
from tenured.raft.wal import Log
from tenured.raft.worker import SnapshotWorker
from tenured.raft.writer import LogWriter

logger = logging.getLogger(__name__)

TELL_COMMIT_S = 0.001
"""How long followers may not know that an entry is committed, for the next one to carry it (ADR 0013)."""
TURN_BUDGET_S = 0.003
"""What one turn may spend on frames before it ticks; the rest waits for the next turn."""
HAND_OVER_S = 1.0
"""How long `stop` waits for somebody else to lead."""
HAND_OVER_RETRY_S = 0.05


class Consensus:
    """The replicated log of one server.

    The transport calls `received`, `connected` and `disconnected`; callers use the coroutines. All on one event loop.
    `clock` gives seconds that never go back; `rng` makes election timeouts and request ids.
    """

    def __init__(
        self,
        config: RaftConfig,
        machine: StateMachine,
        link: PeerLink,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        """Nothing is opened or started. Raises EngineUnsupported when another pysyncobj than ours is installed."""
        check_version()
        self.on_role: Callable[[Role], None] | None = None
        self.on_fatal: Callable[[BaseException], None] | None = None
        self.on_place: Callable[[bytes], bytes] | None = None
        """Set before `start`: what this server, as the leader, makes of a command before it appends it to the log."""
        self._config = config
        self._machine = machine
        self._link = link
        self._clock = clock
        self._rng = random.Random() if rng is None else rng  # noqa: S311  (no secret depends on it)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: Engine | None = None
        self._files: Files | None = None
        self._writer: LogThread | None = None
        self._worker: SnapshotThread | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._inbox: deque[tuple[str, bytes]] = deque()
        self._connected: set[str] = set()  # streams that were there before the engine was
        self._kicked = False
        self._put_off = False
        self._telling: asyncio.TimerHandle | None = None
        self._answers = Answers()
        self._barrier: asyncio.Future[Outcome] | None = None
        self._stopping = False  # no new proposals
        self._silent = False  # no more turns
        self._failed: BaseException | None = None
        self._stance: object = None
        self._ready = False
        self._outline: object = None
        self._role_changed: asyncio.Event = asyncio.Event()

    # ---- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the log and begin to take part.

        Raises LogCorrupt, LogForeign, EngineUnsupported and OSError, each with a sentence for the operator.
        """
        self._loop = asyncio.get_running_loop()
        files = self._files = await asyncio.to_thread(self.open_files)
        try:
            found = await asyncio.to_thread(open_storage, files, self._config.name)
            for _ in restoring(files, found, self._machine):
                await asyncio.sleep(0)  # the loop has other things to do
        except BaseException:
            files.close()
            raise
        self._begin(self._loop, files, found)

    def open_files(self) -> Files:
        """The directory. Runs in a thread. Tests replace it to break the disk, simulations to have none."""
        return DiskFiles(self._config.directory)

    def open_writer(self, log: Log, on_synced: Callable[[int], None], on_error: Callable[[OSError], None]) -> LogThread:
        """Who writes the log. Simulations replace it, and `open_files`."""
        return LogWriter(log, on_synced, on_error)

    def open_worker(self, post: Callable[[Callable[[], None]], None]) -> SnapshotThread:
        """Who writes snapshots. Simulations replace it."""
        return SnapshotWorker(post)

    def _begin(self, loop: asyncio.AbstractEventLoop, files: Files, found: Found) -> None:
        def post(call: Callable[[], None]) -> None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._told, call)

        def synced(sequence: int) -> None:
            with suppress(RuntimeError):  # the loop is closed: the process is on its way out without stop()
                loop.call_soon_threadsafe(self._synced, sequence)

        def broken(error: OSError) -> None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._fail, error)

        self._writer = self.open_writer(found.log, synced, broken)
        self._worker = self.open_worker(post)
        seams = Seams(
            machine=self._machine,
            journal=Journal(found.state, self._writer, segment_size=found.log.size),
            snapshots=Snapshots(SnapshotStore(files, self._worker, found.kept)),
            outbox=Outbox(self._link.send),
            clock=self._clock,
            rng=self._rng,
            birth=time.time_ns,
            complete=self._completed,
        )
        self._engine = Engine(self._config, seams)
        self._engine.patient = True
        for peer in sorted(self._connected):
            self._engine.connected(peer)
        self._tick()

    async def stop(self) -> None:
        """Hand leadership over, give what is known to those who wait, sync and close the log. Never raises."""
        if self._stopping or self._loop is None:
            return
        self._stopping = True
        if self._failed is None:
            await self._hand_over()
        if self._ticker is not None:
            self._ticker.cancel()
        self._silent = True
        if self._worker is not None:
            await asyncio.to_thread(self._worker.close)
        if self._writer is not None:
            await asyncio.to_thread(self._writer.close)  # its last sync still lets answers go, before this returns
        if self._files is not None:
            self._files.close()
        self._engine = None
        self._answers.give_up("this server is stopping")

    async def _hand_over(self) -> None:
        if self._engine is None or not self._config.peers or not self.role().is_leader:
            return
        try:
            async with asyncio.timeout(HAND_OVER_S):
                while self.role().is_leader:
                    self._engine.hand_over()
                    self._kick()
                    self._role_changed.clear()
                    with suppress(TimeoutError):  # a follower that has not everything is refused; ask again
                        await asyncio.wait_for(self._role_changed.wait(), HAND_OVER_RETRY_S)
        except TimeoutError:
            logger.info("%s stops while it leads: nobody took over in %.1f s", self._config.name, HAND_OVER_S)

    # ---- callers -------------------------------------------------------------------------------------------------

    async def propose(self, command: bytes, timeout_s: float, *, term: int | None = None) -> Outcome:
        """Get `command` committed and applied, on any server; with a `term` only by this one as the leader of it.

        Within `timeout_s` seconds: Applied once it is committed and applied *here*; NotApplied when it certainly never
        will be; Unknown otherwise, also when the time has passed. Never raises but for cancellation.
        """
        if len(command) > COMMAND_LIMIT:
            return NotApplied(f"the command has {len(command)} bytes, at most {COMMAND_LIMIT} are taken")
        engine = self._engine
        if engine is None or self._stopping or self._failed is not None:
            return NotApplied(self._why_not())
        return await of_one(self._submit(lambda answer: engine.propose(command, answer, term)), timeout_s)

    async def barrier(self, timeout_s: float) -> Outcome:
        """A read of the local state after Applied sees every write acknowledged before the call, on any server.

        Costs one entry for all calls of one loop turn. Outcomes as for `propose`; the result is empty.
        """
        engine = self._engine
        if engine is None or self._stopping or self._failed is not None:
            return NotApplied(self._why_not())
        if self._barrier is None:
            self._barrier = self._submit(engine.barrier)
        return await of_many(self._barrier, timeout_s)

    def role(self) -> Role:
        """How this server stands now. Before `start`, after `stop` and after a failure: no leader, not ready."""
        if self._engine is not None and self._failed is None:
            return self._engine.role()
        peers: Mapping[str, PeerStatus] = {name: PeerStatus(connected=False, lag=None) for name in self._config.peers}
        return Role(self._config.name, 0, None, False, False, 0, 0, 0, False, peers)

    def compact(self) -> None:
        """Write a snapshot and cut the log, however short it is. `snapshots` says when that is done."""
        if self._engine is not None:
            self._engine.forceLogCompaction()
            self._kick()

    def snapshots(self) -> SnapshotStatus:
        """How the log is kept short, and why it is not when that fails."""
        if self._engine is not None and self._failed is None:
            return self._engine.snapshot_status()
        return SnapshotStatus(0, 0, 0, 0, writing=False, freeze_s=0.0, failures=0, failure="")

    def _why_not(self) -> str:
        if self._failed is not None:
            return f"this server has failed: {self._failed}"
        return "this server is stopping" if self._stopping else "this server has not started"

    def _submit(self, submit: Submit) -> asyncio.Future[Outcome]:
        future = self._answers.ask(submit)
        self._kick()
        return future

    # ---- the transport -------------------------------------------------------------------------------------------

    def received(self, peer: str, frame: bytes) -> None:
        """A frame from `peer`, whose identity the transport has checked.

        What waits here is bounded by what peers may have under way: WINDOW entries each, and QUEUE_LIMIT commands.
        """
        if self._engine is not None:
            self._inbox.append((peer, frame))
            self._kick()

    def connected(self, peer: str) -> None:
        """Frames for `peer` are now queued rather than dropped. May come before `start`."""
        self._connected.add(peer)
        if self._engine is not None and self._failed is None:
            self._engine.connected(peer)
            self._kick()

    def disconnected(self, peer: str) -> None:
        """The stream to `peer` is gone with everything in it. What came from it before was delivered before."""
        self._connected.discard(peer)
        if self._engine is not None and self._failed is None:
            self._engine.disconnected(peer)
            self._kick()

    # ---- turns ---------------------------------------------------------------------------------------------------

    def _kick(self) -> None:
        """One turn soon, for all that happens in this round of the loop."""
        if not self._kicked and self._loop is not None:
            self._kicked = True
            self._loop.call_soon(self._turn)

    def _tick(self) -> None:
        if self._loop is not None and not self._silent and self._failed is None:
            self._ticker = self._loop.call_later(self._config.tick_s, self._tick)
            self._turn(timed=True)

    def _turn(self, *, timed: bool = False) -> None:
        self._kicked = False
        self._barrier = None  # a caller after this must not share an entry that is already placed
        engine = self._engine
        if engine is None or self._silent or self._failed is not None:
            return
        try:
            self._take_frames(engine)
            if timed or (engine.due and not self._puts_off(engine)):
                engine.tick()
                self._put_off = False
            engine.end_turn()
            self._flush()
        except Exception as error:  # noqa: BLE001  (a rule of Raft is broken or unknown: fail stop, whatever it is)
            self._fail(error)
            return
        if self._inbox or (engine.behind and not self._put_off):
            self._kick()
        self._tell_later(engine)
        if timed or not self._ready or engine.stance != self._stance:
            self._stance = engine.stance
            self._tell_role(engine)

    def _completed(self, command: bytes) -> bytes:
        """A failure to complete is no reason to lose a command: it is placed as it came."""
        if self.on_place is None:
            return command
        try:
            completed = self.on_place(command)
        except Exception:
            logger.exception("a command could not be completed by the leader")
            return command
        return completed if len(completed) <= COMMAND_LIMIT else command

    def _puts_off(self, engine: Engine) -> bool:
        """Whether what is committed is applied a turn later, because a leader waits for this disk: the thread that
        syncs needs the interpreter to begin. Its word, or the next frame, brings that turn. Once in a row.
        """
        self._put_off = not self._put_off and engine.stores
        return self._put_off

    def _tell_later(self, engine: Engine) -> None:
        """Begin or end the wait for entries that may carry the commit index."""
        waits = engine.tells_later
        if waits and self._telling is None and self._loop is not None:
            self._telling = self._loop.call_later(TELL_COMMIT_S, self._tell_commit)
        elif not waits and self._telling is not None:
            self._telling.cancel()
            self._telling = None

    def _tell_commit(self) -> None:
        self._telling = None
        if self._engine is not None and self._engine.tells_later:
            self._engine.tell_commit()
            self._kick()

    def _flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def _take_frames(self, engine: Engine) -> None:
        end = self._clock() + TURN_BUDGET_S
        while self._inbox:
            engine.received(*self._inbox.popleft())
            if self._clock() > end:
                return

    def _synced(self, sequence: int) -> None:
        if self._engine is not None and self._failed is None:
            self._engine.synced(sequence)
            if self._engine.behind:
                self._kick()

    def _told(self, call: Callable[[], None]) -> None:
        """The snapshots' thread has something to say: a turn follows, which says what comes of it."""
        if self._engine is None or self._silent or self._failed is not None:
            return
        try:
            call()
        except Exception as error:  # noqa: BLE001  (as in a turn)
            self._fail(error)
            return
        self._kick()

    def _tell_role(self, engine: Engine) -> None:
        outline = engine.outline()
        if outline != self._outline:
            self._outline, self._ready = outline, outline[3]
            self._role_changed.set()
            if self.on_role is not None:
                self.on_role(engine.role())

    # ---- the end -------------------------------------------------------------------------------------------------

    def _fail(self, error: BaseException) -> None:
        """Fail stop: acknowledge nothing more, say nothing more, and let the process end."""
        if self._failed is not None:
            return
        self._failed = error
        logger.critical("%s takes no further part in consensus: %s", self._config.name, error, exc_info=error)
        if self._engine is not None:
            self._engine.outbox.clear()
        self._answers.give_up(f"this server has failed: {error}")
        if self.on_fatal is not None:
            self.on_fatal(error)
