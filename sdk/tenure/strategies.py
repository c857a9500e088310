"""How an agent runs its instructions: directly, as a state machine, or by rules of its own.

A strategy is a value that belongs to the class; what it has to remember about one agent is its memory, a map that is
committed with the agent's state.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from tenure._effects import Error
from tenure.errors import DefinitionError, InvalidTransition

Memory = dict[str, Any]
"""What a strategy remembers about one agent: names to what msgpack can write."""
Status = Literal["idle", "running", "waiting", "success", "failure"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where an agent stands, in the words that all strategies share."""

    status: Status = "idle"
    details: Mapping[str, object] = field(default_factory=dict[str, object])

    @property
    def done(self) -> bool:
        """Whether nothing more is to be expected."""
        return self.status in {"success", "failure"}


class Strategy:
    """Base of strategies. This one is direct: each instruction is run, and nothing is remembered.

    Strategies of your own override what they want. `run` must not wait for anything but `proceed`.
    """

    def initial(self) -> Memory:
        """The memory of a new agent."""
        return {}

    async def run(self, name: str, memory: Memory, proceed: Callable[[], Awaitable[object]]) -> object:  # noqa: ARG002
        """Run the action `name` by awaiting `proceed()` once, or raise; returns the reply.

        `memory` may be changed; after an error it is as it was before.
        """
        return await proceed()

    def failed(self, memory: Memory, error: Error) -> Memory:  # noqa: ARG002 - the interface
        """The memory after an action failed. Else the turn leaves nothing behind."""
        return memory

    def move(self, memory: Memory, to: str) -> Memory:  # noqa: ARG002 - the interface
        """What `ctx.transition(to)` means. Raises InvalidTransition."""
        raise InvalidTransition(f"{type(self).__name__} knows no states: {to!r} cannot be reached; see tenure.FSM")

    def snapshot(self, memory: Memory) -> Snapshot:  # noqa: ARG002 - the interface
        """Where the agent stands."""
        return Snapshot()

    def routes(self) -> Sequence[tuple[str, str]]:
        """Signal patterns and the actions that they lead to, ahead of the agent's own routes."""
        return ()


Direct = Strategy
"""The strategy of agents that name none."""

_TRANSITIONS: Mapping[str, Sequence[str]] = {
    "idle": ("processing",),
    "processing": ("idle", "completed", "failed"),
    "completed": ("idle", "processing"),
    "failed": ("idle", "processing"),
}
_STATUS: Mapping[str, Status] = {"idle": "idle", "processing": "running", "completed": "success", "failed": "failure"}


@dataclass(frozen=True)
class FSM(Strategy):
    """A machine that is `processing` while an action runs, and refuses actions in states that do not lead there.

    `transitions`: from a state to those that it may lead to. With `auto_transition` the machine goes back to `start`
    after an action, unless the action moved it elsewhere (`ctx.transition("completed")`); without, it stays in
    `processing`. After an error it is in `failed`, where the machine has such a state, and remembers the message.
    """

    start: str = "idle"
    transitions: Mapping[str, Sequence[str]] = field(default_factory=lambda: _TRANSITIONS)
    auto_transition: bool = True
    working: str = "processing"
    statuses: Mapping[str, Status] = field(default_factory=dict[str, Status])
    """What states of your own mean; those that are neither here nor known are `waiting`."""

    def __post_init__(self) -> None:
        known = set(self.transitions)
        for state, targets in self.transitions.items():
            if unknown := [target for target in targets if target not in known]:
                raise DefinitionError(f"FSM: {state} leads to {unknown[0]!r}, which has no transitions of its own")
        for name, state in (("start", self.start), ("working", self.working)):
            if state not in known:
                raise DefinitionError(f"FSM: {name}={state!r} is none of its states: {', '.join(sorted(known))}")

    def initial(self) -> Memory:
        """In `start`."""
        return {"state": self.start, "processed": 0, "error": ""}

    async def run(self, name: str, memory: Memory, proceed: Callable[[], Awaitable[object]]) -> object:  # noqa: ARG002
        """Move to `working`, run, move on."""
        memory.update(self.move(memory, self.working))
        reply = await proceed()
        memory["processed"] += 1
        memory["error"] = ""
        if self.auto_transition and memory["state"] == self.working:
            memory.update(self.move(memory, self.start))
        return reply

    def failed(self, memory: Memory, error: Error) -> Memory:
        """In `failed`, if the machine can get there from where it was or from `working`."""
        reached = {*self.transitions[cast(str, memory["state"])], *self.transitions[self.working]}
        refused = error.code == InvalidTransition.code
        state = "failed" if "failed" in reached and not refused else memory["state"]
        return {**memory, "state": state, "error": error.message}

    def move(self, memory: Memory, to: str) -> Memory:
        """The memory in another state. Raises InvalidTransition."""
        now = cast(str, memory["state"])
        allowed = self.transitions[now]
        if to not in allowed:
            raise InvalidTransition(f"from {now} there is no way to {to}; there is one to {', '.join(allowed)}")
        return {**memory, "state": to}

    def snapshot(self, memory: Memory) -> Snapshot:
        """The state of the machine, how many actions it ran, and the last error."""
        status = self.statuses.get(memory["state"], _STATUS.get(memory["state"], "waiting"))
        return Snapshot(status, dict(memory))
