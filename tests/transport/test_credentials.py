"""Credentials of a listener: read at each handshake, handed to gRPC only when they changed."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from tenure_api import identity
from tenured.transport.tls import TlsFiles, server_credentials


def write(directory: Path, name: str) -> None:
    authority = identity.make_authority("demo.shop")
    issued = identity.issue_with_key(authority, identity.Role.SERVER, name)
    for file, content in (
        ("ca.crt", authority.certificate_pem),
        ("tls.crt", issued.certificate_pem),
        ("tls.key", issued.key_pem),
    ):
        (directory / file).write_bytes(content)


def test_grpc_is_given_a_configuration_only_when_the_files_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at each handshake replaces what other handshakes use, and ends the process with a segmentation fault."""
    given: list[Any] = []
    monkeypatch.setattr(grpc, "dynamic_ssl_server_credentials", lambda first, fetch, **_: given.extend([first, fetch]))
    write(tmp_path, "server-0")
    server_credentials(TlsFiles(tmp_path))
    first, fetch = given
    assert first is not None
    assert [fetch(), fetch()] == [None, None]
    write(tmp_path, "server-0")
    assert fetch() is not None
    assert fetch() is None
    (tmp_path / "tls.key").unlink()
    assert fetch() is None, "files that are being replaced change nothing"
