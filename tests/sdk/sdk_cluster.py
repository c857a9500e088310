"""A cluster that is none: gRPC servers in this process, with real certificates, that answer what a test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import msgspec

from tenure._remote import Endpoint
from tenure_api import identity
from tenure_api.identity import Authority, Role
from tenure_proto.v1 import (
    calls_pb2,
    calls_pb2_grpc,
    common_pb2,
    enrolment_pb2,
    enrolment_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)

CLUSTER = "shop/main"
TOKEN = "a token"
Answer = Callable[[calls_pb2.Call], calls_pb2.Reply | None]
"""What a host says to a call; None: nothing, for ever."""


def value(result: object, epoch: int = 1) -> Answer:
    return lambda call: calls_pb2.Reply(seq=call.seq, value=msgspec.msgpack.encode(result), epoch=epoch, cluster_time=9)


def error(
    code: str, *, unknown: bool = False, retryable: bool = False, moved_to: common_pb2.Route | None = None
) -> Answer:
    outcome = common_pb2.OUTCOME_UNKNOWN if unknown else common_pb2.OUTCOME_NOT_APPLIED
    problem = common_pb2.Error(
        code=code, message=f"it is {code}", outcome=outcome, retryable=retryable, moved_to=moved_to
    )
    return lambda call: calls_pb2.Reply(seq=call.seq, error=problem)


def silent(_: calls_pb2.Call) -> None:
    """As a host that is frozen."""


@dataclass
class Calls(calls_pb2_grpc.CallsServicer):
    """A host, or a server that passes calls on."""

    name: str
    answers: list[Answer] = field(default_factory=list)
    """One for each call that comes; the last one stays."""
    seen: list[calls_pb2.Call] = field(default_factory=list)
    batches: int = 0
    drop: bool = False
    """End the stream instead of answering, once."""
    came: asyncio.Event = field(default_factory=asyncio.Event)
    address: str = ""
    frames_address: str = ""
    lines: list[str] = field(default_factory=list)

    async def Session(self, request_iterator, context):  # noqa: ANN001, ANN201, N802 - gRPC's
        async for batch in request_iterator:
            self.batches += 1
            for call in batch.calls:
                self.seen.append(call)
                self.came.set()
                if self.drop:
                    self.drop = False
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
                answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
                reply = answer(call)
                if reply is not None:
                    reply.host = self.name
                    yield calls_pb2.ReplyBatch(replies=[reply])

    async def Logs(self, request, context):  # noqa: ANN001, ANN201, N802 - gRPC's
        lines = self.lines[-request.tail :] if request.tail else []
        yield calls_pb2.LogBatch(lines=[calls_pb2.LogLine(text=text, host=self.name) for text in lines])


@dataclass
class Registry(registry_pb2_grpc.RegistryServicer, enrolment_pb2_grpc.EnrolmentServicer):
    """A server."""

    authority: Authority
    routes: dict[str, common_pb2.Route] = field(default_factory=dict)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    applied: list[registry_pb2.ApplyAgentsRequest] = field(default_factory=list)
    refuse: list[common_pb2.Error] = field(default_factory=list)
    """What to say to the next applies."""
    fail: list[grpc.StatusCode] = field(default_factory=list)
    batches: list[registry_pb2.WatchBatch] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Somebody long-polls."""
    resolved: int = 0
    """How often somebody asked where an agent is."""
    polls: list[int] = field(default_factory=list)
    """How long each asked to wait, in ms."""
    watched_from: list[int] = field(default_factory=list)
    changes_address: str = ""
    """Where it says that the leader takes changes."""

    async def move(self, route: common_pb2.Route) -> None:
        async with self.changed:
            self.routes[route.agent] = route
            self.changed.notify_all()

    async def delete(self, agent: str) -> None:
        async with self.changed:
            del self.routes[agent]
            self.changed.notify_all()

    async def Resolve(self, request, context):  # noqa: ANN001, ANN201, N802 - gRPC's
        def standing() -> object:
            route = self.routes.get(request.agent)
            return None if route is None else (route.epoch, route.host)

        def settled() -> bool:
            route = self.routes.get(request.agent)
            return route is None or route.epoch != request.known_epoch or standing() != before

        before = standing()
        self.resolved += 1
        if request.wait_ms:
            self.polls.append(request.wait_ms)
            self.asked.set()
        async with self.changed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(request.wait_ms / 1000):
                    await self.changed.wait_for(settled)
        route = self.routes.get(request.agent)
        if route is None:
            problem = common_pb2.Error(code="NotFound", message="none", outcome=common_pb2.OUTCOME_NOT_APPLIED)
            return registry_pb2.ResolveResponse(error=problem, cluster_time=5)
        return registry_pb2.ResolveResponse(route=route, cluster_time=5)

    async def Status(self, request, context):  # noqa: ANN001, ANN201, N802 - gRPC's
        return registry_pb2.StatusResponse(cluster=CLUSTER, leader="server-0")

    async def ApplyAgents(self, request, context):  # noqa: ANN001, ANN201, N802 - gRPC's
        self.applied.append(request)
        if self.fail:
            await context.abort(self.fail.pop(0), "not now")
        result = registry_pb2.RowResult(id=request.agents[0].id, outcome="created")
        if self.refuse:
            result = registry_pb2.RowResult(id=request.agents[0].id, outcome="refused", error=self.refuse.pop(0))
        elif (route := self.routes.get(request.agents[0].id)) is not None:
            result.route.CopyFrom(route)
        return registry_pb2.ApplyAgentsResponse(results=[result], changes_address=self.changes_address)

    async def Watch(self, request, context):  # noqa: ANN001, ANN201, N802 - gRPC's
        self.watched_from.append(request.from_revision)
        while self.batches:
            yield self.batches.pop(0)
            if self.fail:
                await context.abort(self.fail.pop(0), "not now")

    async def Enrol(self, request, context):  # noqa: ANN001, ANN201, N802 - gRPC's
        if request.token != TOKEN:
            problem = common_pb2.Error(code="Unauthenticated", message="who are you?")
            return enrolment_pb2.EnrolResponse(error=problem)
        pem = identity.issue(self.authority, request.signing_request_pem, Role.CLIENT, "alice")
        return enrolment_pb2.EnrolResponse(certificate_pem=pem, authority_pem=self.authority.certificate_pem)


@dataclass
class FakeCluster:
    """One server and as many hosts as a test starts."""

    authority: Authority
    registry: Registry
    server: Calls
    api: str
    enrol: str
    running: list[grpc.aio.Server]
    numbers: int = 0

    async def host(self, name: str, *answers: Answer) -> Calls:
        """A host that listens."""
        calls = Calls(name, list(answers))
        issued = identity.issue_with_key(self.authority, Role.HOST, name)
        server = grpc.aio.server()
        calls_pb2_grpc.add_CallsServicer_to_server(calls, server)
        port = server.add_secure_port("127.0.0.1:0", _credentials(self.authority, issued, ask=True))
        await server.start()
        self.running.append(server)
        calls.address = f"127.0.0.1:{port}"
        return calls

    def route(self, agent: str, host: Calls, epoch: int = 1) -> common_pb2.Route:
        return common_pb2.Route(
            agent=agent, uid="7", host=host.name, address=host.address, frames_address=host.frames_address,
            epoch=epoch, ready=True,
        )  # fmt: skip

    async def place(self, agent: str, host: Calls, epoch: int = 1) -> None:
        await self.registry.move(self.route(agent, host, epoch))

    def endpoint(self, *, proxied: bool = False, authority: Authority | None = None) -> Endpoint:
        issued = identity.issue_with_key(authority or self.authority, Role.CLIENT, "alice")
        return Endpoint(
            CLUSTER, (self.api,), self.authority.certificate_pem, issued.certificate_pem, issued.key_pem, proxied
        )

    def directory(self, path: Path, role: Role = Role.CLIENT, holder: str = "alice") -> Path:
        """An identity in files, as TENURE_TLS wants it."""
        issued = identity.issue_with_key(self.authority, role, holder)
        for name, pem in (
            ("ca.crt", self.authority.certificate_pem),
            ("tls.crt", issued.certificate_pem),
            ("tls.key", issued.key_pem),
        ):
            (path / name).write_bytes(pem)
        return path


def _credentials(authority: Authority, issued: identity.Issued, *, ask: bool) -> grpc.ServerCredentials:
    pair = [(issued.key_pem, issued.certificate_pem)]
    root = authority.certificate_pem if ask else None
    return grpc.ssl_server_credentials(pair, root_certificates=root, require_client_auth=ask)


@contextlib.asynccontextmanager
async def fake_cluster() -> AsyncIterator[FakeCluster]:
    authority = identity.make_authority("main.shop")
    registry, passing = Registry(authority), Calls("server-0")
    issued = identity.issue_with_key(authority, Role.SERVER, "server-0")
    api, enrol = grpc.aio.server(), grpc.aio.server()
    registry_pb2_grpc.add_RegistryServicer_to_server(registry, api)
    calls_pb2_grpc.add_CallsServicer_to_server(passing, api)
    enrolment_pb2_grpc.add_EnrolmentServicer_to_server(registry, enrol)
    api_port = api.add_secure_port("127.0.0.1:0", _credentials(authority, issued, ask=True))
    enrol_port = enrol.add_secure_port("127.0.0.1:0", _credentials(authority, issued, ask=False))
    running = [api, enrol]
    for server in running:
        await server.start()
    try:
        yield FakeCluster(authority, registry, passing, f"127.0.0.1:{api_port}", f"127.0.0.1:{enrol_port}", running)
    finally:
        for server in running:
            await server.stop(None)
