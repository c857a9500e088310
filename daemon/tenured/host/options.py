"""The command line of `tenured host`, and the environment behind it (docs/architecture.md, "Command lines"). Read in
one place, once.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tenured.core.profile import PROFILES, Profile

FILE = "file:"
_LISTS = ("server", "frames", "enrol", "label", "capability")


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
    environment = os.environ if environment is None else environment
    lists: dict[str, list[str]] = {}
    parser = _parser(environment, lists)
    given = parser.parse_args(arguments)
    try:
        token = Path(given.token)
        return Options(
            name=given.name,
            cluster=given.cluster,
            pool=given.pool,
            node=given.node,
            servers=_pairs(given.server or lists["server"], "--server"),
            frames=_pairs(given.frames or lists["frames"], "--frames"),
            enrol=tuple(given.enrol or lists["enrol"]),
            token=token,
            ca=Path(given.ca) if given.ca else token.with_name("ca.crt"),
            run=Path(given.run),
            advertise=given.advertise,
            listen=given.listen,
            port=int(given.port),
            signals_port=int(given.signals_port),
            http_port=int(given.http_port),
            profile=_profile(given.profile),
            cpu_milli=int(given.cpu_milli),
            memory_bytes=int(given.memory_bytes),
            workers=max(1, int(given.workers)),
            labels=_pairs(given.label or lists["label"], "--label"),
            capabilities=tuple(given.capability or lists["capability"]),
            exit_deadline_s=float(given.exit_deadline),
            store=_store(given.store),
            cluster_uid=given.cluster_uid,
            keys=Path(given.keys) if given.keys else None,
            compress=_switch("--compress", given.compress),
            log_format=_log_format(given.log_format),
            worker_uids=frozenset(int(uid) for uid in given.worker_uid.split(",") if uid),
        )
    except ValueError as error:
        parser.error(str(error))


def _parser(environment: Mapping[str, str], lists: dict[str, list[str]]) -> argparse.ArgumentParser:
    """`lists`: filled with the environment's values of the flags that may be repeated; a flag replaces them all."""
    parser = argparse.ArgumentParser(prog="tenured host", allow_abbrev=False)

    def flag(name: str, default: str | None, text: str) -> None:
        known = environment.get(f"TENURE_{name.upper().replace('-', '_')}")
        if name in _LISTS:
            lists[name] = known.split(",") if known else []
            parser.add_argument(f"--{name}", action="append", help=text, required=default is None and not known)
        else:
            value = default if known is None else known
            parser.add_argument(f"--{name}", default=value, help=text, required=value is None)

    flag("name", None, "the host's name: its pod's")
    flag("cluster", None, "NAMESPACE/NAME")
    flag("pool", None, "the pool it belongs to")
    flag("node", None, "the Kubernetes node it runs on")
    flag("server", None, "NAME=HOST:PORT of a server's peer port (7444); repeat")
    flag("frames", "", "NAME=HOST:PORT of a server's port for framed TLS (7447); repeat; without: gRPC to --server")
    flag("enrol", None, "HOST:PORT of a server's enrolment port (7446); repeat")
    flag("token", None, "file with the token to enrol with")
    flag("ca", "", "the authority's certificate (default: ca.crt beside the token)")
    flag("run", "/run/tenure", "directory for socket, locks and certificates")
    flag("advertise", None, "HOST:PORT under which others reach this host")
    flag("listen", "0.0.0.0", "address to listen on")  # noqa: S104 - a pod's own network namespace
    flag("port", "7445", "of the Calls service")
    flag("signals-port", "7448", "where other hosts send signals, under the host of --advertise; 0: any free one")
    flag("http-port", "8080", "of health and metrics")
    flag("profile", "Balanced", "Fast, Balanced or Calm; the same as the servers'")
    flag("cpu-milli", "0", "processor capacity, 0: unknown")
    flag("memory-bytes", "0", "memory capacity, 0: unknown")
    flag("workers", "1", "worker processes to keep")
    flag("label", "", "KEY=VALUE; repeat")
    flag("capability", "", "what this host has beside what its pool has, e.g. gpu; repeat")
    flag("exit-deadline", "55", "seconds from SIGTERM to exit")
    flag("store", "", "where agents' state is kept: postgresql://..., or file:PATH with that URL; default: the servers")
    flag("cluster-uid", "", "of the AgentCluster; the tables of another one are refused")
    flag("keys", "", "file with the keys that agents' state is encrypted with; default: it is not")
    flag("compress", "on", "compress agents' state before it is stored: on or off")
    flag("log-format", "text", "text or json")
    flag("worker-uid", "", "user ids, besides our own, that workers may have; comma-separated")
    return parser


def _profile(name: str) -> Profile:
    if name not in PROFILES:
        raise ValueError(f"--profile {name}: there are {', '.join(PROFILES)}")
    return PROFILES[name]


def _store(text: str) -> str:
    if text and not text.startswith(("postgresql://", "postgres://", FILE)):
        # Without the text: it may hold a password.
        raise ValueError(f"--store: expected postgresql://..., or {FILE}PATH with such a URL")
    return text


def _switch(flag: str, text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError(f"{flag} {text}: there are on and off")
    return text == "on"


def _log_format(name: str) -> str:
    if name not in ("text", "json"):
        raise ValueError(f"--log-format {name}: there are text and json")
    return name


def _pairs(values: list[str], flag: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for value in values:
        key, equals, rest = value.partition("=")
        if not (key and equals):
            raise ValueError(f"{flag} {value}: expected NAME=VALUE")
        pairs[key] = rest
    return pairs
