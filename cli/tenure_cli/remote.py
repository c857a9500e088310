"""`tenure_cli.ports.Cluster` over the SDK's client."""

from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from tenure import errors
from tenure._remote import Endpoint, Remote
from tenure_cli.errors import CliError, Unreachable
from tenure_cli.ports import CallResult, Rows
from tenure_proto.v1 import calls_pb2, registry_pb2

ASK_S = 6.0
"""How long a read of the registry may take before the command fails: longer than an election."""


class RemoteCluster:
    """One connection. `remote` is the SDK's, for what only tests and benches need."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.remote = Remote(endpoint)

    async def close(self) -> None:
        """End all streams."""
        await self.remote.close()

    async def status(self) -> registry_pb2.StatusResponse:
        """Who leads, which servers are up."""
        with self._reading():
            return await self.remote.status(timeout_s=ASK_S)

    async def statuses(self) -> Sequence[registry_pb2.StatusResponse]:
        """The same from every server that can be reached from here."""
        return await self.remote.statuses()

    async def watch(self) -> AsyncIterator[Rows]:
        """The registry: complete at first, then again after each change."""
        rows, complete = Rows(), False
        with self._reading():
            async for batch in self.remote.watch(patience_s=ASK_S):
                rows.merge(batch)
                # After a reconnect a snapshot comes again, perhaps in pieces: half of it is shown to nobody.
                complete = (complete and not batch.snapshot) or batch.synced
                if complete:
                    yield rows

    async def explain(self, agent: str) -> registry_pb2.ExplainResponse:
        """Why an agent is where it is, or nowhere."""
        with self._reading():
            return await self.remote.explain(agent, timeout_s=ASK_S)

    async def dry_run(self, spec: registry_pb2.AgentSpec) -> registry_pb2.DryRunResponse:
        """Where an agent would be placed now; changes nothing."""
        with self._reading():
            return await self.remote.dry_run(spec, timeout_s=ASK_S)

    async def resources(self) -> registry_pb2.ResourcesResponse:
        """Capacity, use and reservations, by node and in all."""
        with self._reading():
            return await self.remote.resources(timeout_s=ASK_S)

    async def decisions(self, host: str, limit: int) -> registry_pb2.DecisionsResponse:
        """The last placements of the cluster, or of one host, the newest first."""
        with self._reading():
            return await self.remote.decisions(host, limit, timeout_s=ASK_S)

    async def quarantine(self, host: str, reason: str) -> registry_pb2.QuarantineResponse:
        """Place nothing new on a host; an empty reason lifts that."""
        return await self.remote.quarantine(host, reason)

    @contextmanager
    def _reading(self) -> Generator[None]:
        """A read has no outcome that could be unknown: what went wrong is that nobody answered."""
        try:
            yield
        except (errors.Unavailable, errors.DeadlineExceeded) as error:
            raise unreachable(self.remote.endpoint, error.message) from error

    async def failovers(self) -> registry_pb2.FailoversResponse:
        """The last losses of hosts."""
        with self._reading():
            return await self.remote.failovers(timeout_s=ASK_S)

    async def confirm_failover(self, hosts: Sequence[str]) -> registry_pb2.ConfirmFailoverResponse:
        """Say that hosts are gone whose failover is held back."""
        return await self.remote.confirm_failover(hosts)

    async def apply_agents(self, specs: Sequence[registry_pb2.AgentSpec]) -> Sequence[registry_pb2.RowResult]:
        """Create or change agents; one result each, in their order."""
        return await self.remote.apply_agents(specs)

    async def delete_agents(self, ids: Sequence[str]) -> Sequence[registry_pb2.RowResult]:
        """Stop agents and remove them."""
        return await self.remote.delete_agents(ids)

    async def apply_pools(self, pools: Sequence[registry_pb2.PoolSpec]) -> None:
        """Declare the whole set of pools."""
        await self.remote.apply_pools(pools)

    async def call(self, agent: str, method: str, arguments: Mapping[str, Any], timeout_s: float) -> CallResult:
        """Call an action or a query by its name."""
        packed = msgspec.msgpack.encode(arguments)
        reply = await self.remote.call(agent, "by_name", method, packed, timeout_s=timeout_s)
        return CallResult(msgspec.msgpack.decode(reply.value), reply.host, reply.epoch, reply.recorded)

    async def control(self, agent: str, method: str, arguments: Mapping[str, Any], timeout_s: float) -> Any:
        """An operation on an agent by its holder's host."""
        return await self.remote.control(agent, method, arguments, timeout_s=timeout_s)

    def logs(self, agent: str, tail: int, *, follow: bool) -> AsyncIterator[calls_pb2.LogLine]:
        """What the agent logged."""
        return self.remote.logs(agent, tail=tail, follow=follow)


def check(endpoint: Endpoint) -> None:
    """Raises CliError when the certificate is of another cluster than the authority.

    The server would refuse it too, but in TLS 1.3 it closes the connection without a word that reaches us.
    """
    if not fits(endpoint.certificate_pem, endpoint.authority_pem):
        raise CliError(
            f"The client's certificate is not one of {endpoint.cluster}: another authority signed it.",
            "Take ca.crt, tls.crt and tls.key of this cluster (TENURE_TLS), or let `tenure` find it by --context.",
        )


def unreachable(endpoint: Endpoint, details: str) -> Unreachable:
    """No server answered: in one sentence, with the addresses."""
    return Unreachable(
        f"No server of {endpoint.cluster} answers at {', '.join(endpoint.servers)}: {details}",
        "Check the address and that the servers run; `tenure -v doctor` says which context was chosen.",
    )


def fits(certificate_pem: bytes, authority_pem: bytes) -> bool:
    """Whether the authority signed the certificate."""
    try:
        authority = x509.load_pem_x509_certificate(authority_pem)
        x509.load_pem_x509_certificate(certificate_pem).verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
