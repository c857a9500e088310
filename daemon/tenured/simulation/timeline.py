"""Virtual time: one queue of events for all machines, and an event loop of asyncio for each simulated process.

The shells of the daemon run unchanged on `ProcessLoop`: it has a ready queue and timers, and no sockets, files or
threads. All loops share one `Timeline`. True time is in nanoseconds and is nobody's clock: each machine has clocks of
its own, which run too fast or too slow, and timers follow the machine's clock.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar, TypeVarTuple, Unpack

NS = 1_000_000_000
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Problem = Callable[[str, str, BaseException | None], None]
"""(process, message, exception): nobody in the process handled it."""

_KEPT_TASKS = 64
_CLOSE_ATTEMPTS = 4


class Clock:
    """The clocks of one machine."""

    def __init__(self, rate: float = 1.0, offset_ns: int = 0, wall_s: float = 1.7e9) -> None:
        """`rate`: nanoseconds of this clock in one true nanosecond."""
        self.rate = rate
        self.offset_ns = offset_ns
        self.slept_ns = 0
        """What CLOCK_MONOTONIC, on which timers run, missed in suspend; the boot clock did not [boottime]."""
        self.wall_offset_s = wall_s

    def boot_ns(self, now: int) -> int:
        """CLOCK_BOOTTIME."""
        return self.offset_ns + int(now * self.rate)

    def monotonic_ns(self, now: int) -> int:
        """CLOCK_MONOTONIC."""
        return self.boot_ns(now) - self.slept_ns

    def wall_s(self, now: int) -> float:
        """CLOCK_REALTIME; `wall_offset_s` may be stepped at will."""
        return self.wall_offset_s + now * self.rate / NS

    def true_ns(self, monotonic_ns: float) -> int:
        """When the monotonic clock will show that, if nothing happens to it."""
        return int((monotonic_ns + self.slept_ns - self.offset_ns) / self.rate) + 1


class Handle(asyncio.TimerHandle):
    """A callback of a process, with or without a time."""

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: ProcessLoop,
        context: contextvars.Context | None = None,
    ) -> None:
        super().__init__(when, callback, args, loop, context)

    def fire(self) -> None:
        """Run it unless it was cancelled."""
        if not self.cancelled():
            self._run()


Item = Handle | Callable[[], object] | None
"""What an event is: a callback of a process, something of the world, or (None) that a loop goes on."""


class Timeline:
    """True time, and all that is to happen."""

    def __init__(self) -> None:
        self.now = 0
        self.events = 0
        self._heap: list[tuple[int, int, ProcessLoop | None, Item]] = []
        self._serial = 0

    def at(self, when: int, event: Callable[[], object]) -> None:
        """Let something happen that is no process's doing."""
        self.push(when, None, event)

    def after(self, delay_ns: float, event: Callable[[], object]) -> None:
        """The same, so much later than now."""
        self.push(self.now + int(delay_ns), None, event)

    def push(self, when: int, loop: ProcessLoop | None, item: Item) -> None:
        """Add an event; those of one time happen in the order in which they were added."""
        self._serial += 1
        heapq.heappush(self._heap, (max(when, self.now), self._serial, loop, item))

    @property
    def next_at(self) -> int | None:
        """When the next event is due."""
        return self._heap[0][0] if self._heap else None

    def step(self) -> ProcessLoop | None:
        """Let the next event happen; answers whose it was. Events of a paused process wait, in their order."""
        when, serial, loop, item = heapq.heappop(self._heap)
        if loop is None:
            self.now = max(self.now, when)
            self.events += 1
            if callable(item):
                item()
            return None
        if loop.dead:
            return None
        if loop.paused_until > when:
            # After a pause a loop reads its sockets before it looks at its timers, as asyncio's selector loop does.
            timer = isinstance(item, Handle) and item.when() > 0
            heapq.heappush(self._heap, (loop.paused_until + timer, serial, loop, item))
            return None
        self.now = max(self.now, when)
        self.events += 1
        if isinstance(item, Handle):
            return loop if loop.due(item) else None
        loop.turn()
        return loop


class ProcessLoop(asyncio.AbstractEventLoop):
    """The event loop of one simulated process. `cost_ns`: how long one round of callbacks takes."""

    def __init__(self, timeline: Timeline, clock: Clock, name: str, on_problem: Problem) -> None:
        self.timeline = timeline
        self.clock = clock
        self.name = name
        self.dead = False
        self.paused_until = 0
        self.cost_ns = 20_000
        self._on_problem = on_problem
        self._ready: deque[Handle] = deque()
        self._scheduled = False
        self._spent_ns = 0
        self._tasks: list[weakref.ref[asyncio.Task[Any]]] = []
        self._tasks_limit = _KEPT_TASKS

    # --- for the world ----------------------------------------------------------------------------------------------

    def due(self, handle: Handle) -> bool:
        """A timer or a delivery: run it with whatever is ready; False: not yet, or not any more."""
        if handle.cancelled():
            return False
        early_ns = handle.when() * NS - self.clock.monotonic_ns(self.timeline.now)
        if early_ns > 1:  # the machine slept meanwhile
            self.timeline.push(self.clock.true_ns(handle.when() * NS), self, handle)
            return False
        self._ready.append(handle)
        self.turn()
        return True

    def turn(self) -> None:
        """One round of the loop: what is ready now."""
        self._scheduled = False
        self._spent_ns = 0
        with self.running():
            for _ in range(len(self._ready)):
                if self.dead:
                    return
                self._ready.popleft().fire()
        if self._ready:
            self._go_on(self.cost_ns + self._spent_ns)

    @property
    def busy(self) -> bool:
        """Whether callbacks are ready."""
        return bool(self._ready)

    def running(self) -> _Running:
        """This loop is the running one within."""
        return _Running(self)

    def deliver(self, when_ns: int, callback: Callable[..., object], *args: Any) -> None:
        """Call in this process at a true time, later while it is paused; never if it dies first."""
        self.timeline.push(when_ns, self, Handle(0.0, callback, args, self))

    def kill(self) -> None:
        """The process is gone. Its coroutines are closed, so that none of them wakes up when it is collected."""
        if self.dead:
            return
        self.dead = True
        with self.running():
            for task in [task for reference in self._tasks if (task := reference()) is not None]:
                _close(task.get_coro())
        self._ready.clear()
        self._tasks.clear()

    def slow_clock(self) -> float:
        """Seconds that move on when they are read: some loops of the Raft engine end by their clock only."""
        self._spent_ns += 20_000
        return (self.clock.monotonic_ns(self.timeline.now) + self._spent_ns) / NS

    # --- what asyncio asks ------------------------------------------------------------------------------------------

    def time(self) -> float:
        return self.clock.monotonic_ns(self.timeline.now) / NS

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> Handle:
        handle = Handle(0.0, callback, args, self, context)
        if not self.dead:
            self._ready.append(handle)
            if not self._scheduled and asyncio._get_running_loop() is not self:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
                self._go_on(0)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> Handle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> Handle:
        handle = Handle(when, callback, args, self, context)
        if not self.dead:
            # A wait that is too short for the clock to tell takes time, too, or whoever repeats it stops the world.
            earliest = self.timeline.now + (when > self.time())
            self.timeline.push(max(self.clock.true_ns(when * NS), earliest), self, handle)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        task: asyncio.Task[T] = asyncio.Task(coro, loop=self, name=name, context=context)
        if self.dead:
            _close(coro)
        self._tasks.append(weakref.ref(task))
        if len(self._tasks) > self._tasks_limit:
            self._tasks = [r for r in self._tasks if (t := r()) is not None and not t.done()]
            self._tasks_limit = max(_KEPT_TASKS, 2 * len(self._tasks))
        return task

    def run_in_executor(
        self,
        executor: object,  # noqa: ARG002 - no threads here
        func: Callable[[Unpack[Ts]], T],
        *args: *Ts,
    ) -> asyncio.Future[T]:
        """What a thread would do takes a moment and no thread."""
        future: asyncio.Future[T] = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001 - as a thread pool hands on whatever was raised
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        self.call_later(0.0005, work)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.dead:
            self._on_problem(self.name, str(context.get("message")), context.get("exception"))

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self.dead

    def is_closed(self) -> bool:
        return self.dead

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """asyncio: it is skipped when its time comes."""

    def _go_on(self, delay_ns: int) -> None:
        self._scheduled = True
        self.timeline.push(self.timeline.now + delay_ns, self, None)


class _Running:
    """Sets the running loop, and puts back the one before: a simulation may run inside of a real loop."""

    __slots__ = ("_before", "_loop")

    def __init__(self, loop: ProcessLoop) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        self._before = asyncio._get_running_loop()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        asyncio._set_running_loop(self._loop)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]

    def __exit__(self, *_: object) -> None:
        asyncio._set_running_loop(self._before)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def _close(coroutine: Any) -> None:
    """End a coroutine of a dead process; what its `finally` blocks still do reaches nobody."""
    for _ in range(_CLOSE_ATTEMPTS):
        try:
            coroutine.close()
        except ValueError:  # it is the one that runs
            return
        except Exception:  # noqa: BLE001,S112 - a dead process's blocks may wait, or raise whatever they like
            continue
        return
