"""Names and certificates: who a process is, and how the cluster's authority says so.

A cluster's id is `<name>.<namespace>`. A certificate carries one URI SAN `spiffe://<cluster id>/<role>/<holder>`;
servers and hosts also carry DNS SANs, because grpcio cannot check a URI SAN from a client (docs/architecture.md,
"Identity").

    IdentityError
    ├── MalformedName         a cluster, role or holder that cannot stand in a certificate
    ├── MalformedCertificate  not a certificate of ours: no, several, or a foreign SAN
    ├── BadSigningRequest     unreadable, or its signature does not prove possession of the key
    └── BadAuthority          certificate and key do not belong together, or it may not sign
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TypeAlias
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ENROLLED_LIFETIME = timedelta(hours=24)
"""Of what hosts and clients enrol for; renewed at two thirds."""
SERVER_LIFETIME = timedelta(days=365)
"""Of the certificates that the operator (or `tenure dev`) writes for servers."""
AUTHORITY_LIFETIME = timedelta(days=3650)

# Clocks of nodes differ a little: without it a certificate that was just signed is "not yet valid" next door.
_BACKDATE = timedelta(minutes=5)
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
# A host is a pod name and stands in a DNS SAN; a client may be any ServiceAccount name, which may hold dots.
_HOLDER = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\Z")
_SUFFIX = "tenure"

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey


class IdentityError(Exception):
    """Base of this module's errors. The message is a sentence for the user."""


class MalformedName(IdentityError):
    """A cluster, role or holder that cannot stand in a certificate."""


class MalformedCertificate(IdentityError):
    """Not a certificate of ours."""


class BadSigningRequest(IdentityError):
    """Unreadable, or its signature does not prove possession of the key."""


class BadAuthority(IdentityError):
    """Certificate and key do not belong together, or the certificate may not sign."""


class Role(StrEnum):
    """What the holder of a certificate is. Each method of each service says which roles may call it."""

    SERVER = "server"
    HOST = "host"
    OPERATOR = "operator"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a process is: one of a cluster's servers, hosts, operators or clients.

    Raises MalformedName if a part cannot stand in a certificate.
    """

    cluster: str
    role: Role
    holder: str

    def __post_init__(self) -> None:
        check_cluster_id(self.cluster)
        if not _HOLDER.match(self.holder) or len(self.dns_name) > 253:
            raise MalformedName(
                f"{self.holder!r} cannot be the name of a {self.role}: lower-case letters, digits, '-' and '.' only"
            )
        if self.role in _WITH_DNS and not _LABEL.match(self.holder):
            raise MalformedName(f"{self.holder!r} cannot be the name of a {self.role}: it must be one DNS label")

    @property
    def uri(self) -> str:
        """The URI SAN."""
        return f"spiffe://{self.cluster}/{self.role}/{self.holder}"

    @property
    def dns_name(self) -> str:
        """The DNS SAN of exactly this holder: what a client expects of the peer it dials."""
        return f"{self.holder}.{any_of(self.cluster, self.role)}"

    def __str__(self) -> str:
        return self.uri


_WITH_DNS = frozenset({Role.SERVER, Role.HOST})


@dataclass(frozen=True, slots=True)
class Authority:
    """A cluster's certificate authority: signs what the operator writes and what servers enrol."""

    certificate_pem: bytes
    key_pem: bytes
    certificate: x509.Certificate
    key: PrivateKey
    cluster: str


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with the key that was made for it."""

    certificate_pem: bytes
    key_pem: bytes


def cluster_id(namespace: str, name: str) -> str:
    """`<name>.<namespace>`. Raises MalformedName."""
    return check_cluster_id(f"{name}.{namespace}")


def cluster_id_of(slashed: str) -> str:
    """The cluster id of `NAMESPACE/NAME`, as flags and the API write it. Raises MalformedName."""
    namespace, slash, name = slashed.partition("/")
    if not slash:
        raise MalformedName(f"{slashed!r} is not a cluster: write NAMESPACE/NAME")
    return cluster_id(namespace, name)


def slashed(cluster: str) -> str:
    """`NAMESPACE/NAME` of a cluster id."""
    name, _, namespace = cluster.partition(".")
    return f"{namespace}/{name}"


def check_cluster_id(cluster: str) -> str:
    """The id itself. Raises MalformedName when it is not `<name>.<namespace>` of two DNS labels."""
    parts = cluster.split(".")
    if len(parts) != 2 or not all(_LABEL.match(part) for part in parts):
        raise MalformedName(f"{cluster!r} is not a cluster id: it is NAME.NAMESPACE, each a DNS label")
    return cluster


def any_of(cluster: str, role: Role) -> str:
    """The DNS SAN that every holder of this role in this cluster carries."""
    return f"{role}.{cluster}.{_SUFFIX}"


def new_key() -> PrivateKey:
    """A new private key (P-256)."""
    return ec.generate_private_key(ec.SECP256R1())


def key_to_pem(key: PrivateKey) -> bytes:
    """PKCS 8, not encrypted: it lives in a Secret or in the pod's own emptyDir."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def signing_request(key: PrivateKey) -> bytes:
    """A PEM request that proves possession of the key. It names nobody: the server decides who the sender is."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_common_name("tenure"))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def make_authority(cluster: str, lifetime: timedelta = AUTHORITY_LIFETIME) -> Authority:
    """A new self-signed authority for one cluster. Raises MalformedName."""
    check_cluster_id(cluster)
    key = new_key()
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _SUFFIX),
            x509.NameAttribute(NameOID.COMMON_NAME, _common_text(f"authority of {cluster}")),
        ]
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _dated(lifetime)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        # Python 3.13 verifies strictly (VERIFY_X509_STRICT): an authority without keyUsage is refused.
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{cluster}")]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return Authority(certificate_pem=pem, key_pem=key_to_pem(key), certificate=certificate, key=key, cluster=cluster)


def load_authority(certificate_pem: bytes, key_pem: bytes) -> Authority:
    """The authority kept in these two files. Raises BadAuthority."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        key = serialization.load_pem_private_key(key_pem, password=None)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        uris = _uris(certificate)
    except (ValueError, TypeError, x509.ExtensionNotFound) as error:
        raise BadAuthority(f"The authority's certificate or key cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise BadAuthority("The authority's key does not belong to its certificate.")
    if not constraints.ca or len(uris) != 1 or not uris[0].startswith("spiffe://"):
        raise BadAuthority("The authority's certificate is not one that Tenure made: it may not sign for a cluster.")
    try:
        cluster = check_cluster_id(uris[0].removeprefix("spiffe://"))
    except MalformedName as error:
        raise BadAuthority(f"The authority's certificate names no cluster: {error}") from error
    return Authority(
        certificate_pem=certificate_pem, key_pem=key_pem, certificate=certificate, key=key, cluster=cluster
    )


def issue(
    authority: Authority, signing_request_pem: bytes, role: Role, holder: str, lifetime: timedelta = ENROLLED_LIFETIME
) -> bytes:
    """A PEM certificate for the key of this request. The names in the request are ignored: `role` and `holder` count.

    Raises BadSigningRequest, MalformedName.
    """
    try:
        request = x509.load_pem_x509_csr(signing_request_pem)
        valid = request.is_signature_valid
        public_key = request.public_key()
    except (ValueError, TypeError, InvalidSignature) as error:
        raise BadSigningRequest(f"The signing request cannot be read: {error}") from error
    if not valid:
        raise BadSigningRequest("The signing request is not signed by the key that it is for.")
    if not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise BadSigningRequest("The signing request is not for an elliptic-curve key (P-256).")
    return _sign(authority, public_key, Identity(authority.cluster, role, holder), lifetime)


def issue_with_key(authority: Authority, role: Role, holder: str, lifetime: timedelta = SERVER_LIFETIME) -> Issued:
    """A certificate and a new key for it. Raises MalformedName."""
    key = new_key()
    pem = _sign(authority, key.public_key(), Identity(authority.cluster, role, holder), lifetime)
    return Issued(certificate_pem=pem, key_pem=key_to_pem(key))


def parse_uri(uri: str) -> Identity:
    """The identity of a `spiffe://` URI. Raises MalformedCertificate."""
    parts = urlsplit(uri)
    path = parts.path.split("/")
    if parts.scheme != "spiffe" or parts.query or parts.fragment or len(path) != 3:
        raise MalformedCertificate(f"{uri!r} is not an identity: it is spiffe://NAME.NAMESPACE/ROLE/HOLDER")
    try:
        return Identity(parts.netloc, Role(path[1]), path[2])
    except (ValueError, MalformedName) as error:
        raise MalformedCertificate(f"{uri!r} is not an identity: {error}") from error


def parse_identity(certificate_pem: bytes) -> Identity:
    """Who this certificate is for. Its signature is not checked here: TLS does. Raises MalformedCertificate."""
    uris = _uris(_load(certificate_pem))
    if len(uris) != 1:
        raise MalformedCertificate(f"The certificate carries {len(uris)} URI names; an identity needs exactly one.")
    return parse_uri(uris[0])


def expires(certificate_pem: bytes) -> datetime:
    """When the certificate ends (UTC). Raises MalformedCertificate."""
    return _load(certificate_pem).not_valid_after_utc


def renew_at(certificate_pem: bytes) -> datetime:
    """Two thirds into the certificate's life (UTC). Raises MalformedCertificate."""
    certificate = _load(certificate_pem)
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_before_utc + life * 2 / 3


def _load(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise MalformedCertificate(f"The certificate cannot be read: {error}") from error


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _common_text(text: str) -> str:
    return text[:64]  # the limit of X.520; for display only, identity is in the SAN


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _common_text(text))])


def _dated(lifetime: timedelta, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> x509.CertificateBuilder:
    now = clock().replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + lifetime)
    )


def _sign(
    authority: Authority, public_key: ec.EllipticCurvePublicKey, identity: Identity, lifetime: timedelta
) -> bytes:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity.uri)]
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if identity.role in _WITH_DNS:
        names += [x509.DNSName(identity.dns_name), x509.DNSName(any_of(identity.cluster, identity.role))]
        usages.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
    issuer_key = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        _dated(lifetime)
        .subject_name(_common_name(f"{identity.role} {identity.holder}"))
        .issuer_name(authority.certificate.subject)
        .public_key(public_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
