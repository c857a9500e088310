"""Certificates of several clusters on disk, each made once: what every test of the transport starts from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenure_api import identity
from tenured.transport.tls import TlsFiles

CLUSTER = "demo.shop"


class Certificates:
    """certificates("host", "h0") -> TlsFiles signed by that cluster's authority, and trusting `trust`'s."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.authorities: dict[str, identity.Authority] = {}

    def authority(self, cluster: str = CLUSTER) -> identity.Authority:
        if cluster not in self.authorities:
            self.authorities[cluster] = identity.make_authority(cluster)
        return self.authorities[cluster]

    def __call__(self, role: str, holder: str, cluster: str = CLUSTER, trust: str = "") -> TlsFiles:
        directory = self.root / cluster / role / holder / (trust or cluster)
        if not directory.exists():
            directory.mkdir(parents=True)
            issued = identity.issue_with_key(self.authority(cluster), identity.Role(role), holder)
            (directory / "ca.crt").write_bytes(self.authority(trust or cluster).certificate_pem)
            (directory / "tls.crt").write_bytes(issued.certificate_pem)
            (directory / "tls.key").write_bytes(issued.key_pem)
        return TlsFiles(directory)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))
