"""Listeners: gRPC servers whose every method first checks who is calling.

Handlers see no gRPC: they get the verified `Identity` of the peer and messages, and answer with messages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import grpc
from google.protobuf.message import Message
from grpc import aio

from tenure_api.identity import Identity, MalformedCertificate, Role, parse_uri
from tenured.transport.errors import TransportError
from tenured.transport.tls import SERVER_OPTIONS, TlsFiles, server_credentials

Req = TypeVar("Req", bound=Message)
Res = TypeVar("Res", bound=Message)
Context = aio.ServicerContext[Message, Message]

_SAN = "x509_subject_alternative_name"


class Refusal(Exception):
    """Raised by a handler: the peer gets PERMISSION_DENIED with this sentence."""

    code = grpc.StatusCode.PERMISSION_DENIED


class Invalid(Refusal):
    """Raised by a handler: the peer gets INVALID_ARGUMENT with this sentence."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class Unserved(Refusal):
    """Raised by a handler that cannot answer now: the peer gets UNAVAILABLE with this sentence, and may repeat."""

    code = grpc.StatusCode.UNAVAILABLE


class Duplex(Generic[Req, Res]):
    """One open stream as its handler sees it."""

    def __init__(self, requests: AsyncIterator[Req], context: Context) -> None:
        self._requests = requests
        self._context = context

    def __aiter__(self) -> AsyncIterator[Req]:
        return self._requests

    async def write(self, message: Res) -> None:
        """Send one message; returns when gRPC has taken it (back-pressure). One writer at a time."""
        await self._context.write(message)


class EncodedStream:
    """A stream of one direction whose handler writes bytes that it encoded before (once for many peers)."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def write(self, encoded: bytes) -> None:
        """Send one encoded message; returns when gRPC has taken it."""
        await self._context.write(encoded)  # type: ignore[arg-type] # this method has no serializer


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service with its handler, ready to be registered. Made by `unary`, `server_stream`, `duplex`."""

    path: str
    build: Callable[[Callable[[Context], Awaitable[Identity]]], grpc.RpcMethodHandler[Message, Message]]


def unary(path: str, request: type[Req], handler: Callable[[Identity, Req], Awaitable[Message]]) -> Method:
    """One request, one answer. On a listener that asks for no certificate the peer is `client/anonymous`."""

    def build(check: Callable[[Context], Awaitable[Identity]]) -> grpc.RpcMethodHandler[Message, Message]:
        async def call(message: Req, context: Context) -> Message:
            peer = await check(context)
            try:
                return await handler(peer, message)
            except Refusal as error:
                await context.abort(error.code, str(error))

        return grpc.unary_unary_rpc_method_handler(call, request.FromString, _encode)

    return Method(path, build)


def server_stream(
    path: str, request: type[Req], handler: Callable[[Identity, Req, EncodedStream], Awaitable[None]]
) -> Method:
    """One request, many answers, written as encoded bytes."""

    def build(check: Callable[[Context], Awaitable[Identity]]) -> grpc.RpcMethodHandler[Message, Message]:
        async def call(message: Req, context: Context) -> None:
            peer = await check(context)
            try:
                await handler(peer, message, EncodedStream(context))
            except Refusal as error:
                await context.abort(error.code, str(error))

        return grpc.unary_stream_rpc_method_handler(call, request.FromString, None)

    return Method(path, build)


def duplex(path: str, request: type[Req], handler: Callable[[Identity, Duplex[Req, Res]], Awaitable[None]]) -> Method:
    """A stream in both directions, which ends when the handler returns."""

    def build(check: Callable[[Context], Awaitable[Identity]]) -> grpc.RpcMethodHandler[Message, Message]:
        async def call(requests: AsyncIterator[Req], context: Context) -> None:
            peer = await check(context)
            try:
                await handler(peer, Duplex(requests, context))
            except Refusal as error:
                await context.abort(error.code, str(error))

        return grpc.stream_stream_rpc_method_handler(call, request.FromString, _encode)

    return Method(path, build)


class Listener:
    """One port with its services. `roles` says who may call each method (None: no certificate is asked for).

    Raises TransportError from `start` when the port is taken, and BadFiles.
    """

    def __init__(
        self,
        files: TlsFiles,
        cluster: str,
        methods: Sequence[Method],
        roles: Mapping[str, frozenset[Role]] | None,
    ) -> None:
        self._files = files
        self._cluster = cluster
        self._methods = methods
        self._roles = roles
        self._server: aio.Server | None = None
        self.port = 0

    async def start(self, address: str, port: int) -> None:
        """Listen. Port 0: the system chooses one, see `port`."""
        server = aio.server(options=SERVER_OPTIONS)
        for method in self._methods:
            service, _, name = method.path[1:].partition("/")
            handler = method.build(self._checker(method.path))
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
        credentials = server_credentials(self._files, ask_for_certificate=self._roles is not None)
        try:
            self.port = server.add_secure_port(f"{address}:{port}", credentials)
        except RuntimeError as error:
            raise TransportError(f"Cannot listen on {address}:{port}: {error}. Is another process there?") from error
        await server.start()
        self._server = server

    async def stop(self, grace_s: float = 0.2) -> None:
        """Refuse new calls, cut open streams after the grace. Does nothing if not started."""
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None

    def _checker(self, path: str) -> Callable[[Context], Awaitable[Identity]]:
        roles = self._roles

        async def nobody(_: Context) -> Identity:
            return Identity(self._cluster, Role.CLIENT, "anonymous")

        if roles is None:
            return nobody
        allowed = roles.get(path, frozenset())

        async def check(context: Context) -> Identity:
            identity, reason = judge(identity_names(context), self._cluster, path, allowed)
            if identity is None:
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, reason)
            return identity

        return check


def identity_names(context: Context) -> list[str]:
    """The URI names of the peer's verified certificate."""
    names = context.auth_context().get(_SAN, [])
    return [text for name in names if (text := name.decode(errors="replace")).startswith("spiffe://")]


def judge(names: Sequence[str], cluster: str, path: str, allowed: frozenset[Role]) -> tuple[Identity | None, str]:
    """Whether the holder of these URI names may call the method: (identity, "") or (None, why not)."""
    if len(names) != 1:
        return None, f"The certificate carries {len(names)} identities; exactly one is needed."
    try:
        identity = parse_uri(names[0])
    except MalformedCertificate as error:
        return None, str(error)
    if identity.cluster != cluster:
        return None, f"{identity.uri} belongs to cluster {identity.cluster}; this is cluster {cluster}."
    if identity.role not in allowed:
        who = " or ".join(sorted(allowed)) or "nobody"
        return None, f"{identity.uri} is a {identity.role}; {path} may be called by {who} on this port."
    return identity, ""


def _encode(message: Message) -> bytes:
    return message.SerializeToString()
