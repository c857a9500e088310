"""The client of a simulated cluster: `Remote` itself, over channels of the simulation (`tenure.testing`)."""

from __future__ import annotations

from collections.abc import Callable

from tenure._instruction import Kind
from tenure._remote.callids import CallIds
from tenure._remote.channels import Channel
from tenure._remote.cluster import Remote
from tenure._remote.endpoint import Endpoint
from tenure_proto.v1 import common_pb2


class SimulatedRemote(Remote):
    """Dials machines by their names; its call ids are the same in each run."""

    def __init__(
        self, servers: tuple[str, ...], open_channel: Callable[[str], Channel], client_id: str, timeout_s: float
    ) -> None:
        super().__init__(Endpoint("default/simulation", servers, b"", b"", b""), timeout_s=timeout_s)
        self._ids = CallIds(client_id)
        self._open_channel = open_channel

    def next_call(self, agent_id: str, kind: Kind) -> str:
        """Id of the next call."""
        client_id, key = self._ids.peek(agent_id, query=kind == "query")
        return f"{client_id}/{key}"

    def _frames_of(self, route: common_pb2.Route) -> str:  # noqa: ARG002 - there is one way to a machine
        return ""

    def _channel(self, address: str, expected: str) -> Channel:  # noqa: ARG002 - certificates are not simulated
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = self._open_channel(address)
        return channel
