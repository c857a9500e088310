"""The `Registry` service as a server offers it, and the watch as a host uses it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from grpc import aio

from tenure_api.identity import Identity
from tenure_proto.v1.registry_pb2 import (
    ApplyAgentsRequest,
    ApplyAgentsResponse,
    ApplyClusterRequest,
    ApplyClusterResponse,
    ConfirmFailoverRequest,
    ConfirmFailoverResponse,
    DecisionsRequest,
    DecisionsResponse,
    DeleteAgentsRequest,
    DeleteAgentsResponse,
    DryRunRequest,
    DryRunResponse,
    ExplainRequest,
    ExplainResponse,
    FailoversRequest,
    FailoversResponse,
    LookupRequest,
    LookupResponse,
    QuarantineRequest,
    QuarantineResponse,
    ReserveRequest,
    ReserveResponse,
    ResolveRequest,
    ResolveResponse,
    ResourcesRequest,
    ResourcesResponse,
    SetNodesRequest,
    SetNodesResponse,
    StatusRequest,
    StatusResponse,
    UnreserveRequest,
    UnreserveResponse,
    WatchBatch,
    WatchRequest,
)
from tenured.transport.errors import wrap
from tenured.transport.serving import EncodedStream, Method, server_stream, unary
from tenured.transport.tls import TlsFiles, open_channel

_SERVICE = "/tenure.v1.Registry/"
WATCH = f"{_SERVICE}Watch"


class RegistryHandler(Protocol):
    """What a server of `Registry` does. Each may raise serving.Refusal."""

    async def apply_agents(self, peer: Identity, request: ApplyAgentsRequest, /) -> ApplyAgentsResponse:
        """Create or change rows."""
        ...

    async def delete_agents(self, peer: Identity, request: DeleteAgentsRequest, /) -> DeleteAgentsResponse:
        """Mark rows for deletion; they go when their holder has stopped them."""
        ...

    async def apply_cluster(self, peer: Identity, request: ApplyClusterRequest, /) -> ApplyClusterResponse:
        """Set the pools."""
        ...

    async def set_nodes(self, peer: Identity, request: SetNodesRequest, /) -> SetNodesResponse:
        """Set which nodes take new agents."""
        ...

    async def resolve(self, peer: Identity, request: ResolveRequest, /) -> ResolveResponse:
        """Where an agent is; long poll."""
        ...

    async def status(self, peer: Identity, request: StatusRequest, /) -> StatusResponse:
        """The cluster as this server sees it."""
        ...

    async def lookup(self, peer: Identity, request: LookupRequest, /) -> LookupResponse:
        """Agents by id, capability, node or labels."""
        ...

    async def failovers(self, peer: Identity, request: FailoversRequest, /) -> FailoversResponse:
        """The last losses of hosts."""
        ...

    async def confirm_failover(self, peer: Identity, request: ConfirmFailoverRequest, /) -> ConfirmFailoverResponse:
        """Take an operator's word that silent hosts are gone."""
        ...

    async def reserve(self, peer: Identity, request: ReserveRequest, /) -> ReserveResponse:
        """Keep room on a host."""
        ...

    async def unreserve(self, peer: Identity, request: UnreserveRequest, /) -> UnreserveResponse:
        """Give it back."""
        ...

    async def watch(self, peer: Identity, request: WatchRequest, stream: EncodedStream, /) -> None:
        """A snapshot, then deltas, until the stream ends."""
        ...


def methods(handler: RegistryHandler) -> list[Method]:
    """The whole service, for the API listener."""
    return [
        unary(f"{_SERVICE}ApplyAgents", ApplyAgentsRequest, handler.apply_agents),
        unary(f"{_SERVICE}DeleteAgents", DeleteAgentsRequest, handler.delete_agents),
        unary(f"{_SERVICE}ApplyCluster", ApplyClusterRequest, handler.apply_cluster),
        unary(f"{_SERVICE}SetNodes", SetNodesRequest, handler.set_nodes),
        unary(f"{_SERVICE}Status", StatusRequest, handler.status),
        unary(f"{_SERVICE}Lookup", LookupRequest, handler.lookup),
        unary(f"{_SERVICE}Failovers", FailoversRequest, handler.failovers),
        unary(f"{_SERVICE}ConfirmFailover", ConfirmFailoverRequest, handler.confirm_failover),
        unary(f"{_SERVICE}Reserve", ReserveRequest, handler.reserve),
        unary(f"{_SERVICE}Unreserve", UnreserveRequest, handler.unreserve),
        *host_methods(handler),
    ]


class PlacementHandler(Protocol):
    """Placement as users ask about it. Each may raise serving.Refusal."""

    async def explain(self, peer: Identity, request: ExplainRequest, /) -> ExplainResponse:
        """Why an agent is where it is, or nowhere."""
        ...

    async def dry_run(self, peer: Identity, request: DryRunRequest, /) -> DryRunResponse:
        """Where an agent would go; changes nothing."""
        ...

    async def resources(self, peer: Identity, request: ResourcesRequest, /) -> ResourcesResponse:
        """Capacity, use and reservations."""
        ...

    async def decisions(self, peer: Identity, request: DecisionsRequest, /) -> DecisionsResponse:
        """The last placements of the cluster."""
        ...

    async def quarantine(self, peer: Identity, request: QuarantineRequest, /) -> QuarantineResponse:
        """Place nothing new on a host, or lift that."""
        ...


def placement_methods(handler: PlacementHandler) -> list[Method]:
    """The part of the service that is about placement, for the API listener."""
    return [
        unary(f"{_SERVICE}Explain", ExplainRequest, handler.explain),
        unary(f"{_SERVICE}DryRun", DryRunRequest, handler.dry_run),
        unary(f"{_SERVICE}Resources", ResourcesRequest, handler.resources),
        unary(f"{_SERVICE}Decisions", DecisionsRequest, handler.decisions),
        unary(f"{_SERVICE}Quarantine", QuarantineRequest, handler.quarantine),
    ]


def host_methods(handler: RegistryHandler) -> list[Method]:
    """What hosts may use of it, for the peer listener."""
    return [
        unary(f"{_SERVICE}Resolve", ResolveRequest, handler.resolve),
        server_stream(WATCH, WatchRequest, handler.watch),
    ]


async def watch(address: str, expected: str, files: TlsFiles, request: WatchRequest) -> AsyncGenerator[WatchBatch]:
    """One watch of one server until it ends; resume elsewhere from the last revision seen. Raises TransportError."""
    channel = open_channel(address, expected, files)
    try:
        method: aio.UnaryStreamMultiCallable[WatchRequest, WatchBatch] = channel.unary_stream(
            WATCH, WatchRequest.SerializeToString, WatchBatch.FromString
        )
        async for batch in method(request):
            yield batch
    except aio.AioRpcError as error:
        raise wrap(error, address, sent=True) from error
    finally:
        await channel.close()
