"""Names and certificates: what is issued, what is read back, and what is refused."""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tenure_api import identity
from tenure_api.identity import Identity, Role


@pytest.fixture(scope="module")
def authority() -> identity.Authority:
    return identity.make_authority("demo.shop")


def names(pem: bytes) -> x509.SubjectAlternativeName:
    certificate = x509.load_pem_x509_certificate(pem)
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_an_identity_is_read_back_from_its_certificate(authority: identity.Authority) -> None:
    for role in Role:
        issued = identity.issue_with_key(authority, role, "node-a")
        assert identity.parse_identity(issued.certificate_pem) == Identity("demo.shop", role, "node-a")


def test_servers_and_hosts_carry_dns_names_and_others_do_not(authority: identity.Authority) -> None:
    server = names(identity.issue_with_key(authority, Role.SERVER, "demo-server-0").certificate_pem)
    assert server.get_values_for_type(x509.DNSName) == [
        "demo-server-0.server.demo.shop.tenure",
        "server.demo.shop.tenure",
    ]
    client = names(identity.issue_with_key(authority, Role.CLIENT, "me").certificate_pem)
    assert client.get_values_for_type(x509.DNSName) == []


def test_what_is_issued_passes_strict_verification(authority: identity.Authority, tmp_path: Path) -> None:
    """What Python 3.13 does by default: an authority without keyUsage, or a leaf without key identifiers, fails."""
    issued = identity.issue_with_key(authority, Role.SERVER, "s0")
    for name, data in (("ca", authority.certificate_pem), ("crt", issued.certificate_pem), ("key", issued.key_pem)):
        (tmp_path / name).write_bytes(data)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    client = ssl.create_default_context(cafile=str(tmp_path / "ca"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    left = client.wrap_bio(to_client, to_server, server_hostname="s0.server.demo.shop.tenure")
    right = server.wrap_bio(to_server, to_client, server_side=True)
    done = False
    while not done:
        done = True
        for side in (left, right):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                done = False


def test_a_request_is_signed_for_whom_the_server_says_not_for_whom_it_names(authority: identity.Authority) -> None:
    request = identity.signing_request(identity.new_key())
    pem = identity.issue(authority, request, Role.HOST, "pod-1")
    assert identity.parse_identity(pem).uri == "spiffe://demo.shop/host/pod-1"
    life = identity.expires(pem) - x509.load_pem_x509_certificate(pem).not_valid_before_utc
    assert timedelta(hours=24) <= life <= timedelta(hours=25)
    assert identity.renew_at(pem) < identity.expires(pem) - timedelta(hours=7)


def test_a_request_must_prove_possession_of_its_key(authority: identity.Authority) -> None:
    request = x509.load_pem_x509_csr(identity.signing_request(identity.new_key()))
    forged = bytearray(request.public_bytes(Encoding.DER))
    forged[-1] ^= 1
    pem = x509.load_der_x509_csr(bytes(forged)).public_bytes(Encoding.PEM)
    with pytest.raises(identity.BadSigningRequest):
        identity.issue(authority, pem, Role.HOST, "pod-1")


@pytest.mark.parametrize("request_pem", [b"", b"nonsense", b"-----BEGIN CERTIFICATE REQUEST-----\n"])
def test_an_unreadable_request_is_refused(authority: identity.Authority, request_pem: bytes) -> None:
    with pytest.raises(identity.BadSigningRequest):
        identity.issue(authority, request_pem, Role.HOST, "pod-1")


def test_other_kinds_of_keys_are_refused(authority: identity.Authority) -> None:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    with pytest.raises(identity.BadSigningRequest, match="P-256"):
        identity.issue(authority, request.public_bytes(Encoding.PEM), Role.HOST, "pod-1")


@pytest.mark.parametrize(
    ("cluster", "role", "holder"),
    [
        ("demo", Role.HOST, "a"),
        ("demo.shop.x", Role.HOST, "a"),
        ("Demo.shop", Role.HOST, "a"),
        ("demo.shop", Role.HOST, ""),
        ("demo.shop", Role.HOST, "a/b"),
        ("demo.shop", Role.HOST, "a.b"),
        ("demo.shop", Role.SERVER, "-a"),
        ("demo.shop", Role.CLIENT, "a b"),
        ("demo.shop", Role.CLIENT, "x" * 300),
    ],
)
def test_names_that_cannot_stand_in_a_certificate_are_refused(cluster: str, role: Role, holder: str) -> None:
    with pytest.raises(identity.MalformedName):
        Identity(cluster, role, holder)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "https://demo.shop/host/a",
        "spiffe://demo.shop/host",
        "spiffe://demo.shop/host/a/b",
        "spiffe://demo.shop/host/a?x",
    ],
)
def test_other_uris_are_no_identities(uri: str) -> None:
    with pytest.raises(identity.MalformedCertificate):
        identity.parse_uri(uri)


def test_an_authority_is_read_back(authority: identity.Authority) -> None:
    again = identity.load_authority(authority.certificate_pem, authority.key_pem)
    assert again.cluster == "demo.shop"
    with pytest.raises(identity.MalformedCertificate):
        identity.parse_identity(authority.certificate_pem)


def test_an_authority_with_another_key_or_a_leaf_is_refused(authority: identity.Authority) -> None:
    other = identity.make_authority("demo.shop")
    with pytest.raises(identity.BadAuthority, match="does not belong"):
        identity.load_authority(authority.certificate_pem, other.key_pem)
    leaf = identity.issue_with_key(authority, Role.SERVER, "s0")
    with pytest.raises(identity.BadAuthority, match="may not sign"):
        identity.load_authority(leaf.certificate_pem, leaf.key_pem)


def test_cluster_ids() -> None:
    assert identity.cluster_id_of("shop/demo") == "demo.shop"
    assert identity.slashed("demo.shop") == "shop/demo"
    with pytest.raises(identity.MalformedName):
        identity.cluster_id_of("demo")
