"""Who may call what: every method of every port, against every role, and certificates of another cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping

import grpc
import pytest
from grpc import aio

from tenure_api.identity import Identity, Role
from tenure_proto.v1.registry_pb2 import StatusRequest, StatusResponse
from tenured.transport import roles
from tenured.transport.errors import NotConnected, PeerRefused, wrap
from tenured.transport.serving import Listener, judge, unary
from tenured.transport.tls import TlsFiles, open_channel

CLUSTER = "demo.shop"
STATUS = "/tenure.v1.Registry/Status"
USERS = {Role.CLIENT, Role.OPERATOR}

TABLE: Mapping[str, tuple[Mapping[str, frozenset[Role]], Mapping[str, set[Role]]]] = {
    "7443": (
        roles.SERVER_API,
        {
            "Registry/ApplyAgents": USERS,
            "Registry/DeleteAgents": USERS,
            "Registry/ApplyCluster": {Role.OPERATOR},
            "Registry/SetNodes": {Role.OPERATOR},
            "Registry/Resolve": USERS | {Role.HOST},
            "Registry/Watch": USERS | {Role.HOST},
            "Registry/Status": USERS,
            "Registry/Lookup": USERS,
            "Registry/Failovers": USERS,
            "Registry/ConfirmFailover": USERS,
            "Registry/Explain": USERS,
            "Registry/DryRun": USERS,
            "Registry/Resources": USERS,
            "Registry/Decisions": USERS,
            "Registry/Quarantine": USERS,
            "Registry/Reserve": USERS,
            "Registry/Unreserve": USERS,
            "Changes/Stream": USERS,
            "Calls/Session": USERS,
            "Calls/Logs": USERS,
        },
    ),
    "7444": (
        roles.SERVER_PEERS,
        {
            "Store/List": {Role.SERVER},
            "Store/Fetch": {Role.SERVER},
            "HostLink/Connect": {Role.HOST},
            "Registry/Watch": {Role.HOST},
            "Registry/Resolve": {Role.HOST},
        },
    ),
    "7445": (
        roles.HOST_CALLS,
        {"Calls/Session": {Role.CLIENT, Role.SERVER, Role.HOST}, "Calls/Logs": {Role.CLIENT, Role.SERVER}},
    ),
}


@pytest.mark.parametrize("port", TABLE)
@pytest.mark.parametrize("role", list(Role))
def test_every_method_admits_exactly_its_roles(port: str, role: Role) -> None:
    table, expected = TABLE[port]
    assert {path.removeprefix("/tenure.v1.") for path in table} == set(expected)
    for path, allowed in table.items():
        identity, reason = judge([f"spiffe://{CLUSTER}/{role}/x"], CLUSTER, path, allowed)
        if role in expected[path.removeprefix("/tenure.v1.")]:
            assert identity == Identity(CLUSTER, role, "x")
        else:
            assert identity is None
            assert f"is a {role}" in reason


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ([], "carries 0 identities"),
        (["spiffe://demo.shop/host/a", "spiffe://demo.shop/server/a"], "carries 2 identities"),
        (["spiffe://other.shop/host/a"], "belongs to cluster other.shop; this is cluster demo.shop"),
        (["spiffe://demo.shop/king/a"], "not an identity"),
    ],
)
def test_a_certificate_that_does_not_fit_is_refused_with_a_sentence(names: list[str], sentence: str) -> None:
    identity, reason = judge(names, CLUSTER, STATUS, frozenset(Role))
    assert identity is None
    assert sentence in reason


async def status(address: str, files: TlsFiles, expected: str) -> StatusResponse:
    channel = open_channel(address, expected, files)
    method: aio.UnaryUnaryMultiCallable[StatusRequest, StatusResponse] = channel.unary_unary(
        STATUS, StatusRequest.SerializeToString, StatusResponse.FromString
    )
    try:
        return await method(StatusRequest(), timeout=5)
    except aio.AioRpcError as error:
        raise wrap(error, address, sent=True) from error
    finally:
        await channel.close()


@pytest.fixture
async def address(certificates: Callable[..., TlsFiles]) -> AsyncIterator[str]:
    """A listener whose Status answers with who asked."""

    async def answer(peer: Identity, _: StatusRequest) -> StatusResponse:
        return StatusResponse(answered_by=peer.uri)

    listener = Listener(certificates("server", "s0"), CLUSTER, [unary(STATUS, StatusRequest, answer)], roles.SERVER_API)
    await listener.start("127.0.0.1", 0)
    yield f"127.0.0.1:{listener.port}"
    await listener.stop()


SERVER = Identity(CLUSTER, Role.SERVER, "s0").dns_name


async def test_the_handler_sees_the_identity_in_the_certificate(
    address: str, certificates: Callable[..., TlsFiles]
) -> None:
    answer = await status(address, certificates("client", "me"), SERVER)
    assert answer.answered_by == "spiffe://demo.shop/client/me"


async def test_a_wrong_role_is_refused(address: str, certificates: Callable[..., TlsFiles]) -> None:
    with pytest.raises(PeerRefused, match=r"is a host; .* may be called by client or operator"):
        await status(address, certificates("host", "h0"), SERVER)


async def test_a_certificate_of_another_authority_gets_no_connection(
    address: str, certificates: Callable[..., TlsFiles]
) -> None:
    with pytest.raises(NotConnected, match="authority"):
        await status(address, certificates("client", "me", "other.shop"), SERVER)


async def test_another_cluster_of_the_same_authority_is_refused(
    address: str, certificates: Callable[..., TlsFiles]
) -> None:
    """Two clusters may share an authority by mistake; the identity decides, not the signature alone."""
    from tenure_api import identity as identities

    authority = certificates.authority()
    foreign = identities.Authority(
        authority.certificate_pem, authority.key_pem, authority.certificate, authority.key, "other.shop"
    )
    files = certificates("client", "stranger")
    issued = identities.issue_with_key(foreign, Role.CLIENT, "stranger")
    (files.directory / "tls.crt").write_bytes(issued.certificate_pem)
    (files.directory / "tls.key").write_bytes(issued.key_pem)
    with pytest.raises(PeerRefused, match=r"belongs to cluster other\.shop"):
        await status(address, files, SERVER)


async def test_a_server_that_is_not_the_expected_one_is_not_spoken_to(
    address: str, certificates: Callable[..., TlsFiles]
) -> None:
    with pytest.raises(NotConnected):
        await status(address, certificates("client", "me"), Identity(CLUSTER, Role.SERVER, "s1").dns_name)


async def test_a_method_without_a_row_is_refused_to_everybody(certificates: Callable[..., TlsFiles]) -> None:
    async def answer(peer: Identity, _: StatusRequest) -> StatusResponse:
        return StatusResponse(answered_by=peer.uri)

    listener = Listener(certificates("server", "s0"), CLUSTER, [unary(STATUS, StatusRequest, answer)], {})
    await listener.start("127.0.0.1", 0)
    with pytest.raises(PeerRefused, match="may be called by nobody"):
        await status(f"127.0.0.1:{listener.port}", certificates("client", "me"), SERVER)
    await listener.stop()


async def test_renewed_files_serve_new_connections(certificates: Callable[..., TlsFiles], address: str) -> None:
    """Reissue under the same authority: a new handshake gets the new certificate, with no restart."""
    import shutil
    import ssl

    from tenure_api import identity as identities

    own = certificates("server", "rotating")

    async def answer(peer: Identity, _: StatusRequest) -> StatusResponse:
        return StatusResponse(answered_by=peer.uri)

    listener = Listener(own, CLUSTER, [unary(STATUS, StatusRequest, answer)], roles.SERVER_API)
    await listener.start("127.0.0.1", 0)
    before = own.read().certificate
    issued = identities.issue_with_key(certificates.authority(), Role.SERVER, "rotating")
    (own.directory / "tls.crt").write_bytes(issued.certificate_pem)
    (own.directory / "tls.key").write_bytes(issued.key_pem)
    expected = Identity(CLUSTER, Role.SERVER, "rotating").dns_name
    await status(f"127.0.0.1:{listener.port}", certificates("client", "me"), expected)
    assert before != own.read().certificate
    served = await peer_certificate(listener.port, certificates("client", "me"), expected)
    assert ssl.DER_cert_to_PEM_cert(served).encode().strip() == issued.certificate_pem.strip()
    await listener.stop()
    shutil.rmtree(own.directory)


async def peer_certificate(port: int, files: TlsFiles, expected: str) -> bytes:
    """The certificate that the listener presents now."""
    import asyncio
    import socket
    import ssl

    def fetch() -> bytes:
        context = ssl.create_default_context(cafile=str(files.directory / "ca.crt"))
        context.load_cert_chain(files.directory / "tls.crt", files.directory / "tls.key")
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # what Python 3.13 does by default
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=expected) as secure,
        ):
            return secure.getpeercert(binary_form=True) or b""

    return await asyncio.to_thread(fetch)


def test_statuses_of_grpc_become_typed_errors() -> None:
    def error(code: grpc.StatusCode, details: str) -> aio.AioRpcError:
        return aio.AioRpcError(code, aio.Metadata(), aio.Metadata(), details)

    assert type(wrap(error(grpc.StatusCode.UNAVAILABLE, "refused"), "s0", sent=False)).__name__ == "NotConnected"
    assert type(wrap(error(grpc.StatusCode.UNAVAILABLE, "reset"), "s0", sent=True)).__name__ == "LinkLost"
    assert type(wrap(error(grpc.StatusCode.DEADLINE_EXCEEDED, ""), "s0", sent=True)).__name__ == "TimedOut"
    assert type(wrap(error(grpc.StatusCode.PERMISSION_DENIED, "no"), "s0", sent=True)).__name__ == "PeerRefused"
