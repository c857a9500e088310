"""Who may ask what of a host's Calls service, before any agent is looked for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tenure_api.identity import Identity, Role
from tenure_proto.v1.calls_pb2 import CALL_KIND_CONTROL, Call
from tenure_proto.v1.common_pb2 import OUTCOME_NOT_APPLIED
from tenure_proto.v1.registry_pb2 import WatchBatch
from tenured.host.activations import Activations
from tenured.host.calls import HostCalls
from tenured.host.metrics import Metrics
from tenured.host.mirror import Mirror


def host() -> HostCalls:
    mirror = Mirror("me")
    mirror.apply(WatchBatch(revision=1, snapshot=True, synced=True))
    lease = SimpleNamespace(held=True, cluster_time=1.0)
    site = SimpleNamespace(host="h", mirror=mirror, lease=lease, metrics=Metrics())
    return HostCalls(site, Activations(site))  # type: ignore[arg-type] # in parts


@pytest.mark.parametrize(
    ("role", "code"),
    [
        (Role.CLIENT, "NotReady"),
        (Role.SERVER, "NotReady"),
        (Role.OPERATOR, "NotReady"),
        (Role.HOST, "PermissionDenied"),
    ],
)
async def test_a_host_does_not_operate_on_agents_of_another(role: Role, code: str) -> None:
    """It could read states that are not its own; users may, and servers that pass their calls on."""
    call = Call(agent="shop/none", kind=CALL_KIND_CONTROL, method="state.get", timeout_ms=1)
    reply = await host().call(Identity("main.shop", role, "x"), call)
    assert (reply.error.code, reply.error.outcome) == (code, OUTCOME_NOT_APPLIED)


async def test_a_host_that_has_not_read_of_an_agent_does_not_say_that_there_is_none() -> None:
    """Its copy of the registry may be behind the one that told the caller: a server says whether there is one."""
    call = Call(agent="shop/new", timeout_ms=1)
    error = (await host().call(Identity("main.shop", Role.CLIENT, "x"), call)).error
    assert (error.code, error.outcome, error.retryable) == ("NotReady", OUTCOME_NOT_APPLIED, True)
