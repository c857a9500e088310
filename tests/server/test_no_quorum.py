"""A server that cannot ask the others does not know that there is no such agent, and does not say so.

Found by the outside judge (tests/judges): after a restart of all, servers said "not found" of what was acknowledged.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from tenure_api.identity import Identity, Role
from tenure_proto.v1 import registry_pb2
from tenure_proto.v1.calls_pb2 import Call, LogsRequest
from tenure_proto.v1.common_pb2 import OUTCOME_NOT_APPLIED
from tenured.raft import NotApplied, Outcome, Unknown
from tenured.server.api import Api
from tenured.server.asking import Asking
from tenured.server.passing import Passing
from tenured.server.replica import Replica
from tenured.transport.serving import Unserved

ME = Identity("demo.shop", Role.CLIENT, "me")
OUTCOMES = (NotApplied("no leader is known"), Unknown("no answer within 1 s"))


class Alone:
    """Consensus of a server that hears nobody."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome

    async def barrier(self, timeout_s: float) -> Outcome:
        await asyncio.sleep(0)
        return self.outcome


@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_resolve_does_not_say_not_found(outcome: Outcome) -> None:
    api = Api("demo.shop", Replica(), cast("Any", Alone(outcome)), cast("Any", None), registry_pb2.StatusResponse)
    with pytest.raises(Unserved, match=r"whether there is an agent shop/a"):
        await api.resolve(ME, registry_pb2.ResolveRequest(agent="shop/a"))


@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_a_lookup_by_id_does_not_say_not_found(outcome: Outcome) -> None:
    asking = Asking(Replica(), cast("Any", Alone(outcome)))
    with pytest.raises(Unserved, match=r"whether there is an agent shop/a"):
        await asking.lookup(ME, registry_pb2.LookupRequest(agent="shop/a"))


@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_a_call_waits_for_its_time_and_may_be_repeated(outcome: Outcome) -> None:
    passing = Passing("demo.shop", Replica(), Alone(outcome), cast("Any", None))
    reply = await passing.call(ME, Call(agent="shop/a", timeout_ms=100))
    assert reply.error.code != "NotFound"
    assert reply.error.retryable
    assert reply.error.outcome == OUTCOME_NOT_APPLIED
    with pytest.raises(Unserved, match=r"whether there is an agent shop/a"):
        await anext(passing.logs(ME, LogsRequest(agent="shop/a")))
