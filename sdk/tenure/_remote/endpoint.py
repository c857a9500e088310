"""Where a cluster is, and who we are to it.

In this order: an URL (given, or TENURE_URL), then a running `tenure dev`. The identity is a certificate: read from a
directory, or enrolled for with a token (API.md section 4).
"""

from __future__ import annotations

import asyncio
import fcntl
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tenure._remote import channels
from tenure.errors import ConfigurationError
from tenure_proto.v1 import enrolment_pb2, enrolment_pb2_grpc

API_PORT = 7443
ENROL_PORT = 7446
POD_DIRECTORY = "/var/run/secrets/tenure.dev"
"""Where a pod finds `token` and `ca.crt`, if it was given them."""
ENROL_TIMEOUT_S = 10.0
URL_FORM = "tenure://HOST:PORT[,HOST:PORT…]/NAMESPACE/CLUSTER"


@dataclass(frozen=True)
class Endpoint:
    """A cluster's servers, and a client identity in it."""

    cluster: str
    """namespace/name"""
    servers: tuple[str, ...]
    """host:port of the API (7443) of each."""
    authority_pem: bytes
    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
    proxied: bool = False
    """Hosts cannot be reached from here: every call goes through a server."""
    why: str = ""
    """How it was found, for `-v`."""

    @property
    def namespace(self) -> str:
        """Of the cluster, and so of its agents."""
        return self.cluster.partition("/")[0]

    def server_name(self) -> str:
        """What every server's certificate says (docs/architecture.md, Identity)."""
        namespace, _, name = self.cluster.partition("/")
        return f"server.{name}.{namespace}.tenure"

    def host_name(self, host: str) -> str:
        """What this host's certificate says."""
        namespace, _, name = self.cluster.partition("/")
        return f"{host}.host.{name}.{namespace}.tenure"


@dataclass(frozen=True)
class Address:
    """What an URL says: no identity yet."""

    cluster: str
    servers: tuple[str, ...]
    enrol: tuple[str, ...]
    proxied: bool


def parse_url(url: str) -> Address:
    """`tenure://HOST:PORT[,…]/NAMESPACE/CLUSTER[?enrol=HOST:PORT[,…]&proxied=true]`. Raises ConfigurationError."""
    parts = urlsplit(url)
    path = parts.path.strip("/").split("/")
    if parts.scheme != "tenure" or not parts.netloc or len(path) != 2 or not all(path):
        raise ConfigurationError(f"{url!r} names no cluster: it should look like {URL_FORM}")
    names = [address for address in parts.netloc.split(",") if address]
    query = parse_qs(parts.query)
    unknown = sorted(set(query) - {"enrol", "proxied"})
    if unknown:
        raise ConfigurationError(f"{url!r}: {unknown[0]!r} is not known; enrol and proxied are")
    enrol = [address for text in query.get("enrol", []) for address in text.split(",") if address]
    return Address(
        cluster="/".join(path),
        servers=tuple(_with_port(name, API_PORT) for name in names),
        enrol=tuple(enrol or (f"{_bare(name)}:{ENROL_PORT}" for name in names)),
        proxied=query.get("proxied", ["false"])[-1] == "true",
    )


def _bare(address: str) -> str:
    head, colon, port = address.rpartition(":")
    return head if colon and port.isdigit() else address


def _with_port(address: str, port: int) -> str:
    return address if _bare(address) != address else f"{address}:{port}"


async def discover(url: str | None, environment: Mapping[str, str]) -> Endpoint:
    """The cluster to talk to. Raises ConfigurationError (what was looked for), and what `enrol` raises."""
    given = url or environment.get("TENURE_URL")
    if given:
        return await _from_url(parse_url(given), environment, "given" if url else "TENURE_URL is set")
    running = running_dev(environment)
    if len(running) == 1 or (running and running[0].parent.name == "dev"):
        return from_dev_file(running[0])
    if running:
        names = ", ".join(file.parent.name for file in running)
        raise ConfigurationError(f"several local clusters run ({names}): choose one with TENURE_DEV or an URL")
    raise ConfigurationError(
        "there is no cluster to connect to: no URL was given, TENURE_URL is not set, and no `tenure dev` runs here; "
        f"start one, or set TENURE_URL={URL_FORM}"
    )


async def _from_url(address: Address, environment: Mapping[str, str], why: str) -> Endpoint:
    if directory := environment.get("TENURE_TLS"):
        endpoint = from_tls_directory(address.cluster, address.servers, Path(directory), why=why)
        return replace(endpoint, proxied=address.proxied)
    token = Path(environment.get("TENURE_TOKEN_FILE", f"{POD_DIRECTORY}/token"))
    authority = Path(environment.get("TENURE_CA", f"{POD_DIRECTORY}/ca.crt"))
    try:
        token_text, authority_pem = await asyncio.to_thread(lambda: (token.read_text().strip(), authority.read_bytes()))
    except OSError as error:
        raise ConfigurationError(
            f"there is an URL but no identity: {error.filename} cannot be read ({error.strerror}); set TENURE_TLS to a "
            "directory with ca.crt, tls.crt and tls.key, or TENURE_TOKEN_FILE and TENURE_CA"
        ) from error
    return await enrol(address, token_text, authority_pem, why=why)


def from_tls_directory(cluster: str, servers: tuple[str, ...], directory: Path, *, why: str = "") -> Endpoint:
    """The identity in a directory's ca.crt, tls.crt and tls.key. Raises ConfigurationError."""
    try:
        pems = [(directory / name).read_bytes() for name in ("ca.crt", "tls.crt", "tls.key")]
    except OSError as error:
        raise ConfigurationError(f"{error.filename} cannot be read: {error.strerror}") from error
    return Endpoint(cluster, servers, pems[0], pems[1], pems[2], why=why)


def running_dev(environment: Mapping[str, str]) -> list[Path]:
    """cluster.json of each local cluster that runs now; `dev`, the default name, first."""
    base = environment.get("XDG_STATE_HOME", "")
    # The XDG base directory specification: a relative path is to be ignored.
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state"
    files = (root / "tenure" / "dev").glob("*/cluster.json")
    chosen = environment.get("TENURE_DEV")
    running = [file for file in files if _locked(file.parent / "lock") and chosen in {None, file.parent.name}]
    return sorted(running, key=lambda file: (file.parent.name != "dev", file.parent.name))


def _locked(path: Path) -> bool:
    """`tenure dev` holds this lock as long as it runs; a file alone may be left of one that was killed."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def from_dev_file(path: Path) -> Endpoint:
    """The cluster that a `tenure dev` wrote about. Raises ConfigurationError."""
    try:
        content = cast(dict[str, Any], json.loads(path.read_text()))
        servers = tuple(str(server) for server in content["servers"])
        cluster, directory = str(content["cluster"]), Path(content["tls"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} is no description of a local cluster: {error!r}") from error
    if "/" not in cluster:  # the cluster's id, NAME.NAMESPACE
        name, _, namespace = cluster.partition(".")
        cluster = f"{namespace}/{name}"
    return from_tls_directory(cluster, servers, directory, why=f"the local cluster {path.parent.name!r} runs")


async def enrol(address: Address, token: str, authority_pem: bytes, *, why: str = "") -> Endpoint:
    """A certificate for a token, from the first server that answers. Raises Unauthenticated, Unavailable."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tenure client")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    blank = Endpoint(address.cluster, address.servers, authority_pem, b"", key_pem, address.proxied, why)
    message = enrolment_pb2.EnrolRequest(
        role="client", token=token, signing_request_pem=request.public_bytes(serialization.Encoding.PEM)
    )
    last: Exception | None = None
    for server in address.enrol:
        channel = channels.open_channel(server, blank.server_name(), authority_pem)
        try:
            stub = enrolment_pb2_grpc.EnrolmentStub(channel)
            answer = await stub.Enrol(message, timeout=ENROL_TIMEOUT_S / len(address.enrol))
        except channels.RpcError as error:
            last = channels.translate(error, f"enrolment at {server}")
            continue
        finally:
            await channel.close()
        if answer.HasField("error"):
            raise channels.from_proto(answer.error)
        return replace(
            blank, certificate_pem=answer.certificate_pem, authority_pem=answer.authority_pem or authority_pem
        )
    raise last or ConfigurationError(f"the URL of {address.cluster} names no server")
