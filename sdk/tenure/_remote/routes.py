"""Which host holds which agent: learned from the servers, kept until a host or a server says otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tenure import errors
from tenure._remote.channels import from_proto
from tenure_proto.v1 import common_pb2, registry_pb2

POLL_S = 1.0
"""Of one long poll. Short, since the server that is asked may be frozen: the next poll asks another."""
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
        self._polls: dict[str, asyncio.Task[common_pb2.Route]] = {}
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
        """Done when a host has the agent in another epoch, or it has gone (NotFound). Shared: do not cancel."""
        poll = self._polls.get(agent)
        if poll is None or poll.done():
            poll = asyncio.create_task(self._poll(agent, epoch))
            poll.add_done_callback(_retrieve)
            self._polls[agent] = poll
            poll.add_done_callback(lambda done: self._polls.pop(agent) if self._polls.get(agent) is done else None)
        return poll

    async def _poll(self, agent: str, epoch: int) -> common_pb2.Route:
        """Ask until the answer differs; a server that fails is not asked twice in a row (`resolve` sees to it)."""
        clock = asyncio.get_running_loop().time
        request = registry_pb2.ResolveRequest(agent=agent, known_epoch=epoch, wait_ms=int(POLL_S * 1000))
        while True:
            began = clock()
            try:
                route = self._take(agent, await self._resolve(request, POLL_S + 0.5))
            except (errors.Transient, errors.DeadlineExceeded):
                pass
            else:
                # Not waiting for `ready`: hosts report it in the background, later than they serve.
                if route.epoch != epoch and route.host:
                    return route
            await asyncio.sleep(max(0.0, began + SHORTEST_POLL_S - clock()))

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
        polls = list(self._polls.values())
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)


def _retrieve(done: asyncio.Task[common_pb2.Route]) -> None:
    """Mark the exception as seen: callers that left do not look."""
    if not done.cancelled():
        done.exception()
