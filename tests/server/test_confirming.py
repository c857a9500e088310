"""An operator's word over the wire: only for hosts whose failover is held back, and never twice."""

from __future__ import annotations

import grpc
import pytest
from grpc import aio

from tenure_proto.v1 import registry_pb2
from tenure_proto.v1.registry_pb2_grpc import RegistryStub


async def test_a_host_that_is_not_held_back_is_named_in_the_refusal(registry: RegistryStub) -> None:
    with pytest.raises(aio.AioRpcError) as refused:
        await registry.ConfirmFailover(registry_pb2.ConfirmFailoverRequest(hosts=["nobody"], command_id="confirm-1"))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "the failover of nobody is not held back" in (refused.value.details() or "")


async def test_with_nothing_held_back_nothing_is_confirmed(registry: RegistryStub) -> None:
    answer = await registry.ConfirmFailover(registry_pb2.ConfirmFailoverRequest(command_id="confirm-2"))
    assert list(answer.hosts) == []
    records = await registry.Failovers(registry_pb2.FailoversRequest())
    assert records.revision >= answer.revision
