"""Which host holds which agent: learned from the servers, kept until a host or a server says otherwise."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping

from tenure import errors
from tenure._remote.channels import from_proto
from tenure._remote.sessions import ended
from tenure_proto.v1 import common_pb2, registry_pb2

POLLS_S = (1.0, 1.0, 2.0, 4.0)
"""Of the first long polls; the last one repeats. Short at first: the server asked may have frozen with the host."""
SHORTEST_POLL_S = 0.1
"""A server may answer at once, since readiness differs: that is no reason to ask it without pause."""
BEHIND_S = 2.0
"""How long a server may not know of an agent that another one has created for us."""
LIMIT = 10_000
"""Routes kept; the oldest goes first."""

Resolve = Callable[[registry_pb2.ResolveRequest, float], Awaitable[registry_pb2.ResolveResponse]]
"""Ask a server; the number is how long it may take, in seconds. Raises CallError."""


class Routes:
    """Routes by agent. One long poll per agent, however many calls wait for it."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._known: dict[str, common_pb2.Route] = {}
        self._polls: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, dict[asyncio.Future[common_pb2.Route], int]] = {}
        self._expected: dict[str, float] = {}

    def known(self, agent: str) -> common_pb2.Route | None:
        """The route as last heard."""
        return self._known.get(agent)

    def learn(self, route: common_pb2.Route) -> None:
        """Take a route in, unless a later one is known."""
        held = self._known.get(route.agent)
        if held is not None and held.epoch > route.epoch and held.uid == route.uid:
            return
        self._known.pop(route.agent, None)
        self._known[route.agent] = route
        while len(self._known) > LIMIT:
            self._known.pop(next(iter(self._known)))

    def forget(self, agent: str) -> None:
        """The route led nowhere."""
        self._known.pop(agent, None)

    def expect(self, agent: str) -> None:
        """We have just created it: a server that has not applied that yet is behind, not right."""
        now = asyncio.get_running_loop().time()
        self._expected = {name: until for name, until in self._expected.items() if until > now}
        self._expected[agent] = now + BEHIND_S

    async def ask(self, agent: str, timeout_s: float) -> common_pb2.Route:
        """The route as a server knows it now. Raises NotFound and what the servers answer."""
        return self._take(agent, await self._resolve(registry_pb2.ResolveRequest(agent=agent), timeout_s))

    def changed(self, agent: str, epoch: int) -> asyncio.Future[common_pb2.Route]:
        """Done when a host has the agent in another epoch, or with NotFound. Cancel it when you no longer wait."""
        future: asyncio.Future[common_pb2.Route] = asyncio.get_running_loop().create_future()
        known = self._known.get(agent)
        if known is not None and known.epoch > epoch and known.host:
            future.set_result(known)
            return future
        self._waiting.setdefault(agent, {})[future] = epoch
        if agent not in self._polls:
            self._polls[agent] = asyncio.create_task(self._poll(agent))
        return future

    async def _poll(self, agent: str) -> None:
        """Ask until nobody waits any more; a server that fails is not asked twice in a row (`resolve` sees to it)."""
        clock = asyncio.get_running_loop().time
        waits = itertools.chain(POLLS_S, itertools.repeat(POLLS_S[-1]))
        try:
            while epochs := self._wanted(agent):
                began, wait_s = clock(), next(waits)
                request = registry_pb2.ResolveRequest(
                    agent=agent, known_epoch=max(epochs.values()), wait_ms=int(wait_s * 1000)
                )
                try:
                    self._tell(epochs, self._take(agent, await self._resolve(request, wait_s + 0.5)))
                except (errors.Transient, errors.DeadlineExceeded):
                    pass  # another server may know
                except errors.CallError as error:
                    for future in self._wanted(agent):
                        future.set_exception(error)
                await asyncio.sleep(max(0.0, began + SHORTEST_POLL_S - clock()))
        finally:
            self._polls.pop(agent, None)
            for future in self._waiting.pop(agent, {}):
                if not future.done():  # of a client that is being closed
                    future.set_exception(errors.Unavailable("the client was closed", agent=agent))

    def _wanted(self, agent: str) -> dict[asyncio.Future[common_pb2.Route], int]:
        """Who still waits, with the epoch that each knows."""
        waiting = {future: epoch for future, epoch in self._waiting.get(agent, {}).items() if not future.done()}
        self._waiting[agent] = waiting
        return waiting

    @staticmethod
    def _tell(epochs: Mapping[asyncio.Future[common_pb2.Route], int], route: common_pb2.Route) -> None:
        # Not waiting for `ready`: hosts report it in the background, later than they serve.
        for future, epoch in epochs.items():
            if route.host and route.epoch != epoch and not future.done():
                future.set_result(route)

    def _take(self, agent: str, answer: registry_pb2.ResolveResponse) -> common_pb2.Route:
        if answer.HasField("error"):
            error = from_proto(answer.error, agent)
            if isinstance(error, errors.NotFound):
                self.forget(agent)
                if self._expected.get(agent, 0) > asyncio.get_running_loop().time():
                    raise errors.NotReady(f"{agent} was just created", agent=agent)
            raise error
        self.learn(answer.route)
        return answer.route

    async def close(self) -> None:
        """End the polls."""
        await ended(list(self._polls.values()))
