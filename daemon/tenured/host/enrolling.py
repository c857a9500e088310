"""The host's certificate: asked for with a token, kept beside the socket, so that a restart works while the API server
is down.

The token file is read again at each use, since projected tokens rotate. Files: `ca.crt`, `tls.crt`, `tls.key` in
RUN/tls.
"""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from tenure_api import identity
from tenure_proto.v1.enrolment_pb2 import EnrolRequest
from tenured.host.options import Options
from tenured.transport.enrolment import enrol
from tenured.transport.errors import PeerRefused, TransportError
from tenured.transport.tls import TlsFiles

log = logging.getLogger("tenured.host.identity")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0


class CannotEnrol(Exception):
    """There is no certificate and none can be had now; the message says why."""


async def ensure(options: Options, cluster: str) -> TlsFiles:
    """Files that name this host, renewed when past two thirds of their life. Waits for servers as long as there is
    nothing to use.
    """
    files = TlsFiles(options.run / "tls")
    own = identity.Identity(cluster, identity.Role.HOST, options.name)
    state = await asyncio.to_thread(_state, files, own)
    if state == "good":
        return files
    pause, said = FIRST_PAUSE_S, ""
    while True:
        try:
            await _enrol(options, cluster, files)
        except (CannotEnrol, PeerRefused, TransportError) as error:
            if str(error) != said:
                log.warning("not enrolled: %s", error)
            said = str(error)
        else:
            return files
        if state == "old":  # it still serves; the next start tries again
            return files
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_S)


def _state(files: TlsFiles, own: identity.Identity) -> str:
    """`good`; `old`: usable, renew it; `none`: missing, foreign, ended or torn by a crash."""
    try:
        material = files.read()
        named = identity.parse_identity(material.certificate)
        now = datetime.now(UTC)
        if (
            named != own
            or not _belongs(material.certificate, material.key)
            or now >= identity.expires(material.certificate)
        ):
            return "none"
        return "old" if now >= identity.renew_at(material.certificate) else "good"
    except (TransportError, identity.IdentityError, ValueError):
        return "none"


def _belongs(certificate: bytes, key: bytes) -> bool:
    """Whether the key is the certificate's."""
    public = load_pem_private_key(key, password=None).public_key()
    return public == load_pem_x509_certificate(certificate).public_key()


async def _enrol(options: Options, cluster: str, files: TlsFiles) -> None:
    authority, token, key_pem, request_pem = await asyncio.to_thread(_prepare, options)
    request = EnrolRequest(role="host", name=options.name, token=token, signing_request_pem=request_pem)
    response = await enrol(cluster, options.enrol, authority, request)
    await asyncio.to_thread(
        _keep, files.directory, response.authority_pem or authority, response.certificate_pem, key_pem
    )
    log.info("enrolled as %s", response.identity)


def _prepare(options: Options) -> tuple[bytes, str, bytes, bytes]:
    try:
        authority = options.ca.read_bytes()
        token = options.token.read_text().strip()
    except OSError as error:
        raise CannotEnrol(f"cannot read {error.filename}: {error.strerror}") from error
    key = identity.new_key()
    return authority, token, identity.key_to_pem(key), identity.signing_request(key)


def _keep(directory: Path, authority: bytes, certificate: bytes, key: bytes) -> None:
    """Each file replaced in one step; a crash between two leaves a pair that does not match, which `_state` sees."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, data in (("ca.crt", authority), ("tls.key", key), ("tls.crt", certificate)):
        temporary = directory / f".{name}.new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.replace(directory / name)
