"""Secret `<cluster>-ca` (the authority), ConfigMap `<cluster>-ca` (its certificate), Secret `<cluster>-server-tls`.

The authority is made once and never written over: every certificate out there hangs on it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from datetime import datetime

from tenure_api import identity
from tenure_api.model import Json
from tenure_operator.resources.cluster import Cluster


class BadSecret(Exception):
    """A Secret that we did not write, or that somebody spoiled. The message is a sentence."""


@dataclass(frozen=True, slots=True)
class ServerCertificates:
    """Of all servers of a cluster."""

    data: dict[str, bytes]
    """File name -> PEM: `ca.crt`, `<server>.crt`, `<server>.key`."""

    @property
    def digest(self) -> str:
        """Changes with every certificate, so that servers restart with the new ones."""
        return hashlib.sha256(b"".join(self.data[name] for name in sorted(self.data))).hexdigest()[:16]

    @property
    def expire(self) -> datetime:
        """When the first of them ends."""
        return min(identity.expires(pem) for name, pem in self.data.items() if _is_server(name))


def new_authority(cluster: Cluster) -> Json:
    """The manifest of a new authority's Secret."""
    made = identity.make_authority(identity.cluster_id(cluster.namespace, cluster.name))
    return _secret(cluster, cluster.authority_name, {"ca.crt": made.certificate_pem, "ca.key": made.key_pem})


def read_authority(secret: Json, cluster_id: str) -> identity.Authority:
    """The authority in its Secret. Raises BadSecret: it is not replaced, a user must decide."""
    try:
        data = _decoded(secret)
        authority = identity.load_authority(data["ca.crt"], data["ca.key"])
    except (KeyError, binascii.Error, identity.IdentityError) as error:
        name = secret["metadata"]["name"]
        raise BadSecret(f"Secret {name} does not hold a usable authority: {error}") from error
    if authority.cluster != cluster_id:
        raise BadSecret(
            f"Secret {secret['metadata']['name']} holds the authority of {authority.cluster}, not of {cluster_id}."
        )
    return authority


def authority_map(cluster: Cluster, authority: identity.Authority) -> Json:
    """What everybody may read: hosts and clients check servers with it before they have a certificate."""
    made = cluster.object("v1", "ConfigMap", cluster.authority_name)
    return {**made, "data": {"ca.crt": authority.certificate_pem.decode()}}


def current(
    cluster: Cluster, authority: identity.Authority, secret: Json | None, now: datetime
) -> tuple[ServerCertificates, bool]:
    """The servers' certificates, and whether some were issued just now: missing, of another authority, or old."""
    found: dict[str, bytes] = {}
    if secret is not None:
        try:
            found = _decoded(secret)
        except binascii.Error:
            found = {}  # spoiled: issued anew, nothing hangs on them
    same = found.get("ca.crt") == authority.certificate_pem
    data = {"ca.crt": authority.certificate_pem}
    issued = not same
    for server in cluster.servers:
        certificate, key = found.get(f"{server}.crt"), found.get(f"{server}.key")
        if not (same and certificate and key and _fresh(certificate, now)):
            made = identity.issue_with_key(authority, identity.Role.SERVER, server)
            certificate, key, issued = made.certificate_pem, made.key_pem, True
        data |= {f"{server}.crt": certificate, f"{server}.key": key}
    return ServerCertificates(data), issued


def server_tls(cluster: Cluster, certificates: ServerCertificates) -> Json:
    """The manifest of the servers' Secret."""
    return _secret(cluster, cluster.server_tls_name, certificates.data)


def _is_server(name: str) -> bool:
    return name.endswith(".crt") and name != "ca.crt"


def _fresh(certificate: bytes, now: datetime) -> bool:
    try:
        return now < identity.renew_at(certificate)
    except identity.IdentityError:
        return False


def _secret(cluster: Cluster, name: str, data: dict[str, bytes]) -> Json:
    made = cluster.object("v1", "Secret", name)
    return {**made, "type": "Opaque", "data": {key: base64.b64encode(value).decode() for key, value in data.items()}}


def _decoded(secret: Json) -> dict[str, bytes]:
    return {key: base64.b64decode(value, validate=True) for key, value in secret.get("data", {}).items()}
