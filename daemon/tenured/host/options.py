"""The command line of `tenured host`, and the environment behind it (docs/architecture.md, "Command lines"). Read in
one place, once.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tenured.core.profile import PROFILES, Profile
from tenured.flags import LOG_FORMATS, ConfigError, Reader

FILE = "file:"
Many = TypeVar("Many", list[str], dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How one host runs."""

    name: str
    """Of the host: its pod's name."""
    cluster: str
    """namespace/name"""
    pool: str
    node: str
    servers: Mapping[str, str]
    """Name -> host:port of the peer ports (7444)."""
    frames: Mapping[str, str] = field(default_factory=dict[str, str])
    """Name -> host:port of the ports for framed TLS (7447); a server that is not named is reached by gRPC."""
    enrol: tuple[str, ...]
    """host:port of the enrolment ports (7446)."""
    token: Path
    """Read again at each use: projected tokens rotate."""
    ca: Path
    """The authority's certificate, to check the server that enrols us."""
    run: Path
    """Socket, locks and TLS files; survives a restart of the container, not of the pod."""
    advertise: str
    """host:port under which others reach our Calls service."""
    listen: str = "0.0.0.0"  # noqa: S104 - a pod's own network namespace
    port: int = 7445
    signals_port: int = 7448
    """Where other hosts send signals; 0: the system chooses. Reached under the host of `advertise`."""
    http_port: int = 8080
    profile: Profile = field(default_factory=lambda: PROFILES["Balanced"])
    cpu_milli: int = 0
    """Capacity offered to agents; 0: unknown."""
    memory_bytes: int = 0
    workers: int = 1
    """Worker processes to keep."""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    capabilities: tuple[str, ...] = ()
    """What this host has beside what its pool has."""
    exit_deadline_s: float = 55.0
    """From SIGTERM to our exit: 5 s before a grace period of 60 s ends (API.md section 3)."""
    store: str = field(default="", repr=False)
    """Where agents' state is kept: empty for the servers, or where the URL of a PostgreSQL is found (`store_url`)."""
    cluster_uid: str = ""
    """Of the AgentCluster object: tells a database of this cluster from one of an earlier cluster of that name."""
    keys: Path | None = None
    """File with the keys that agents' state is encrypted with; None: it is not. Read again when it changes."""
    compress: bool = True
    """Whether larger entries of agents' state are compressed before they are stored."""
    log_format: str = "text"
    """text or json"""
    worker_uids: frozenset[int] = frozenset()
    """Users, besides our own, whose processes may connect as workers."""

    def store_url(self) -> str:
        """The PostgreSQL's URL. A file is read at each connection, so that a new password counts. Raises OSError."""
        path = self.store.removeprefix(FILE)
        return Path(path).read_text(encoding="utf-8").strip() if path != self.store else self.store


def parse(arguments: list[str], environment: Mapping[str, str] | None = None) -> Options:
    """Options from flags, then `TENURE_<FLAG>`. Exits with status 2 and a sentence when they make no sense."""
    parser = _parser()
    try:
        return _options(Reader(parser.parse_args(arguments), os.environ if environment is None else environment))
    except ConfigError as error:
        parser.error(str(error))


def _options(read: Reader) -> Options:
    token, ca, keys = Path(read.text("token")), read.optional("ca"), read.optional("keys")
    return Options(
        name=read.text("name"),
        cluster=read.text("cluster"),
        pool=read.text("pool"),
        node=read.text("node"),
        servers=_needed("server", read.addresses("server")),
        frames=read.addresses("frames"),
        enrol=tuple(_needed("enrol", read.listed("enrol"))),
        token=token,
        ca=Path(ca) if ca else token.with_name("ca.crt"),
        run=Path(read.text("run", "/run/tenure")),
        advertise=read.text("advertise"),
        listen=read.text("listen", "0.0.0.0"),  # noqa: S104 - a pod's own network namespace
        port=read.port("port", 7445),
        signals_port=read.port("signals_port", 7448),
        http_port=read.port("http_port", 8080),
        profile=PROFILES[read.choice("profile", tuple(PROFILES), "Balanced")],
        cpu_milli=read.count("cpu_milli", 0),
        memory_bytes=read.count("memory_bytes", 0),
        workers=max(1, read.count("workers", 1)),
        labels=read.pairs("label"),
        capabilities=tuple(read.listed("capability")),
        exit_deadline_s=read.seconds("exit_deadline", 55.0),
        store=_store(read.optional("store")),
        cluster_uid=read.optional("cluster_uid"),
        keys=Path(keys) if keys else None,
        compress=read.choice("compress", ("on", "off")) == "on",
        log_format=read.choice("log_format", LOG_FORMATS),
        worker_uids=frozenset(_uid(uid) for uid in read.optional("worker_uid").split(",") if uid),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tenured host", allow_abbrev=False)
    for name, text in {
        "name": "the host's name: its pod's",
        "cluster": "NAMESPACE/NAME",
        "pool": "the pool it belongs to",
        "node": "the Kubernetes node it runs on",
        "token": "file with the token to enrol with",
        "ca": "the authority's certificate (default: ca.crt beside the token)",
        "run": "directory for socket, locks and certificates",
        "advertise": "HOST:PORT under which others reach this host",
        "listen": "address to listen on",
        "port": "of the Calls service",
        "signals-port": "where other hosts send signals, under the host of --advertise; 0: any free one",
        "http-port": "of health and metrics",
        "profile": "Fast, Balanced or Calm; the same as the servers'",
        "cpu-milli": "processor capacity, 0: unknown",
        "memory-bytes": "memory capacity, 0: unknown",
        "workers": "worker processes to keep",
        "exit-deadline": "seconds from SIGTERM to exit",
        "store": "where agents' state is kept: postgresql://..., or file:PATH with that URL; default: the servers",
        "cluster-uid": "of the AgentCluster; the tables of another one are refused",
        "keys": "file with the keys that agents' state is encrypted with; default: it is not",
        "compress": "compress agents' state before it is stored: on or off",
        "log-format": "text or json",
        "worker-uid": "user ids, besides our own, that workers may have; comma-separated",
    }.items():
        parser.add_argument(f"--{name}", help=text)
    for name, text in {
        "server": "NAME=HOST:PORT of a server's peer port (7444); repeat",
        "frames": "NAME=HOST:PORT of a server's port for framed TLS (7447); repeat; without: gRPC to --server",
        "enrol": "HOST:PORT of a server's enrolment port (7446); repeat",
        "label": "KEY=VALUE; repeat",
        "capability": "what this host has beside what its pool has, e.g. gpu; repeat",
    }.items():
        parser.add_argument(f"--{name}", action="append", help=text)
    return parser


def _needed(flag: str, found: Many) -> Many:
    if not found:
        raise ConfigError(f"--{flag} (or TENURE_{flag.upper()}) is missing")
    return found


def _store(text: str) -> str:
    if text and not text.startswith(("postgresql://", "postgres://", FILE)):
        # Without the text: it may hold a password.
        raise ConfigError(f"--store: expected postgresql://..., or {FILE}PATH with such a URL")
    return text


def _uid(text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"--worker-uid: {text!r} is no user id")
    return int(text)
