"""Who a bearer of a token is: by a shared secret (`tenure dev`), or by what the Kubernetes API says (`reviews`)."""

from __future__ import annotations

import asyncio
import hmac
from pathlib import Path
from typing import Protocol

import msgspec

from tenure_api.identity import Role
from tenure_proto.v1.enrolment_pb2 import EnrolRequest

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


def asked_role(request: EnrolRequest) -> Role:
    """The role that it asks for. Raises EnrolmentRefused when nobody enrols so."""
    if request.role not in _ROLES:
        raise EnrolmentRefused(f"Nobody enrols as {request.role!r}: the roles are host and client.")
    return Role(request.role)


class SharedSecret:
    """Everybody who can read the file may enrol under any name: for one machine and one user."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def verify(self, request: EnrolRequest) -> Bearer:
        """Compare in constant time."""
        role = asked_role(request)
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


class _User(msgspec.Struct, frozen=True):
    username: str = ""
    extra: dict[str, list[str]] = {}


class ReviewStatus(msgspec.Struct, frozen=True):
    """`status` of a TokenReview."""

    authenticated: bool = False
    user: _User = _User()
    audiences: list[str] = []
    error: str = ""


class Review(msgspec.Struct, frozen=True):
    """The part of a TokenReview that counts."""

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
