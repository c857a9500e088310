"""A real API server (etcd and kube-apiserver, no nodes) for the tests of CRDs, operator and chart, and a real
PostgreSQL for those of the state store.
"""

import base64
import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from postgres_server import PostgresServer

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "test-admin"
DEADLINE_S = 60


def kubernetes_binaries() -> Path:
    """Directory with etcd, kube-apiserver, kubectl and helm: TENURE_K8S_BIN, else what tools/k8s has built."""
    if given := os.environ.get("TENURE_K8S_BIN"):
        return Path(given)
    command = [sys.executable, "-m", "tools.k8s", "binaries"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return Path(found.stdout.strip().splitlines()[-1])


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for made in sockets:
        made.bind(("127.0.0.1", 0))
    ports = [made.getsockname()[1] for made in sockets]
    for made in sockets:
        made.close()
    return ports


@dataclass
class ApiServer:
    """A running control plane without nodes, and kubectl for it."""

    url: str
    kubeconfig: Path
    authority: Path
    binaries: Path
    directory: Path

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [str(self.binaries / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments]
        result = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)
        if check and result.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {result.stderr}")
        return result

    def helm(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [str(self.binaries / "helm"), "--kubeconfig", str(self.kubeconfig), *arguments]
        environment = {**os.environ, "HELM_CACHE_HOME": str(self.directory), "HELM_CONFIG_HOME": str(self.directory)}
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120
        )
        if check and result.returncode:
            raise AssertionError(f"helm {' '.join(arguments)}: {result.stderr}")
        return result

    def apply(self, manifest: object, *, namespace: str = "default") -> subprocess.CompletedProcess[str]:
        """`kubectl apply` of one object, unknown fields refused; the result may be a refusal."""
        return self.kubectl(
            "apply", "--validate=strict", "-n", namespace, "-f", "-", stdin=json.dumps(manifest), check=False
        )

    def get(self, *arguments: str) -> dict[str, object]:
        return json.loads(self.kubectl("get", "-o", "json", *arguments).stdout)

    def config_for(self, token: str, name: str) -> Path:
        """A kubeconfig of somebody else, by token."""
        path = self.directory / f"{name}.kubeconfig"
        path.write_text(json.dumps(_kubeconfig(self.url, self.authority, token)))
        return path


def _kubeconfig(url: str, authority: Path, token: str) -> dict[str, object]:
    data = base64.b64encode(authority.read_bytes()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority-data": data}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "default"}}],
    }


def _answers(url: str, authority: Path) -> bool:
    request = urllib.request.Request(f"{url}/readyz", headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        context = ssl.create_default_context(cafile=str(authority))
        with urllib.request.urlopen(request, context=context, timeout=2) as answer:
            return answer.status == 200
    except (OSError, ssl.SSLError):
        return False


def _start(directory: Path, binaries: Path) -> tuple[list[subprocess.Popen[bytes]], ApiServer]:
    store, peer, port = free_ports(3)
    key = directory / "accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    (directory / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")
    etcd = f"http://127.0.0.1:{store}"
    commands = [
        [
            *(binaries / "etcd", "--data-dir", directory / "etcd", "--unsafe-no-fsync", "--log-level", "error"),
            *("--listen-client-urls", etcd, "--advertise-client-urls", etcd),
            *("--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls"),
            *(f"http://127.0.0.1:{peer}", "--initial-cluster", f"default=http://127.0.0.1:{peer}"),
        ],
        [
            *(binaries / "kube-apiserver", f"--etcd-servers={etcd}", f"--secure-port={port}"),
            *("--bind-address=127.0.0.1", f"--cert-dir={directory / 'certs'}", "--authorization-mode=RBAC"),
            *(f"--token-auth-file={directory / 'tokens.csv'}", "--service-cluster-ip-range=10.0.0.0/24"),
            *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"),
            *("--service-account-issuer=https://test", "--api-audiences=https://test", "--v=0"),
        ],
    ]
    processes = []
    for number, command in enumerate(commands):
        with (directory / f"{number}.log").open("wb") as log:
            processes.append(subprocess.Popen([str(part) for part in command], stdout=log, stderr=log))
    authority = directory / "certs" / "apiserver.crt"
    url = f"https://127.0.0.1:{port}"
    return processes, ApiServer(url, directory / "kubeconfig", authority, binaries, directory)


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """etcd and kube-apiserver with RBAC on ports of their own; ended with the session."""
    directory = tmp_path_factory.mktemp("apiserver")
    processes, server = _start(directory, kubernetes_binaries())
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not (server.authority.exists() and _answers(server.url, server.authority)):
            ended = [process.args[0] for process in processes if process.poll() is not None]
            log = (directory / "1.log").read_text()[-2000:]
            assert not ended, f"{ended} ended: {log}"
            assert time.monotonic() < deadline, f"no answer within {DEADLINE_S} s: {log}"
            time.sleep(0.1)
        server.kubeconfig.write_text(json.dumps(_kubeconfig(server.url, server.authority, TOKEN)))
        yield server
    finally:
        for process in reversed(processes):
            process.kill()  # the data is thrown away, and a graceful end takes a minute
        for process in processes:
            process.wait(timeout=30)


@pytest.fixture(scope="session")
def crds(api_server: ApiServer) -> ApiServer:
    """The API server with crds/ established."""
    api_server.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    names = ["crd/agents.tenure.dev", "crd/agentclusters.tenure.dev"]
    # The tests of the chart share this API server: helm takes over what says that it is its own, and nothing else.
    api_server.kubectl("label", "--overwrite", *names, "app.kubernetes.io/managed-by=Helm")
    release = ["meta.helm.sh/release-name=tenure", "meta.helm.sh/release-namespace=tenure-system"]
    api_server.kubectl("annotate", "--overwrite", *names, *release)
    api_server.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
    return api_server


@pytest.fixture(scope="session")
def installed(api_server: ApiServer) -> ApiServer:
    """The API server with the chart installed by helm (there are no nodes, so nothing of it runs)."""
    api_server.helm("install", "tenure", "charts/tenure", "-n", "tenure-system", "--create-namespace")
    names = ["crd/agents.tenure.dev", "crd/agentclusters.tenure.dev"]
    # The tests of the chart share this API server: helm takes over what says that it is its own, and nothing else.
    api_server.kubectl("label", "--overwrite", *names, "app.kubernetes.io/managed-by=Helm")
    release = ["meta.helm.sh/release-name=tenure", "meta.helm.sh/release-namespace=tenure-system"]
    api_server.kubectl("annotate", "--overwrite", *names, *release)
    api_server.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
    return api_server


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator["PostgresServer"]:
    """For tests that break nothing; those that do start their own. Without a PostgreSQL they fail, and say so."""
    from postgres_server import PostgresServer

    async with PostgresServer() as server:
        yield server
