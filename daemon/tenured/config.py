"""What a server is told by flags and environment: read and checked here, once, at the start (`flags`)."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tenure_api.identity import MalformedName, cluster_id_of
from tenured.core.failover import DEFAULT_SHARE
from tenured.core.profile import PROFILES, Profile
from tenured.flags import LOG_FORMATS, ConfigError, Reader

RAFT_PORT = 7447
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class SecretFile:
    """Enrolment by a shared secret: `tenure dev`."""

    path: Path


@dataclass(frozen=True, slots=True)
class TokenReview:
    """Enrolment by ServiceAccount tokens, which the Kubernetes API checks."""

    url: str
    """Of the API server."""
    account: Path
    """Directory with our own `token` and the API's `ca.crt`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """One server. Units are in the names."""

    name: str
    cluster: str
    """Cluster id: `<name>.<namespace>`."""
    peers: Mapping[str, str]
    """Name to host:port (7444) of the other servers; fixed for the cluster's life."""
    raft_peers: Mapping[str, str]
    """Name to host:port (7447) of the other servers' Raft ports."""
    data: Path
    """The volume: Raft log and state store."""
    tls: Path
    """`ca.crt`, `tls.crt`, `tls.key`; read again at each handshake."""
    authority: Path
    """`ca.crt`, `ca.key`: signs what enrols."""
    listen: str
    api_port: int
    peer_port: int
    raft_port: int
    enrol_port: int
    http_port: int
    """0 for any port: the system chooses one, and the first log line says which."""
    api_addresses: Mapping[str, str]
    """Name to host:port (7443) of every server, for status."""
    profile: Profile
    failover_guard: float
    """Share of the hosts, 0 to 1: when more fall silent at once, nothing is moved before it is confirmed. 1: off."""
    enrolment: SecretFile | TokenReview
    log_format: str

    @property
    def namespaced(self) -> str:
        """NAMESPACE/NAME of the cluster."""
        name, _, namespace = self.cluster.partition(".")
        return f"{namespace}/{name}"


def server_config(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> ServerConfig:
    """Read flags and environment. Raises ConfigError; exits after `--help`."""
    environment = os.environ if environment is None else environment
    given = _server_parser().parse_args(list(arguments))
    read = Reader(given, environment)
    try:
        cluster = cluster_id_of(read.text("cluster"))
    except MalformedName as error:
        raise ConfigError(f"--cluster: {error}") from error
    name = read.text("name")
    peers = read.addresses("peer")
    peers.pop(name, None)  # so that every server can be started with the same list
    if len(peers) + 1 not in (1, 3, 5):
        raise ConfigError(f"--peer: a cluster has 1, 3 or 5 servers, not {len(peers) + 1}")
    return ServerConfig(
        name=name,
        cluster=cluster,
        peers=peers,
        raft_peers=_raft_peers(peers, read.addresses("raft_peer")),
        data=Path(read.text("data")),
        tls=Path(read.text("tls")),
        authority=Path(read.text("authority")),
        listen=read.text("listen", "0.0.0.0"),  # noqa: S104 - a pod has addresses that it does not know beforehand
        api_port=read.port("api_port", 7443),
        peer_port=read.port("peer_port", 7444),
        raft_port=read.port("raft_port", RAFT_PORT),
        enrol_port=read.port("enrol_port", 7446),
        http_port=read.port("http_port", 8080),
        api_addresses=read.addresses("api_address"),
        profile=PROFILES[read.choice("profile", tuple(PROFILES), "Balanced")],
        failover_guard=read.share("failover_guard", DEFAULT_SHARE),
        enrolment=_enrolment(read.text("enrolment", "token-review"), environment),
        log_format=read.choice("log_format", LOG_FORMATS),
    )


def _raft_peers(peers: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    return {name: given.get(name, f"{at.rpartition(':')[0]}:{RAFT_PORT}") for name, at in peers.items()}


def _enrolment(text: str, environment: Mapping[str, str]) -> SecretFile | TokenReview:
    kind, _, rest = text.partition(":")
    if kind == "secret" and rest:
        return SecretFile(Path(rest))
    if text != "token-review":
        raise ConfigError(f"--enrolment: {text!r} is neither token-review nor secret:FILE")
    host = environment.get("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc")
    port = environment.get("KUBERNETES_SERVICE_PORT", "443")
    return TokenReview(f"https://{f'[{host}]' if ':' in host else host}:{port}", SERVICE_ACCOUNT)


def _server_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tenured server", allow_abbrev=False, description=__doc__)
    add = parser.add_argument
    add("--name", help="of this server; its certificate must say the same")
    add("--cluster", metavar="NAMESPACE/NAME")
    add("--peer", action="append", metavar="NAME=HOST:PORT", help="each other server's peer port (7444); repeat")
    add("--raft-peer", action="append", metavar="NAME=HOST:PORT", help="its Raft port (default: 7447 there); repeat")
    add("--data", metavar="DIR", help="the volume: Raft log and state store")
    add("--tls", metavar="DIR", help="ca.crt, tls.crt, tls.key")
    add("--authority", metavar="DIR", help="ca.crt, ca.key: signs what enrols")
    add("--listen", metavar="ADDRESS")
    for port, what in (
        ("api", "API"),
        ("peer", "hosts and servers"),
        ("raft", "the log of the other servers"),
        ("enrol", "enrolment"),
        ("http", "health, metrics"),
    ):
        add(f"--{port}-port", metavar="PORT", help=what)
    add("--api-address", action="append", metavar="NAME=HOST:PORT", help="each server's API, for status; repeat")
    add("--profile", help=", ".join(PROFILES))
    add("--failover-guard", metavar="SHARE", help=f"of hosts silent at once, before failover waits: {DEFAULT_SHARE}")
    add("--enrolment", metavar="token-review | secret:FILE")
    add("--log-format", metavar="text | json")
    return parser
