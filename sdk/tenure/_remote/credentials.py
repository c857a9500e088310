"""A client's certificate for Python's own TLS, which reads certificates of a client from files only."""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Generator

from tenure._remote.endpoint import Endpoint
from tenure.errors import ConfigurationError


def context_of(endpoint: Endpoint) -> ssl.SSLContext:
    """For connections to hosts of this cluster. Raises ConfigurationError when the certificate and key do not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        with _as_file(endpoint.certificate_pem + b"\n" + endpoint.key_pem) as path:
            context.load_cert_chain(path)
        context.load_verify_locations(cadata=endpoint.authority_pem.decode("ascii"))
    except (OSError, ssl.SSLError, ValueError) as error:
        raise ConfigurationError(f"certificate, key and authority do not fit together: {error}") from error
    return context


@contextlib.contextmanager
def _as_file(content: bytes) -> Generator[str]:
    """Where there are such, in memory: a key on no disk, and no disk needed (a pod's may be read-only)."""
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("tenure-client"), "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as file:  # readable by its owner only
            file.write(content)
            file.flush()
            yield file.name
