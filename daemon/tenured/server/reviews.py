"""ServiceAccount tokens, asked about at the Kubernetes API (TokenReview). Imported where it is needed only: its client
of HTTP is a third of what a server imports, and a server that starts again is waited for.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from tenure_api.identity import slashed
from tenure_proto.v1.enrolment_pb2 import EnrolRequest
from tenured.server.tokens import Bearer, EnrolmentRefused, Review, ReviewStatus, asked_role, bearer_of

_TIMEOUT_S = 4.0


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
        role = asked_role(request)
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
            return msgspec.json.decode(text, type=Review).status
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


def _unreachable(why: str) -> EnrolmentRefused:
    return EnrolmentRefused(f"The Kubernetes API could not check the token: {why}.", retryable=True)
