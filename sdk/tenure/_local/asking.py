"""Requests of waiting turns to other agents, and the replies that end their waits (`ctx.call`, protocol 9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenure import errors
from tenure._journal import outcome
from tenure._local import owed
from tenure._local.held import Held, Slept
from tenure._local.owed import Request
from tenure._local.timers import AGAIN_S
from tenure_link import Fault

if TYPE_CHECKING:
    from tenure._local.engine import Engine
    from tenure._local.owing import Owing

HOPS = 100
"""How far a chain of waiting turns is followed."""


class Asking:
    """The requests of one runtime that are under way. One that nobody knows of any more is asked again at a wake-up."""

    def __init__(self, engine: Engine, owing: Owing) -> None:
        self._engine = engine
        self._owing = owing
        self._under_way: set[str] = set()
        """Keys of requests."""
        self._refused: set[str] = set()
        """Of those, the ones whose refusal is on its way into the journal of who waits: he waits no more."""

    def ask(self, held: Held, *, again: bool) -> None:
        """Send what the agent's turn waits for; once at a time. `again`: whom it asks may not be here yet."""
        turn = owed.turn_of(held.activation.slices)
        if turn is not None and turn["wait"]["key"] not in self._under_way:
            to, request = owed.outgoing(turn)
            self._under_way.add(request.key)
            self._engine.apart(self._ask(held.id, to, request, again=again), f"{held.id} asks {to}")

    async def _ask(self, agent_id: str, to: str, request: Request, *, again: bool) -> None:
        try:
            while self._waits(agent_id, request.key):
                try:
                    held = self._engine.agents.get(to) or await self._engine.reach(to)
                    reply = await self._engine.request(held, request)
                    if reply is not None:  # of a query; that of an action comes by `reply`
                        await self._deliver(agent_id, request.key, outcome(reply, None))
                except (errors.Transient, errors.WorkerCrashed, errors.NotFound) as error:
                    if again or not isinstance(error, errors.NotFound):
                        await self._engine.pause(AGAIN_S)
                        continue
                    await self._deliver(agent_id, request.key, _refusal(error))
                except errors.CallError as error:
                    await self._deliver(agent_id, request.key, _refusal(error))
                return
        finally:
            self._under_way.discard(request.key)
            self._refused.discard(request.key)

    def _waits(self, agent_id: str, key: str) -> bool:
        """Whether its turn still waits for that reply, as far as one can see: one that sleeps may."""
        held = self._engine.agents.get(agent_id)
        if held is None:
            return self._engine.expected(agent_id)
        turn = owed.turn_of(held.activation.slices)
        return turn is not None and turn["wait"] is not None and turn["wait"]["key"] == key

    def reply(self, agent_id: str, request: Request, result: bytes) -> None:
        """An agent has committed the end of what another one's turn waits for."""
        name = f"{agent_id} replies to {request.reply_to}"
        self._engine.apart(self._reply(agent_id, request, result), name)

    async def _reply(self, agent_id: str, request: Request, result: bytes) -> None:
        if not await self._deliver(request.reply_to, request.key, result):
            return  # it asks again when it is here
        held = self._engine.agents.get(agent_id)
        if held is not None and request.key in held.activation.slices.get(owed.CALLS, {}):
            try:
                await self._engine.lives.amend(held, (owed.Acknowledged(request.key),))
            except errors.CallError as error:
                self._engine.report(held, "an acknowledgement", error)  # bounded, and forgotten with the next ones

    async def _deliver(self, agent_id: str, key: str, result: bytes) -> bool:
        """Commit a reply in the journal of the turn that waits for it. False: its agent is not here."""
        while True:
            try:
                held = self._engine.agents.get(agent_id) or await self._engine.reach(agent_id)
                async with held.turn(self._engine.parked, always=True):
                    if self._waits(agent_id, key):
                        await self._owing.wake(held, result)
            except Slept:
                continue
            except errors.NotFound:
                return False
            except errors.CallError:
                await self._engine.pause(AGAIN_S)
            else:
                return True

    def refuse_cycle(self, held: Held, request: Request) -> None:
        """Raise WaitCycle if the turn of this agent waits, however far, for one that waits for this request."""
        path, at = [held.id], held
        for _ in range(HOPS):
            wait = owed.wait_of(at.activation.slices)
            if wait is None or not wait["to"] or wait["key"] in self._refused:
                return
            to = wait["to"]
            path.append(to)
            if to in request.chain:
                self._refused.add(request.key)
                text = " -> ".join([*request.chain, *path])
                raise errors.WaitCycle(f"turns would wait for each other: {text}", agent=held.id)
            following = self._engine.agents.get(to)
            if following is None:
                return
            at = following


def _refusal(error: errors.CallError) -> bytes:
    return outcome(None, Fault(error.code, error.message, error.details))
