"""What the operator's tests share: a cluster's servers as a fake on real gRPC and TLS, and the operator itself.

The fake keeps rows as real servers do, as far as the operator can see: epochs, readiness and sentences are the test's.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from grpc import aio

from tenure_api import identity
from tenure_operator import main
from tenure_operator.registry.client import GrpcRegistry
from tenure_operator.settings import Settings
from tenure_proto.v1 import common_pb2
from tenure_proto.v1 import registry_pb2 as pb
from tenure_proto.v1.registry_pb2_grpc import RegistryServicer, add_RegistryServicer_to_server

DEADLINE_S = 40


class FakeServers(RegistryServicer):
    """The Registry service of one cluster."""

    def __init__(self) -> None:
        self.revision = 10
        self.agents: dict[str, pb.AgentRow] = {}
        self.hosts: dict[str, pb.HostRow] = {}
        self.pools: dict[str, pb.PoolSpec] = {}
        self.nodes: dict[str, pb.NodeState] = {}
        self.requests: list[tuple[str, Any]] = []
        self.callers: set[str] = set()
        self.refuse: dict[str, tuple[str, str]] = {}
        self._changed = asyncio.Condition()
        self._log: list[pb.WatchBatch] = []
        self._server: aio.Server | None = None
        self.port = 0

    # --- the test's side --------------------------------------------------------------------------------------------

    async def until(self, what: str, condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
        """Wait for a condition that requests or rows make true."""
        async with asyncio.timeout(deadline_s), self._changed:
            while not condition():
                try:
                    await self._changed.wait()
                except asyncio.CancelledError:
                    raise AssertionError(f"not seen within {deadline_s} s: {what}") from None

    def count(self, name: str) -> int:
        return sum(kind == name for kind, _ in self.requests)

    async def change(self, agent_id: str, **fields: Any) -> None:
        """Set fields of a row, as placement or a host's report would."""
        row = self.agents[agent_id]
        for name, value in fields.items():
            if name == "last_failover":
                row.last_failover.CopyFrom(value)
            else:
                setattr(row, name, value)
        await self._publish(pb.WatchBatch(agents=[row]))

    async def run(self, agent_id: str, node: str = "node-1", epoch: int = 1) -> None:
        """The agent answers on a node."""
        await self.change(
            agent_id,
            epoch=epoch,
            host=f"host-on-{node}",
            node=node,
            ready=True,
            phase="Running",
            summary=f"Running on {node}",
            reason="Running",
        )

    async def drop(self, agent_id: str) -> None:
        """The row goes, its holder has stopped it."""
        row = self.agents.pop(agent_id)
        await self._publish(pb.WatchBatch(gone_agents=[row.uid]))

    async def add_host(self, name: str, **fields: Any) -> None:
        row = pb.HostRow(name=name, incarnation=f"{name}-i", pool="default", ready=True, **fields)
        self.hosts[row.incarnation] = row
        await self._publish(pb.WatchBatch(hosts=[row]))

    async def create_by_api(self, agent_id: str) -> None:
        spec = pb.AgentSpec(id=agent_id, pool="default")
        self._put(spec, pb.MANAGED_BY_API)
        await self._publish(pb.WatchBatch(agents=[self.agents[agent_id]]))

    async def serve(self, secret: dict[str, Any], name: str, port: int = 0) -> None:
        """Listen with a certificate from the Secret that the operator wrote."""
        data = {key: base64.b64decode(value) for key, value in secret["data"].items()}
        credentials = grpc.ssl_server_credentials(
            [(data[f"{name}.key"], data[f"{name}.crt"])], data["ca.crt"], require_client_auth=True
        )
        self._server = aio.server(options=[("grpc.so_reuseport", 0)])
        add_RegistryServicer_to_server(self, self._server)
        self.port = self._server.add_secure_port(f"127.0.0.1:{port or self.port}", credentials)
        await self._server.start()

    async def stop(self) -> None:
        """All servers go silent; what they know, they keep."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    # --- the operator's side ----------------------------------------------------------------------------------------

    async def _publish(self, batch: pb.WatchBatch) -> None:
        self.revision += 1
        batch.revision = self.revision
        async with self._changed:
            self._log.append(batch)
            self._changed.notify_all()

    async def _heard(self, name: str, request: Any, context: Any) -> None:
        self.callers |= {value.decode() for value in context.auth_context().get("x509_subject_alternative_name", [])}
        async with self._changed:
            self.requests.append((name, request))
            self._changed.notify_all()

    def _put(self, spec: pb.AgentSpec, door: Any) -> str:
        old = self.agents.get(spec.id)
        if old is None:
            row = pb.AgentRow(uid=str(self.revision + 1), spec=spec, managed_by=door, phase="Pending")
            row.summary, row.reason = "Waiting: to be placed", "Scheduled"
            self.agents[spec.id] = row
            return "created"
        state = old.spec.state
        old.spec.CopyFrom(spec)
        old.spec.state = state
        return "configured"

    async def ApplyAgents(self, request: pb.ApplyAgentsRequest, context: Any) -> pb.ApplyAgentsResponse:  # noqa: N802
        await self._heard("ApplyAgents", request, context)
        results, rows = [], []
        for spec in request.agents:
            old = self.agents.get(spec.id)
            if spec.id in self.refuse:
                code, message = self.refuse[spec.id]
                results.append(_refused(spec.id, code, message))
            elif old is not None and old.managed_by != request.managed_by:
                results.append(_refused(spec.id, "ManagedElsewhere", f"{spec.id} was created through the API"))
            elif old is not None and old.spec.object_uid != spec.object_uid:
                results.append(_refused(spec.id, "NameTaken", f"{spec.id} still belongs to an earlier object"))
            else:
                results.append(pb.RowResult(id=spec.id, outcome=self._put(spec, request.managed_by)))
                rows.append(self.agents[spec.id])
        if rows:
            await self._publish(pb.WatchBatch(agents=rows))
        return pb.ApplyAgentsResponse(results=results, revision=self.revision)

    async def DeleteAgents(self, request: pb.DeleteAgentsRequest, context: Any) -> pb.DeleteAgentsResponse:  # noqa: N802
        await self._heard("DeleteAgents", request, context)
        results = []
        for agent_id in request.ids:
            row = self.agents.get(agent_id)
            if row is None or row.spec.object_uid != request.object_uid:
                results.append(pb.RowResult(id=agent_id, outcome="gone"))
            elif not row.host:
                await self.drop(agent_id)
                results.append(pb.RowResult(id=agent_id, outcome="gone"))
            else:
                await self.change(agent_id, deleting=True, phase="Terminating", summary=f"Stopping on {row.node}")
                results.append(pb.RowResult(id=agent_id, outcome="deleting"))
        return pb.DeleteAgentsResponse(results=results, revision=self.revision)

    async def ApplyCluster(self, request: pb.ApplyClusterRequest, context: Any) -> pb.ApplyClusterResponse:  # noqa: N802
        gone = self.pools.keys() - {pool.name for pool in request.pools}
        self.pools = {pool.name: pool for pool in request.pools}
        await self._publish(pb.WatchBatch(pools=[pb.PoolRow(spec=pool) for pool in request.pools], gone_pools=gone))
        await self._heard("ApplyCluster", request, context)
        return pb.ApplyClusterResponse(revision=self.revision)

    async def SetNodes(self, request: pb.SetNodesRequest, context: Any) -> pb.SetNodesResponse:  # noqa: N802
        self.nodes = {node.node: node for node in request.nodes}
        await self._heard("SetNodes", request, context)
        return pb.SetNodesResponse(revision=self.revision)

    async def Status(self, request: pb.StatusRequest, context: Any) -> pb.StatusResponse:  # noqa: N802
        servers = [
            pb.ServerStatus(name=f"demo-server-{n}", role="leader" if n == 1 else "follower", connected=True)
            for n in range(3)
        ]
        return pb.StatusResponse(leader="demo-server-1", term=4, servers=servers, quorum_ready=3)

    async def Resolve(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    async def Watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[pb.WatchBatch]:  # noqa: N802
        await self._heard("Watch", request, context)
        at = len(self._log)
        yield pb.WatchBatch(
            revision=self.revision,
            snapshot=True,
            synced=True,
            agents=self.agents.values(),
            hosts=self.hosts.values(),
            pools=[pb.PoolRow(spec=pool) for pool in self.pools.values()],
        )
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: len(self._log) > at)  # noqa: B023
                news, at = self._log[at:], len(self._log)
            for batch in news:
                yield batch


def _refused(agent_id: str, code: str, message: str) -> pb.RowResult:
    return pb.RowResult(id=agent_id, outcome="refused", error=common_pb2.Error(code=code, message=message))


class Operator:
    """The operator in this process, as the chart's ServiceAccount; can be stopped and started."""

    def __init__(self, settings: Settings, ports: dict[str, int]) -> None:
        self._settings = settings
        self._ports = ports
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._stop = asyncio.Event()
        ready = asyncio.Event()
        run = main.run(self._settings, connect=self._connect, ready=ready.set, stop=self._stop)
        self._task = asyncio.create_task(run, name="operator")
        waiting = asyncio.create_task(ready.wait())
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.wait([waiting, self._task], return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            waiting.cancel()
            self._task.result()

    async def stop(self) -> None:
        if self._task is not None:
            self._stop.set()
            await self._task
            self._task = None

    def _connect(self, address: str, authority: identity.Authority) -> GrpcRegistry:
        return GrpcRegistry(f"127.0.0.1:{self._ports.get(address, 1)}", authority)


class Shop:
    """One namespace of the API server, asked without blocking the loop that the operator runs on."""

    def __init__(self, api: Any, namespace: str, ports: dict[str, int]) -> None:
        self.api = api
        self.namespace = namespace
        self.ports = ports
        self.servers = FakeServers()

    async def kubectl(self, *arguments: str, **more: Any) -> str:
        done = await asyncio.to_thread(self.api.kubectl, "-n", self.namespace, *arguments, **more)
        return done.stdout + done.stderr

    async def apply(self, *manifests: dict[str, Any]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        await self.kubectl("apply", "--validate=strict", "-f", "-", stdin=json.dumps(listed))

    async def get(self, *arguments: str) -> dict[str, Any]:
        return json.loads(await self.kubectl("get", "-o", "json", *arguments))

    async def wait(self, what: str, path: str, value: str) -> dict[str, Any]:
        """Until the field at this JSON path has the value; `kubectl wait` watches."""
        await self.kubectl("wait", f"--for=jsonpath={{{path}}}={value}", f"--timeout={DEADLINE_S}s", what)
        return await self.get(what)

    async def wait_made(self, what: str) -> dict[str, Any]:
        await self.kubectl("wait", "--for=create", f"--timeout={DEADLINE_S}s", what)
        return await self.get(what)

    async def wait_gone(self, what: str) -> None:
        await self.kubectl("wait", "--for=delete", f"--timeout={DEADLINE_S}s", what)

    async def wait_condition(self, what: str, kind: str, status: str) -> dict[str, Any]:
        await self.kubectl("wait", f"--for=condition={kind}={status}", f"--timeout={DEADLINE_S}s", what)
        return condition(await self.get(what), kind)

    async def start_servers(self, cluster: str = "demo") -> None:
        """Servers begin to answer, with the certificates that the operator made for them."""
        secret = await self.wait_made(f"secret/{cluster}-server-tls")
        await self.servers.serve(secret, f"{cluster}-server-0")
        self.ports[f"{cluster}.{self.namespace}.svc:7443"] = self.servers.port

    async def events(self, name: str) -> set[tuple[str, str]]:
        found = await self.get("events.events.k8s.io")
        return {(item["type"], item["reason"]) for item in found["items"] if item["regarding"]["name"] == name}


def condition(item: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(found for found in item["status"]["conditions"] if found["type"] == kind)


@pytest.fixture(scope="session")
def ports() -> dict[str, int]:
    """Address that the operator dials -> port where a fake listens."""
    return {}


@pytest.fixture(scope="session")
async def operator(installed: Any, ports: dict[str, int]) -> AsyncIterator[Operator]:
    """The operator with exactly the rights that the chart gives it."""
    token = installed.kubectl("create", "token", "-n", "tenure-system", "tenure-operator", "--duration=2h").stdout
    kubeconfig = installed.config_for(token.strip(), "operator")
    settings = Settings(
        image="localhost/tenure:test",
        kubeconfig=kubeconfig,
        http_port=0,
        resync_s=2.0,
    )
    made = Operator(settings, ports)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kubeconfig))  # where kopf looks
        await made.start()
        yield made
        await made.stop()


@pytest.fixture
async def shop(installed: Any, operator: Operator, ports: dict[str, int], request: Any) -> AsyncIterator[Shop]:
    """A namespace of the test's own."""
    name = f"shop-{abs(hash(request.node.name)) % 10**8}"
    await asyncio.to_thread(installed.kubectl, "create", "namespace", name)
    made = Shop(installed, name, ports)
    yield made
    await made.servers.stop()


@pytest.fixture
def eventually() -> Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]:
    """Ask the API server again and again until it says what is expected, or the deadline passes."""

    async def ask(question: Callable[[], Awaitable[object]], deadline_s: float = DEADLINE_S) -> None:
        async with asyncio.timeout(deadline_s):
            while not await question():
                pass  # each question is a round trip of kubectl: no pause is needed

    return ask
