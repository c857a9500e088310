"""The revision that an answer names is not older than the change: who watches from it on misses nothing of its own.

Found by the crash tests under load: the answer of a server that had passed a change on named its own, older revision.
"""

from typing import Any, cast

import pytest

from tenure_api.identity import Identity, Role
from tenure_proto.v1 import registry_pb2
from tenured.core import results
from tenured.raft import Applied, Outcome
from tenured.server.api import Api
from tenured.server.replica import Replica

ME = Identity("demo.shop", Role.CLIENT, "me")
DOOR = registry_pb2.MANAGED_BY_API


class Elsewhere:
    """The leader has applied it, as its 41st and 42nd row; this server has seen nothing of it yet."""

    def __init__(self) -> None:
        self.revision = 40

    async def propose(self, command: bytes, timeout_s: float) -> Outcome:
        self.revision += 1
        row = results.RowResult("shop/a", "7", "configured")
        return Applied(self.revision, results.encode(results.Result(revision=self.revision, rows=(row,))))


@pytest.fixture
def behind() -> Api:
    return Api("demo.shop", Replica(), cast("Any", Elsewhere()), cast("Any", None), registry_pb2.StatusResponse)


async def test_of_an_apply(behind: Api) -> None:
    spec = registry_pb2.AgentSpec(id="shop/a", pool="default")
    request = registry_pb2.ApplyAgentsRequest(agents=[spec], managed_by=DOOR)
    assert (await behind.apply_agents(ME, request)).revision == 41


async def test_of_a_deletion_in_several_commands(behind: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenured.server.api._ROWS_A_COMMAND", 1)
    request = registry_pb2.DeleteAgentsRequest(ids=["shop/a", "shop/b"], managed_by=DOOR)
    assert (await behind.delete_agents(ME, request)).revision == 42
