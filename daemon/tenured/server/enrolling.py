"""Enrolment: a certificate for whoever proves by a token who he is (API.md section 4)."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from tenure_api.identity import (
    BadAuthority,
    BadSigningRequest,
    Identity,
    IdentityError,
    MalformedName,
    issue,
    load_authority,
)
from tenure_proto.v1.common_pb2 import OUTCOME_NOT_APPLIED, Error
from tenure_proto.v1.enrolment_pb2 import EnrolRequest, EnrolResponse
from tenured.server.tokens import Bearer, EnrolmentRefused, Verifier

_log = logging.getLogger(__name__)

_MAX_REQUEST = 64 * 1024


class Enrolling:
    """Signs with the authority's key, which is read at each use: it may be rotated."""

    def __init__(self, cluster: str, authority: Path, verifier: Verifier) -> None:
        self._cluster = cluster
        self._authority = authority
        self._verifier = verifier

    async def enrol(self, request: EnrolRequest) -> EnrolResponse:
        """Answer one request; a refusal says why."""
        if request.ByteSize() > _MAX_REQUEST:
            return _refusal("InvalidArguments", f"The request is larger than {_MAX_REQUEST} bytes.")
        try:
            bearer = await self._verifier.verify(request)
            response = await asyncio.to_thread(self._sign, bearer, request.signing_request_pem)
        except EnrolmentRefused as error:
            _log.warning("enrolment of %s %s refused: %s", request.role, request.name, error)
            code = "Unavailable" if error.retryable else "Unauthenticated"
            return _refusal(code, str(error), error.next_step, retryable=error.retryable)
        except (BadSigningRequest, MalformedName) as error:
            return _refusal("InvalidArguments", str(error))
        except (IdentityError, OSError) as error:
            _log.exception("cannot sign certificates")
            return _refusal("Unavailable", f"This server cannot sign certificates: {error}", retryable=True)
        _log.info("enrolled %s", response.identity)
        return response

    def _sign(self, bearer: Bearer, signing_request: bytes) -> EnrolResponse:
        """In a thread: reads files, parses keys."""
        certificate = self._authority / "ca.crt"
        authority = load_authority(certificate.read_bytes(), (self._authority / "ca.key").read_bytes())
        if authority.cluster != self._cluster:
            raise BadAuthority(f"{certificate} is of cluster {authority.cluster}, this server of {self._cluster}.")
        return EnrolResponse(
            certificate_pem=issue(authority, signing_request, bearer.role, bearer.holder),
            authority_pem=authority.certificate_pem,
            identity=Identity(self._cluster, bearer.role, bearer.holder).uri,
        )


def _refusal(code: str, message: str, next_step: str = "", *, retryable: bool = False) -> EnrolResponse:
    return EnrolResponse(
        error=Error(code=code, message=message, outcome=OUTCOME_NOT_APPLIED, retryable=retryable, next_step=next_step)
    )
