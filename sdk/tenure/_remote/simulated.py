"""The client of a simulated cluster: `Remote` itself, over channels of the simulation (`tenure.testing`)."""

from __future__ import annotations

from collections.abc import Callable

from tenure._remote.channels import Channel
from tenure._remote.cluster import Remote
from tenure._remote.endpoint import Endpoint


class SimulatedRemote(Remote):
    """Dials machines by their names; its call ids are the same in each run."""

    def __init__(
        self, servers: tuple[str, ...], open_channel: Callable[[str], Channel], client_id: str, timeout_s: float
    ) -> None:
        super().__init__(Endpoint("default/simulation", servers, b"", b"", b""), timeout_s=timeout_s)
        self._client_id = client_id
        self._open_channel = open_channel

    @property
    def next_call(self) -> str:
        """Id of the next call."""
        return f"{self._client_id}/{self._next_key + 1}"

    def _channel(self, address: str, expected: str) -> Channel:  # noqa: ARG002 - certificates are not simulated
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = self._open_channel(address)
        return channel
