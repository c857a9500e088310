"""Three real servers and their hosts do what every runtime of agents must."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
import pytest_asyncio

import tenure
from tenure._remote import channels, sessions
from tenure.signals import Signal
from tenure.testing import Conformance
from tenure.testing._conformance import FEATURES
from tenure.testing._conformance_agents import ConformingLedger
from tenure_proto.v1 import calls_pb2
from tests.cluster.cluster_local import Local

pytestmark = pytest.mark.cluster


class TestCluster(Conformance):
    """Through the client that users have."""

    features = FEATURES
    prefix = "conforming"
    minute = 1.0
    patience = 20.0

    @pytest_asyncio.fixture(loop_scope="session")
    async def subject(
        self, local: Local, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
    ) -> AsyncIterator[tenure.AsyncClient]:
        """It finds the cluster as it finds a running `tenure dev`."""
        self.local = local
        if "survives" in request.node.name:
            self.minute = 6.0  # type: ignore[misc] # a take-over is shorter than that
        monkeypatch.setenv("XDG_STATE_HOME", local.environment["XDG_STATE_HOME"])
        async with tenure.connect() as client:
            yield client

    async def settled(self, subject: Any) -> None:
        """Signals are under way for some milliseconds: who asks for what they did asks until it is there."""

    async def advance(self, subject: Any, seconds: float) -> None:
        """Nobody can move the time of a cluster: its leader's clock is waited for."""
        end = (await self.local.cluster.status()).cluster_time + seconds
        while (await self.local.cluster.status()).cluster_time < end:  # noqa: ASYNC110 - of other processes
            await asyncio.sleep(0.02)

    async def restart(self, subject: Any) -> None:
        """`kill -9` of the host and its workers; until the agent is held again."""
        (agent,) = self.made
        before = await self.local.until(agent, lambda row: row.ready, "Ready")
        self.local.kill_host(before.host)
        await self.local.until(agent, lambda row: row.ready and row.epoch > before.epoch, "Ready again")

    async def emitted(self, subject: Any) -> Sequence[Signal]:
        """What its agents say in their logs."""
        found: list[Signal] = []
        for agent in self.made:
            async for line in self.local.remote.remote.logs(agent, tail=500):
                if line.level == "signal":
                    _, type_, data = line.text.split(" ", 2)
                    source, number = line.agent, len(found)
                    found.append(Signal(id=str(number), source=source, type=type_, data=json.loads(data)))
        return found

    async def ledger(self, subject: Any, **state: object) -> ConformingLedger:
        """Remembers whose log to read."""
        made = await super().ledger(subject, **state)
        self.made = [made.id]
        return made

    async def call_twice(
        self, subject: Any, agent: tenure.Agent[Any], instruction: tenure.Instruction[Any]
    ) -> tuple[object, object]:
        remote = self.local.remote.remote
        route = await remote.resolve(agent.id)
        here = remote.endpoint
        channel = channels.open_channel(
            route.address, here.host_name(route.host), here.authority_pem, here.certificate_pem, here.key_pem
        )
        call = calls_pb2.Call(
            agent=agent.id, kind=calls_pb2.CALL_KIND_ACTION, method=instruction.name, arguments=instruction.encode(),
            client_id="conformance", key=1, born=(await self.local.cluster.status()).cluster_time, timeout_ms=10_000,
        )  # fmt: skip
        session = sessions.Session(channel, "test")
        try:
            replies = [await session.send(call) for _ in range(2)]
        finally:
            await session.close()
            await channel.close()
        assert [reply.recorded for reply in replies] == [False, True]
        return msgspec.msgpack.decode(replies[0].value), msgspec.msgpack.decode(replies[1].value)
