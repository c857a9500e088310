"""Certificates of two clusters on disk, made once: what every test of the transport starts from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenure_api import identity
from tenured.transport.tls import TlsFiles

CLUSTER = "demo.shop"


@pytest.fixture(scope="session")
def tls(tmp_path_factory):
    """tls(role, holder, cluster=CLUSTER) -> TlsFiles signed by that cluster's authority."""
    root: Path = tmp_path_factory.mktemp("tls")
    authorities: dict[str, identity.Authority] = {}

    def make(role: str, holder: str, cluster: str = CLUSTER, trust: str | None = None) -> TlsFiles:
        for name in (cluster, trust or cluster):
            if name not in authorities:
                authorities[name] = identity.make_authority(name)
        directory = root / cluster / role / holder / (trust or "")
        if not directory.exists():
            directory.mkdir(parents=True)
            issued = identity.issue_with_key(authorities[cluster], identity.Role(role), holder)
            (directory / "ca.crt").write_bytes(authorities[trust or cluster].certificate_pem)
            (directory / "tls.crt").write_bytes(issued.certificate_pem)
            (directory / "tls.key").write_bytes(issued.key_pem)
        return TlsFiles(directory)

    make.authorities = authorities
    return make
