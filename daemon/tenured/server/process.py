"""One server, put together: everything that lives in the process, in the order in which it starts and stops."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from importlib import metadata

from tenure_api.identity import Identity, expires
from tenure_api.identity import Role as CertificateRole
from tenure_proto.v1 import registry_pb2
from tenured.clocks import boot_ns
from tenured.config import SecretFile, ServerConfig
from tenured.core import commands
from tenured.raft import MANIFEST, Consensus, RaftConfig, Role
from tenured.server.api import Api, quorum_ready, server_statuses
from tenured.server.changing import Changing
from tenured.server.enrolling import Enrolling
from tenured.server.health import Health
from tenured.server.heap import settle
from tenured.server.hosts import Hosts
from tenured.server.joining import Joining, Peer
from tenured.server.leading import Leader
from tenured.server.lending import Lender
from tenured.server.passing import Passing
from tenured.server.placing import Placing
from tenured.server.reached import Reached
from tenured.server.replica import Replica
from tenured.server.store import Store
from tenured.server.sweeping import Sweeper
from tenured.server.tokens import SharedSecret, Verifier
from tenured.server.watching import WatchHub
from tenured.storage import Register
from tenured.transport import calls, enrolment, hostlink, registry, roles, storelink
from tenured.transport.calls import CallsClient
from tenured.transport.changes import method as changes_method
from tenured.transport.raft import RaftPeers
from tenured.transport.serving import Listener
from tenured.transport.storelink import StoreClient
from tenured.transport.tls import TlsFiles

_log = logging.getLogger(__name__)

VERSION = metadata.version("tenure")


class StartError(Exception):
    """The server cannot start; the sentence says why and what to do."""


class Server:
    """A server of a cluster. `start`, then wait for `failed`, then `stop`."""

    def __init__(self, config: ServerConfig) -> None:
        """Opens nothing. Raises StartError when files contradict the flags."""
        self.config = config
        self.files = TlsFiles(config.tls)
        _check_identity(config, self.files)
        _check_volume(config)
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.replica = Replica(settle)
        self.peers = RaftPeers(config.name, config.cluster, config.raft_peers, self.files)
        profile = config.profile
        raft = RaftConfig(
            name=config.name,
            peers=tuple(sorted(config.peers)),
            directory=config.data / "raft",
            election_min_s=profile.election_min_s,
            election_max_s=profile.election_max_s,
        )
        self.consensus = Consensus(raft, self.replica, self.peers)
        self.peers.bind(self.consensus)
        self.register = Register(config.data / "state.db", self._committed)
        self.hub = WatchHub(self.replica)
        store = Store(self.replica, self.register)
        self.hosts = Hosts(config.name, self.replica, self.consensus, store, self.hub)
        self.leader = Leader(
            profile, self.replica, self.consensus, self.hosts.send_ack, guard_share=config.failover_guard
        )
        self.hosts.bind(self.leader)
        self.sweeper = Sweeper(self.replica, self.register)
        self.lender = Lender(self.replica, self.register)
        self.joining = Joining(
            commands.RegisterServer(
                name=config.name, incarnation="", address=config.api_addresses.get(config.name, ""), version=VERSION
            ),
            self.replica,
            self.consensus,
            self.register,
            {name: self._store_of(name, address) for name, address in config.peers.items()},
        )
        for listener in (self.hub, self.hosts, self.leader, self.sweeper):
            self.replica.listen(listener)
        self.passing = Passing(
            config.cluster,
            self.replica,
            self.consensus,
            lambda address, expected: CallsClient(address, expected, self.files),
        )
        self.verifier = _verifier(config)
        self.health = Health(self.replica, self.consensus, lambda: len(self.hub), self.why_not_ready)
        self._listeners: dict[str, Listener] = {}
        self._registering: asyncio.Task[None] | None = None
        self._expires_wall = 0.0
        self._reached = Reached()

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the volume, listen, take part. Raises StartError, StorageError, RaftError, TransportError, OSError."""
        config = self.config
        (config.data / "raft").mkdir(parents=True, exist_ok=True)
        await self.health.start(config.listen, config.http_port)
        await self.register.open()
        self.consensus.on_role = self._role_changed
        self.consensus.on_fatal = self._fail
        self.consensus.on_place = self.leader.complete
        await self.consensus.start()
        await self._listen()
        await self.peers.start()
        ports = {name: listener.port for name, listener in self._listeners.items()} | {"raft": self.peers.port}
        _log.info("serves %s: %s, http %d", config.namespaced, ports, self.health.port)

    async def stop(self) -> None:
        """Hand leadership over, then close everything. Never raises for a part that did not start."""
        await self.consensus.stop()
        self.leader.stop()
        if self._registering is not None:
            self._registering.cancel()
        self.hosts.close()
        await asyncio.gather(*(listener.stop() for listener in self._listeners.values()))
        await self.peers.stop()
        await self.passing.close()
        await self.verifier.close()
        await self.sweeper.stop()
        await self.register.close()
        await self.health.stop()

    async def _listen(self) -> None:
        api = Api(self.config.cluster, self.replica, self.consensus, self.hub, self.status, self.changes_address)
        placing = Placing(self.config.name, self.replica, self.consensus, self.leader)
        enrolling = Enrolling(self.config.cluster, self.config.authority, self.verifier)
        changing = Changing(api)
        changes = changes_method(changing.serve)
        self.peers.accept_users(changing.accept)
        self.peers.accept_hosts(self.hosts.accept)
        users = roles.SERVER_API_DEV if isinstance(self.config.enrolment, SecretFile) else roles.SERVER_API
        listeners = {
            "api": (
                [*registry.methods(api), *registry.placement_methods(placing), changes, *calls.methods(self.passing)],
                users,
            ),
            "peer": (
                [hostlink.method(self.hosts), *storelink.methods(self.lender), *registry.host_methods(api)],
                roles.SERVER_PEERS,
            ),
            "enrol": ([enrolment.method(enrolling.enrol)], None),
        }
        ports = {"api": self.config.api_port, "peer": self.config.peer_port, "enrol": self.config.enrol_port}
        for name, (methods, allowed) in listeners.items():
            listener = Listener(self.files, self.config.cluster, methods, allowed)
            await listener.start(self.config.listen, ports[name])
            self._listeners[name] = listener
        await self.peers.listen(self.config.listen, self.config.raft_port)

    # --- events -------------------------------------------------------------------------------------------------------

    def _role_changed(self, role: Role) -> None:
        leader = role.leader or "nobody"
        _log.info("term %d: %s leads; this server is %sready", role.term, leader, "" if role.ready else "not ")
        self.leader.role_changed(role)
        self.hosts.role_changed(role)
        if role.ready and self._registering is None:
            self.hub.open()
            self._registering = asyncio.get_running_loop().create_task(self._register_disk())

    async def _register_disk(self) -> None:
        """Tell the registry which disk this is, and bring a replaced one into the store (protocol 2, rejoin)."""
        await self.joining.run()
        self.sweeper.sweep_all()

    def _store_of(self, name: str, address: str) -> Callable[[], Peer]:
        expected = Identity(self.config.cluster, CertificateRole.SERVER, name).dns_name
        return lambda: StoreClient(address, expected, self.files)

    def _committed(self, seconds: float, requests: int) -> None:
        self.health.committed(seconds, requests)

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_result(error)

    # --- what others ask ----------------------------------------------------------------------------------------------

    def why_not_ready(self) -> str:
        """Empty when this server is caught up, its store answers, and hosts have found it; else a sentence."""
        role = self.consensus.role()
        if not role.ready:
            return "not caught up: " + ("no leader is known" if role.leader is None else f"{role.lag} entries behind")
        if self.register.joining:
            progress = f": {self.joining.progress} records" if self.joining.progress else ""
            trouble = f" ({self.joining.trouble})" if self.joining.trouble else ""
            return f"the state store's disk is new and not admitted yet{progress}{trouble}"
        if self.register.failure:
            return self.register.failure
        missing = self._reached.missing(boot_ns(), self.replica.registry.hosts.values(), set(self.hosts.linked))
        return f"not reached yet by {', '.join(missing)}" if missing else ""

    def status(self) -> registry_pb2.StatusResponse:
        """The cluster as this server sees it."""
        role = self.consensus.role()
        state = self.replica.registry
        servers = server_statuses(role, state.servers, self.config.api_addresses, self._store_states())
        own = next(server for server in servers if server.name == self.config.name)
        own.snapshot_failure = self.consensus.snapshots().failure
        return registry_pb2.StatusResponse(
            cluster=self.config.namespaced,
            answered_by=self.config.name,
            leader=role.leader or "",
            term=role.term,
            revision=state.revision,
            cluster_time=state.cluster_ns / 1e9,
            servers=servers,
            quorum_ready=quorum_ready(role),
            profile=self.config.profile.name,
            certificate_expires_wall=self._certificate_expires(),
            linked_hosts=self.hosts.linked,
        )

    def changes_address(self) -> str:
        """host:port where the leader takes changes by framed TLS, as clients reach it: at the host of its API, on the
        port of its Raft peers. Empty: no leader is known, or not where clients reach it.
        """
        leader = self.consensus.role().leader or ""
        own = f":{self.peers.port}" if leader == self.config.name else ""
        host = self.config.api_addresses.get(leader, "").rpartition(":")[0]
        port = (own or self.config.raft_peers.get(leader, "")).rpartition(":")[2]
        return f"{host}:{port}" if host and port else ""

    def _store_states(self) -> dict[str, str]:
        """Of this server's own store, and how far joining ones have got, as they told it."""
        if self.register.joining:
            own = f"joining {self.joining.progress}".rstrip()
        else:
            own = "failed" if self.register.failure else "ready"
        return {**{name: f"joining {text}" for name, text in self.lender.progress.items()}, self.config.name: own}

    def _certificate_expires(self) -> float:
        if self._expires_wall < time.time() + 3600:  # parsed rarely; a renewed file is seen before the old one ends
            self._expires_wall = expires(self.files.read().certificate).timestamp()
        return self._expires_wall


def _verifier(config: ServerConfig) -> Verifier:
    if isinstance(config.enrolment, SecretFile):
        return SharedSecret(config.enrolment.path)
    from tenured.server.reviews import TokenReviews  # noqa: PLC0415 - see there

    return TokenReviews(config.cluster, config.enrolment.url, config.enrolment.account)


def _check_identity(config: ServerConfig, files: TlsFiles) -> None:
    identity = files.identity()
    if (identity.cluster, identity.role, identity.holder) != (config.cluster, CertificateRole.SERVER, config.name):
        raise StartError(
            f"The certificate in {config.tls} is of {identity.uri}; this is server {config.name} of {config.cluster}."
        )


def _check_volume(config: ServerConfig) -> None:
    """A store without its log would meet records of an earlier cluster under the same uids."""
    if (config.data / "state.db").exists() and not (config.data / "raft" / MANIFEST).exists():
        raise StartError(
            f"{config.data} holds a state store but no Raft log. Restore the log, or empty the directory: "
            "the other servers hold every acknowledged record."
        )
