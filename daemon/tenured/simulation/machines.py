"""Machines and processes: what dies with what."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from tenured.simulation.net import Net
from tenured.simulation.timeline import Clock, ProcessLoop, Timeline


class Setting(Protocol):
    """What machines need of their world."""

    timeline: Timeline
    net: Net
    rng: random.Random

    def note(self, who: str, what: str) -> None:
        """Add a line to the transcript."""

    def problem(self, who: str, message: str, error: BaseException | None) -> None:
        """Something was raised that nobody handled."""


@dataclass
class Machine:
    """A node: one set of clocks, and processes that lose them together."""

    name: str
    clock: Clock
    processes: list[Process] = field(default_factory=list["Process"])
    cost_ns: int = 20_000
    """Of one round of a loop."""
    paused_until: int = 0

    def pause(self, until: int) -> None:
        """Freeze everything on it."""
        self.paused_until = until
        for process in self.processes:
            process.loop.paused_until = max(process.loop.paused_until, until)


class Process:
    """One process on a machine."""

    def __init__(self, setting: Setting, machine: Machine, name: str) -> None:
        self.setting = setting
        self.machine = machine
        self.name = name
        # What a loop without sockets, files and signals leaves out is never called.
        self.loop = ProcessLoop(setting.timeline, machine.clock, name, setting.problem)  # type: ignore[abstract]
        self.loop.cost_ns = machine.cost_ns
        self.loop.paused_until = machine.paused_until
        self.on_death: Callable[[bool], None] | None = None
        """Called with whether its machine lost its power."""
        machine.processes.append(self)

    @property
    def alive(self) -> bool:
        """Whether it runs (or is paused)."""
        return not self.loop.dead

    @property
    def paused(self) -> bool:
        """Whether it is frozen now."""
        return self.loop.paused_until > self.setting.timeline.now

    def boot_ns(self) -> int:
        """The boot clock of its machine."""
        return self.machine.clock.boot_ns(self.setting.timeline.now)

    def wall_s(self) -> float:
        """The wall clock of its machine."""
        return self.machine.clock.wall_s(self.setting.timeline.now)

    def spawn(self, work: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine in it."""
        with self.loop.running():
            task = self.loop.create_task(work)
        task.add_done_callback(self._ended)
        self.loop.call_soon(_nothing)

    def _ended(self, task: Any) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.setting.problem(self.name, "a task ended", task.exception())

    def kill(self, *, power: bool = False) -> None:
        """End it now, in the middle of whatever it does."""
        if not self.alive:
            return
        self.loop.kill()
        self.machine.processes.remove(self)
        self.setting.net.process_died(self.loop, silently=power)
        if self.on_death is not None:
            self.on_death(power)


def _nothing() -> None:
    """Wakes a loop."""
