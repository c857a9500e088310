"""Clients and an operator in the simulated world. They keep the rules of the SDK: one call id for all sends of a call,
and what is known of its outcome adds up over them.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import msgspec

from tenure_proto.v1.calls_pb2 import CALL_KIND_ACTION, CALL_KIND_QUERY, Call, Reply
from tenure_proto.v1.common_pb2 import OUTCOME_NOT_APPLIED
from tenured.core import commands, results
from tenured.raft import Applied, Outcome
from tenured.simulation.links import CALLS
from tenured.simulation.machines import Machine, Process
from tenured.simulation.net import End
from tenured.transport.errors import TransportError

if TYPE_CHECKING:
    from tenured.simulation.cluster import Cluster

API = "api"
RETRY_S = 0.05
SILENCE_S = 1.0
"""How long a client waits for one answer before it sends the call again."""


class _Line:
    """A client's connection to one machine, with answers matched to requests."""

    def __init__(self, end: End) -> None:
        self.end = end
        self.waiting: dict[int, asyncio.Future[Reply | None]] = {}
        self.numbers = itertools.count(1)
        end.on_item = self._answered
        end.on_end = self._lost

    async def ask(self, call: Call, timeout_s: float) -> Reply | None:
        """The answer; None: none came, the outcome is unknown. Raises TransportError when nothing was sent."""
        number = next(self.numbers)
        copy = Call()
        copy.CopyFrom(call)
        copy.seq, copy.timeout_ms = number, max(1, int(timeout_s * 1000))
        future: asyncio.Future[Reply | None] = self.end.loop.create_future()
        self.waiting[number] = future
        if not self.end.write(copy):
            raise TransportError("the connection has ended")
        try:
            async with asyncio.timeout(min(timeout_s, SILENCE_S)):
                return await future
        except TimeoutError:
            return None
        finally:
            self.waiting.pop(number, None)

    def _answered(self, reply: Reply) -> None:
        future = self.waiting.get(reply.seq)
        if future is not None and not future.done():
            future.set_result(reply)

    def _lost(self) -> None:
        for future in self.waiting.values():
            if not future.done():
                future.set_result(None)


class Client:
    """One process that calls agents."""

    def __init__(self, world: Cluster, machine: Machine) -> None:
        self.world = world
        self.name = machine.name
        self.process = Process(world, machine, machine.name)
        self.cluster_time = 0.0
        self.open = 0
        """Calls under way."""
        self.succeeded = 0
        self._keys = itertools.count(1)
        self._lines: dict[str, _Line] = {}
        self._dialling: dict[str, asyncio.Lock] = {}

    def load(self, rate: float) -> None:
        """Call something now, and again after a while, until the world stops."""
        if self.world.loading:
            agent = self.world.rng.choice(self.world.stable)
            if self.world.rng.random() < 0.25:
                self.process.spawn(self.query(agent))
            else:
                self.process.spawn(self.call(agent))
            self.world.timeline.after(self.world.rng.expovariate(rate) * 1e9, lambda: self.load(rate))

    async def call(self, agent: str, timeout_s: float = 0.0) -> bool:
        """Add one effect, exactly once; whether it was acknowledged in time."""
        world = self.world
        key = next(self._keys)
        name = f"{self.name}/{key}"
        call = Call(
            agent=agent, kind=CALL_KIND_ACTION, method="add", client_id=self.name, key=key, born=self.cluster_time
        )
        reply, unknown = await self._send(call, timeout_s or world.rng.choice((0.5, 2.0, 5.0)))
        if reply is not None and reply.HasField("value"):
            world.note(self.name, f"{name} at {agent} is acknowledged")
            world.check.acknowledged(world.uid(agent), name, reply.epoch, msgspec.msgpack.decode(reply.value, type=int))
            self.succeeded += 1
            return True
        code = reply.error.code if reply is not None else "no answer"
        world.note(self.name, f"{name} at {agent} ends {'unknown' if unknown else 'not applied'}: {code}")
        if not unknown:
            world.check.refused(name)
        return False

    async def query(self, agent: str) -> None:
        """Read; the answer must hold what was acknowledged before."""
        world = self.world
        uid = world.uid(agent)
        known = list(world.check.chain(uid).acknowledged)
        reply, _ = await self._send(Call(agent=agent, kind=CALL_KIND_QUERY, method="get"), 1.0)
        if reply is not None and reply.HasField("value"):
            world.check.read(uid, msgspec.msgpack.decode(reply.value, type=list[str]), known)

    async def _send(self, call: Call, timeout_s: float) -> tuple[Reply | None, bool]:
        """(the last answer, whether the outcome is unknown)"""
        loop = self.process.loop
        deadline = loop.time() + timeout_s
        unknown, reply, moved = False, None, ""
        self.open += 1
        try:
            while (left := deadline - loop.time()) > 0:
                host = moved or self.world.route(call.agent)
                moved = ""
                if host:
                    try:
                        reply = await (await self._line(host)).ask(call, left)
                    except TransportError:
                        reply = None
                    else:
                        if reply is None:
                            unknown = True
                        elif reply.HasField("value"):
                            self.cluster_time = max(self.cluster_time, reply.cluster_time)
                            return reply, False
                        else:
                            unknown |= reply.error.outcome != OUTCOME_NOT_APPLIED
                            moved = reply.error.moved_to.host
                            if not reply.error.retryable:
                                break
                await asyncio.sleep(RETRY_S)
            return reply, unknown
        finally:
            self.open -= 1

    async def _line(self, host: str) -> _Line:
        async with self._dialling.setdefault(host, asyncio.Lock()):
            line = self._lines.get(host)
            if line is None or not line.end.open:
                end = await self.world.net.dial(self.process.loop, self.name, host, CALLS)
                line = self._lines[host] = _Line(end)
            return line


class Operator:
    """The operator's side of the registry: what it wants is proposed until it is decided."""

    def __init__(self, world: Cluster, machine: Machine) -> None:
        self.world = world
        self.name = machine.name
        self.process = Process(world, machine, machine.name)
        self.open = 0
        self._numbers = itertools.count(1)
        self._nodes = asyncio.Lock()
        """What it says of the nodes replaces what it said before, so it is decided in that order."""

    def want(self, command: commands.Command) -> None:
        """Propose it at one server after the other, under one command id."""
        self.open += 1
        wanted = msgspec.structs.replace(command, command_id=f"op-{next(self._numbers)}")
        decide = self._in_order if isinstance(command, commands.SetNodes) else self._until_done
        self.process.spawn(decide(wanted))

    async def _in_order(self, command: commands.Command) -> None:
        async with self._nodes:
            await self._until_done(command)

    async def _until_done(self, command: commands.Command) -> None:
        encoded = commands.encode(command)
        while True:
            server = self.world.rng.choice(self.world.server_names)
            try:
                end = await self.world.net.dial(self.process.loop, self.name, server, API)
            except TransportError:
                await asyncio.sleep(RETRY_S)
                continue
            end.write(encoded)
            outcome: Outcome | None = None
            try:
                async with asyncio.timeout(SILENCE_S):
                    outcome = await end.read()
            except TimeoutError:
                pass
            end.close()
            if isinstance(outcome, Applied):
                results.decode(outcome.result)
                self.open -= 1
                return
            await asyncio.sleep(RETRY_S)
