"""The sensors of a runtime: each known by its agent and a tag."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from tenure._clock import Clock, SystemClock
from tenure.errors import NotFound, UsageError
from tenure.sensors._effects import Ending
from tenure.sensors._runner import DEFAULT_POLICY, Policy, SensorRunner, settled
from tenure.sensors._sensor import Sensor
from tenure.signals import Signal

PER_AGENT = 100
"""Sensors of one agent."""
_TAG = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class SensorRunning(UsageError):
    """The agent has a sensor with this tag, and it was not to be replaced."""


class Sensors:
    """Starts and stops the sensors of agents. An agent that ends, or moves away, takes its own along: `stop_all`.

    `fail_owner(agent_id, ending)` is told when a sensor that was linked to its agent ends and nobody asked for it.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        policy: Policy = DEFAULT_POLICY,
        fail_owner: Callable[[str, Ending], None] = lambda _agent, _ending: None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._policy = policy
        self._fail_owner = fail_owner
        self._running: dict[str, dict[str, SensorRunner]] = {}
        self._closing: set[SensorRunner] = set()

    def start(
        self,
        agent_id: str,
        tag: str,
        sensor: Sensor[Any],
        deliver: Callable[[Signal], None],
        *,
        on_end: Callable[[Ending], None] = lambda _: None,
        replace: bool = True,
        link: bool = False,
    ) -> SensorRunner:
        """Start a sensor for an agent, in place of the one with the same tag. Empty tag: the sensor's name.

        Raises SensorRunning if it may not be replaced, UsageError for a tag that cannot be or a 101st sensor.
        """
        tag = tag or sensor.name
        if not _TAG.fullmatch(tag):
            raise UsageError(f"a tag is 1 to 64 letters, digits, _, . and -, not {tag!r}")
        own = self._running.get(agent_id, {})
        before = own.get(tag)
        if before is not None and not replace:
            raise SensorRunning(f"{agent_id} has a sensor {tag}: stop it first, or let it be replaced")
        if before is None and len(own) >= PER_AGENT:
            raise UsageError(f"{agent_id} has {PER_AGENT} sensors: stop one first")

        def ended(ending: Ending) -> None:
            self._forget(agent_id, runner)
            on_end(ending)
            if link and not ending.expected:
                self._fail_owner(agent_id, ending)

        runner = SensorRunner(
            sensor,
            clock=self._clock,
            deliver=deliver,
            on_end=ended,
            source=f"{agent_id}/sensors/{tag}",
            tag=tag,
            policy=self._policy,
        )
        self._running.setdefault(agent_id, {})[tag] = runner
        if before is not None:
            before.stop("replaced")
        if runner.ending is None:  # whoever heard of that end may have begun another one
            runner.start()
        return runner

    def stop(self, agent_id: str, tag: str, reason: str = "stopped") -> bool:
        """Stop a sensor; False: there is none."""
        runner = self._running.get(agent_id, {}).get(tag)
        if runner is None:
            return False
        runner.stop(reason)
        return True

    def stop_all(self, agent_id: str, reason: str = "its agent ended") -> int:
        """Stop every sensor of an agent; how many there were."""
        runners = list(self._running.get(agent_id, {}).values())
        for runner in runners:
            runner.stop(reason)
        return len(runners)

    def inject(self, agent_id: str, tag: str, event: object) -> None:
        """Let a sensor handle an event from elsewhere, such as a webhook. Raises NotFound, Busy."""
        runner = self._running.get(agent_id, {}).get(tag)
        if runner is None:
            raise NotFound(f"{agent_id} has no sensor {tag}", agent=agent_id)
        runner.inject(event)

    def of(self, agent_id: str) -> dict[str, SensorRunner]:
        """The running sensors of an agent, by tag."""
        return dict(self._running.get(agent_id, {}))

    async def settle(self) -> None:
        """Wait until all of them have handled what there is. For runtimes whose clock stands still meanwhile."""
        if self._running:
            await settled(lambda: [runner for own in self._running.values() for runner in own.values()])

    async def close(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - in seconds, as everywhere in the SDK
        """Stop all of them and wait until their sources are gone, at most so long."""
        for agent_id in list(self._running):
            self.stop_all(agent_id, "the runtime ended")
        await asyncio.gather(*(runner.wait_closed(timeout) for runner in self._closing))
        self._closing.clear()

    def _forget(self, agent_id: str, runner: SensorRunner) -> None:
        own = self._running.get(agent_id, {})
        if own.get(runner.tag) is runner:
            del own[runner.tag]
        if not own:
            self._running.pop(agent_id, None)
        self._closing = {one for one in self._closing if not one.closed}
        if not runner.closed:
            self._closing.add(runner)
