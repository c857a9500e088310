"""Whom to ask where an agent is: two servers, for one may have frozen together with the host."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence

from tenure._remote.hedging import first_good
from tenure._remote.routes import SHORTEST_POLL_S
from tenure_proto.v1 import registry_pb2

HEDGE_S = 0.3
"""Without an answer to a quick question for so long, another server is asked as well."""

AskAt = Callable[[str, registry_pb2.ResolveRequest, float], Awaitable[registry_pb2.ResolveResponse]]
"""Ask the server at an address; seconds it may take. Raises CallError."""


class Turns:
    """The servers of a cluster, and which of them is asked first."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self._number = 0

    @property
    def first(self) -> str:
        """Whom to ask first."""
        return self._addresses[self._number % len(self._addresses)]

    def two(self) -> list[str]:
        """The first, and the one after it if there is another."""
        count = len(self._addresses)
        return [self._addresses[(self._number + further) % count] for further in range(min(2, count))]

    def turn(self, failed: str) -> None:
        """Ask the next server from now on, unless that has happened already."""
        if self.first == failed:
            self._number += 1


class Resolver:
    """Answers `Resolve` for `routes.Routes`."""

    def __init__(self, turns: Turns, ask_at: AskAt) -> None:
        self._turns = turns
        self._ask_at = ask_at

    async def resolve(self, request: registry_pb2.ResolveRequest, timeout_s: float) -> registry_pb2.ResolveResponse:
        """Ask both at once where a change is waited for, else one a little after the other. Raises CallError.

        The next request begins with another server if these failed or knew nothing new.
        """
        ask = self._poll_at if request.wait_ms else self._ask_at
        asks = [functools.partial(ask, server, request, timeout_s) for server in self._turns.two()]
        apart_s = 0.0 if request.wait_ms else HEDGE_S
        return await first_good(asks, lambda answer: _tells(answer, request), apart_s=apart_s)

    async def _poll_at(
        self, server: str, request: registry_pb2.ResolveRequest, timeout_s: float
    ) -> registry_pb2.ResolveResponse:
        """One server's long poll, begun again when it ends early without a holder: the news that an agent has lost its
        host is not the news that it has another.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + request.wait_ms / 1000
        slack_s = timeout_s - request.wait_ms / 1000
        while True:
            began = clock()
            answer = await self._ask_at(server, request, until - began + slack_s)
            if _tells(answer, request):
                return answer
            if until - clock() < SHORTEST_POLL_S:
                self._turns.turn(server)  # it may be cut off from the others and not know
                return answer
            await asyncio.sleep(max(0.0, began + SHORTEST_POLL_S - clock()))
            again = registry_pb2.ResolveRequest()
            again.CopyFrom(request)
            again.wait_ms = max(1, int((until - clock()) * 1000))
            request = again


def _tells(answer: registry_pb2.ResolveResponse, request: registry_pb2.ResolveRequest) -> bool:
    """Whether an answer says what was not known; a long poll may end without, or with no holder yet."""
    return not request.wait_ms or answer.HasField("error") or answer.route.epoch != request.known_epoch
