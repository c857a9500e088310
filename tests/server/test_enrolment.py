"""Enrolment with a secret, over a real server: good and bad tokens, and that the certificate is good for the rest."""

from __future__ import annotations

import pytest
from local_servers import SECRET, LocalServers

from tenure_api import identity
from tenure_proto.v1 import registry_pb2
from tenure_proto.v1.enrolment_pb2 import EnrolRequest
from tenure_proto.v1.registry_pb2_grpc import RegistryStub
from tenured.transport.enrolment import enrol
from tenured.transport.errors import PeerRefused, TransportError
from tenured.transport.tls import TlsFiles, open_channel


def request(key: identity.PrivateKey, **changes: object) -> EnrolRequest:
    fields = {"role": "client", "name": "me", "token": SECRET, "signing_request_pem": identity.signing_request(key)}
    return EnrolRequest(**{**fields, **changes})  # type: ignore[arg-type]


def addresses(servers: LocalServers) -> list[str]:
    return [server.enrol for server in servers.servers.values()]


async def test_a_good_token_gets_a_certificate_that_is_accepted(
    servers: LocalServers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    key = identity.new_key()
    pem = servers.authority.certificate_pem
    answer = await enrol(servers.cluster, ["127.0.0.1:1", *addresses(servers)], pem, request(key))
    assert answer.identity == "spiffe://demo.shop/client/me"
    assert answer.authority_pem == pem
    directory = tmp_path_factory.mktemp("enrolled")
    (directory / "ca.crt").write_bytes(answer.authority_pem)
    (directory / "tls.crt").write_bytes(answer.certificate_pem)
    (directory / "tls.key").write_bytes(identity.key_to_pem(key))
    server = next(iter(servers.servers.values()))
    channel = open_channel(server.api, identity.any_of(servers.cluster, identity.Role.SERVER), TlsFiles(directory))
    assert (await RegistryStub(channel).Status(registry_pb2.StatusRequest())).cluster == "shop/demo"
    await channel.close()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"token": "wrong"}, "The token is not the secret of this cluster"),
        ({"token": ""}, "The token is not the secret of this cluster"),
        ({"role": "server"}, "Nobody enrols as 'server'"),
        ({"role": "operator"}, "Nobody enrols as 'operator'"),
        ({"name": ""}, "names nobody"),
        ({"role": "host", "name": "a.b"}, "must be one DNS label"),
        ({"name": "UPPER"}, "cannot be the name"),
        ({"signing_request_pem": b"nonsense"}, "signing request cannot be read"),
    ],
)
async def test_what_does_not_prove_itself_is_refused_with_a_sentence(
    servers: LocalServers, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(PeerRefused, match=sentence):
        await enrol(
            servers.cluster,
            addresses(servers),
            servers.authority.certificate_pem,
            request(identity.new_key(), **changes),
        )


async def test_a_server_of_another_cluster_is_not_told_the_token(servers: LocalServers) -> None:
    other = identity.make_authority("demo.shop")
    with pytest.raises(TransportError, match="authority"):
        await enrol(servers.cluster, addresses(servers)[:1], other.certificate_pem, request(identity.new_key()))
