"""What the handlers share: the API server, the mirror of it, the conversations with clusters, and the queue."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tenure_api.identity import Authority
from tenure_api.model import Json
from tenure_operator.kubernetes import kinds
from tenure_operator.kubernetes.client import Kubernetes
from tenure_operator.kubernetes.errors import KubernetesError
from tenure_operator.kubernetes.world import World
from tenure_operator.policies.transitions import Event
from tenure_operator.queue import Pace, WorkQueue
from tenure_operator.registry.session import Session
from tenure_operator.registry.values import Registry
from tenure_operator.resources.certificates import ServerCertificates
from tenure_operator.settings import Settings

log = logging.getLogger(__name__)
FINALIZER = "tenure.dev/cleanup"
REPORTER = "tenure.dev/operator"
COALESCE_S = 0.2
"""Many rows change together: a cluster's status is written once for all of them."""


@dataclass(frozen=True, slots=True)
class Key:
    """Something to reconcile: an Agent, an AgentCluster, or all Nodes."""

    kind: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


NODES = Key("Nodes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What was last checked of a cluster's objects that are not watched: it saves reads, and is never the truth."""

    generation: int
    at: float
    authority: Authority
    certificates: ServerCertificates


@dataclass
class _Running:
    session: Session
    task: asyncio.Task[None]
    authority: bytes


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Context:
    """One per operator process."""

    settings: Settings
    kubernetes: Kubernetes
    connect: Callable[[str, Authority], Registry]
    """(address, authority) -> the servers there."""
    world: World = field(default_factory=World)
    queue: WorkQueue[Key] = field(default_factory=WorkQueue[Key])
    clock: Callable[[], datetime] = utc_now
    prepared: dict[tuple[str, str], Prepared] = field(default_factory=dict[tuple[str, str], Prepared])
    told_hosts: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict[tuple[str, str], dict[str, str]])
    """Of each cluster whose hosts have been seen: `transitions.of_hosts`."""
    absent: dict[str, float] = field(default_factory=dict[str, float])
    """Namespace -> when the API server last said that it has no AgentCluster (the loop's clock)."""
    status_writes: int = 0
    _sessions: dict[tuple[str, str], _Running] = field(default_factory=dict[tuple[str, str], _Running])
    _background: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    def __post_init__(self) -> None:
        self._pace = Pace(self.settings.status_writes_per_s)

    # --- conversations ----------------------------------------------------------------------------------------------

    def session(self, namespace: str, name: str) -> Session | None:
        """The conversation with a cluster, if there is one."""
        running = self._sessions.get((namespace, name))
        return running.session if running else None

    def sessions(self) -> list[tuple[tuple[str, str], Session]]:
        """All of them, with (namespace, name)."""
        return [(key, running.session) for key, running in self._sessions.items()]

    def open_session(self, namespace: str, name: str, authority: Authority) -> Session:
        """The conversation with this cluster; begun anew when its authority is another one."""
        running = self._sessions.get((namespace, name))
        if running is not None and running.authority == authority.certificate_pem:
            return running.session
        self.close_session(namespace, name)
        address = self.settings.registry_address.format(cluster=name, namespace=namespace)

        def changed(ids: set[str] | None) -> None:
            self.rows_changed(namespace, name, ids)

        session = Session(lambda: self.connect(address, authority), changed)
        task = asyncio.create_task(session.run(), name=f"session {namespace}/{name}")
        self._sessions[namespace, name] = _Running(session, task, authority.certificate_pem)
        return session

    def close_session(self, namespace: str, name: str) -> None:
        """End the conversation; the cluster is gone."""
        self.told_hosts.pop((namespace, name), None)
        running = self._sessions.pop((namespace, name), None)
        if running is not None:
            running.task.cancel()

    def rows_changed(self, namespace: str, cluster: str, ids: set[str] | None) -> None:
        """Reconcile these agents; None: all of the namespace."""
        self.queue.add(Key("AgentCluster", namespace, cluster), COALESCE_S)
        if ids is None:
            self.reconcile_agents(namespace)
            return
        for agent_id in ids:
            where, _, name = agent_id.partition("/")
            self.queue.add(Key("Agent", where, name))

    def reconcile_agents(self, namespace: str) -> None:
        for item in self.world.all(kinds.AGENT, namespace):
            self.queue.add(Key("Agent", namespace, item["metadata"]["name"]))

    # --- writing ----------------------------------------------------------------------------------------------------

    async def write_status(self, item: Json, status: Json, events: list[Event]) -> None:
        """Write the status if it says something else than the object does, and record the events. Paced."""
        if item.get("status") == status:
            return
        await self._pace.step()
        metadata = item["metadata"]
        manifest = {
            "apiVersion": item["apiVersion"],
            "kind": item["kind"],
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
            "status": status,
        }
        written = await self.kubernetes.apply_status(manifest)
        self.status_writes += 1
        if written is None:
            return
        self.world.put(kinds.BY_NAME[item["kind"]], written)
        self.record(item, events)

    async def set_finalizer(self, item: Json, wanted: bool) -> None:
        """Put our finalizer on, or take it off."""
        present: list[str] = item["metadata"].get("finalizers") or []
        if wanted == (FINALIZER in present):
            return
        others = [name for name in present if name != FINALIZER]
        changed = await self.kubernetes.set_finalizers(item, [*others, FINALIZER] if wanted else others)
        if changed is not None and changed["metadata"].get("resourceVersion"):
            self.world.put(kinds.BY_NAME[item["kind"]], changed)

    def record(self, item: Json, events: Iterable[Event]) -> None:
        """Write events in the background: one that cannot be written must not hold anything up."""
        for event in events:
            task = asyncio.create_task(self._write_event(item, event))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def _write_event(self, item: Json, event: Event) -> None:
        metadata = item["metadata"]
        regarding = {
            "apiVersion": item["apiVersion"],
            "kind": item["kind"],
            **{key: metadata[key] for key in ("name", "namespace", "uid")},
        }
        manifest: Json = {
            "apiVersion": kinds.EVENT.api_version,
            "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}", "namespace": metadata["namespace"]},
            "eventTime": self.clock().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": event.type,
            "reason": event.reason,
            "action": "Reconcile",
            "note": event.message[:1000],
            "regarding": regarding,
            "reportingController": REPORTER,
            "reportingInstance": "tenure-operator",
        }
        try:
            await self.kubernetes.create(manifest)
        except KubernetesError as error:
            log.warning("an event about %s was not recorded: %s", metadata["name"], error)

    async def close(self) -> None:
        """End every conversation."""
        tasks = [running.task for running in self._sessions.values()]
        for namespace, name in list(self._sessions):
            self.close_session(namespace, name)
        await asyncio.gather(*tasks, *self._background, return_exceptions=True)
