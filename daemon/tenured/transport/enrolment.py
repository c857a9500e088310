"""Enrolment: the service on 7446 and its client, which proves who it is by a token and gets a certificate."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from grpc import aio

from tenure_api.identity import Identity, Role, any_of
from tenure_proto.v1.enrolment_pb2 import EnrolRequest, EnrolResponse
from tenured.transport.errors import PeerRefused, TransportError, wrap
from tenured.transport.serving import Method, unary
from tenured.transport.tls import open_anonymous_channel

ENROL = "/tenure.v1.Enrolment/Enrol"
_ATTEMPT_TIMEOUT_S = 5.0


def method(handler: Callable[[EnrolRequest], Awaitable[EnrolResponse]]) -> Method:
    """The service, for a listener that asks for no certificate."""

    async def enrol(_: Identity, request: EnrolRequest) -> EnrolResponse:
        return await handler(request)

    return unary(ENROL, EnrolRequest, enrol)


async def enrol(cluster: str, addresses: Sequence[str], authority_pem: bytes, request: EnrolRequest) -> EnrolResponse:
    """Ask each server in turn for a certificate.

    Raises PeerRefused when a server says no, TransportError when none answers.
    """
    failures: list[str] = []
    for address in addresses:
        try:
            response = await _ask(cluster, address, authority_pem, request)
        except TransportError as error:
            failures.append(str(error))
            continue
        if response.HasField("error"):
            if response.error.retryable:
                failures.append(f"{address}: {response.error.message}")
                continue
            raise PeerRefused(f"{response.error.message} {response.error.next_step}".strip())
        return response
    raise TransportError(f"No server enrolled us: {'; '.join(failures)}")


async def _ask(cluster: str, address: str, authority_pem: bytes, request: EnrolRequest) -> EnrolResponse:
    channel = open_anonymous_channel(address, any_of(cluster, Role.SERVER), authority_pem)
    try:
        method: aio.UnaryUnaryMultiCallable[EnrolRequest, EnrolResponse] = channel.unary_unary(
            ENROL, EnrolRequest.SerializeToString, EnrolResponse.FromString
        )
        return await method(request, timeout=_ATTEMPT_TIMEOUT_S)
    except aio.AioRpcError as error:
        raise wrap(error, address, sent=True) from error
    finally:
        await channel.close()
