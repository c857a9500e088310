"""Who a bearer of a token is: by a shared secret (`tenure dev`), or by the Kubernetes API (TokenReview)."""

from __future__ import annotations

import asyncio
import hmac
import ssl
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import msgspec

from tenure_api.identity import Role, slashed
from tenure_proto.v1.enrolment_pb2 import EnrolRequest

_TIMEOUT_S = 4.0
_ROLES = frozenset({Role.HOST, Role.CLIENT})


class EnrolmentRefused(Exception):
    """The token does not prove what was asked for. `retryable`: it could not be checked now."""

    def __init__(self, message: str, next_step: str = "", *, retryable: bool = False) -> None:
        super().__init__(message)
        self.next_step = next_step
        self.retryable = retryable


class Bearer(msgspec.Struct, frozen=True):
    """Whom a token was given to."""

    role: Role
    holder: str


class Verifier(Protocol):
    """Says who the bearer of a token is."""

    async def verify(self, request: EnrolRequest) -> Bearer:
        """Raise EnrolmentRefused when the token does not prove it."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


def _asked_role(request: EnrolRequest) -> Role:
    if request.role not in _ROLES:
        raise EnrolmentRefused(f"Nobody enrols as {request.role!r}: the roles are host and client.")
    return Role(request.role)


class SharedSecret:
    """Everybody who can read the file may enrol under any name: for one machine and one user."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def verify(self, request: EnrolRequest) -> Bearer:
        """Compare in constant time."""
        role = _asked_role(request)
        try:
            secret = (await asyncio.to_thread(self._path.read_text)).strip()
        except OSError as error:
            raise EnrolmentRefused(f"The server cannot read its secret {self._path}: {error.strerror}.") from error
        if not secret or not hmac.compare_digest(secret.encode(), request.token.strip().encode()):
            raise EnrolmentRefused("The token is not the secret of this cluster.", "Is another `tenure dev` running?")
        if not request.name:
            raise EnrolmentRefused("The request names nobody.")
        return Bearer(role, request.name)

    async def close(self) -> None:
        """Nothing is open."""


class TokenReviews:
    """ServiceAccount tokens, checked by the Kubernetes API for this cluster's audience (API.md section 4)."""

    def __init__(self, cluster: str, url: str, account: Path) -> None:
        self._name, _, self._namespace = cluster.partition(".")
        self.audience = f"tenure.dev/{slashed(cluster)}"
        self._url = f"{url}/apis/authentication.k8s.io/v1/tokenreviews"
        self._account = account
        self._session: aiohttp.ClientSession | None = None

    async def verify(self, request: EnrolRequest) -> Bearer:
        """Ask the API who the token is of, and take role and name from the answer."""
        role = _asked_role(request)
        status = await self._review(request.token)
        return bearer_of(status, role, request.name, self._name, self._namespace, self.audience)

    async def close(self) -> None:
        """Close connections to the API."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _review(self, token: str) -> ReviewStatus:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self.audience]},
        }
        try:
            session = await self._open()
            own = (await asyncio.to_thread((self._account / "token").read_text)).strip()
            headers = {"Authorization": f"Bearer {own}"}
            async with session.post(self._url, json=body, headers=headers) as response:
                text = await response.read()
                if response.status not in (200, 201):
                    raise _unreachable(f"it answered {response.status}: {text[:200].decode(errors='replace')}")
            return msgspec.json.decode(text, type=_Review).status
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
            raise _unreachable(str(error) or type(error).__name__) from error

    async def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            context: Any = False
            if self._url.startswith("https:"):
                context = await asyncio.to_thread(ssl.create_default_context, cafile=str(self._account / "ca.crt"))
            connector = aiohttp.TCPConnector(ssl=context)
            timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self._session


class _User(msgspec.Struct, frozen=True):
    username: str = ""
    extra: dict[str, list[str]] = {}


class ReviewStatus(msgspec.Struct, frozen=True):
    """`status` of a TokenReview."""

    authenticated: bool = False
    user: _User = _User()
    audiences: list[str] = []
    error: str = ""


class _Review(msgspec.Struct, frozen=True):
    status: ReviewStatus = ReviewStatus()


def bearer_of(status: ReviewStatus, role: Role, asked_name: str, name: str, namespace: str, audience: str) -> Bearer:
    """Who the reviewed token is of. Pure. Raises EnrolmentRefused with what does not fit."""
    if not status.authenticated:
        reason = status.error or "it is expired, or of another cluster"
        raise EnrolmentRefused(f"Kubernetes does not accept the token: {reason}.")
    if audience not in status.audiences:
        raise EnrolmentRefused(f"The token is not for audience {audience}.", f"Project one with audience {audience}.")
    prefix = f"system:serviceaccount:{namespace}:"
    account = status.user.username.removeprefix(prefix)
    if account == status.user.username:
        raise EnrolmentRefused(f"{status.user.username} is no ServiceAccount of namespace {namespace}.")
    if role is Role.CLIENT:
        if account != f"{name}-client":
            raise EnrolmentRefused(f"ServiceAccount {account} may not act as a client: {name}-client may.")
        return Bearer(role, account)
    if not account.startswith(f"{name}-host-"):
        raise EnrolmentRefused(f"ServiceAccount {account} may not act as a host: {name}-host-POOL may.")
    pods = status.user.extra.get("authentication.kubernetes.io/pod-name", [])
    if len(pods) != 1:
        raise EnrolmentRefused("The token is not bound to a pod.", "Use a projected token of the host's own pod.")
    if asked_name and asked_name != pods[0]:
        raise EnrolmentRefused(f"The token is of pod {pods[0]}; it cannot enrol as {asked_name}.")
    return Bearer(role, pods[0])


def _unreachable(why: str) -> EnrolmentRefused:
    return EnrolmentRefused(f"The Kubernetes API could not check the token: {why}.", retryable=True)
