"""The client's certificate for a cluster on Kubernetes: got for a token of `<cluster>-client`, kept for an hour."""

import json
import time
from dataclasses import replace
from pathlib import Path

from tenure._remote import Endpoint, enrol, parse_url
from tenure_cli.dev.authority import write_private
from tenure_cli.errors import CliError
from tenure_cli.kube.discovery import ClusterRef
from tenure_cli.kube.kubectl import Kubectl

KEEP_S = 3600.0
TOKEN_LIFE = "10m"  # noqa: S105 - a duration; the shortest that Kubernetes grants
FIELDS = ("authority_pem", "certificate_pem", "key_pem")


async def endpoint(kubectl: Kubectl, cluster: ClusterRef, ports: tuple[int, int], directory: Path) -> Endpoint:
    """An identity in `cluster`, reached through the forwarded (API, enrolment) ports.

    Raises CliError when Kubernetes gives no token, and the SDK's errors when the server refuses it.
    """
    api, enrolment = ports
    authority = await _authority(kubectl, cluster)
    file = directory / f"{cluster.namespace}.{cluster.name}.json"
    address = parse_url(f"tenure://127.0.0.1:{api}/{cluster}?enrol=127.0.0.1:{enrolment}&proxied=true")
    if (kept := load(file, authority, time.time())) is not None:
        certificate, key = kept
        return Endpoint(address.cluster, address.servers, authority, certificate, key, address.proxied, "a kept one")
    made = await enrol(address, await _token(kubectl, cluster), authority, why="enrolled with a token")
    store(file, made)
    return replace(made, proxied=True)


async def _authority(kubectl: Kubectl, cluster: ClusterRef) -> bytes:
    """The certificate of the cluster's authority, from its ConfigMap: what makes a server believable."""
    found = await kubectl.get("configmap", f"{cluster.name}-ca", "-n", cluster.namespace)
    text = found.get("data", {}).get("ca.crt", "")
    if not text:
        raise CliError(
            f"ConfigMap {cluster.name}-ca in namespace {cluster.namespace} holds no ca.crt.",
            "The operator writes it: look at its log.",
        )
    return str(text).encode()


async def _token(kubectl: Kubectl, cluster: ClusterRef) -> str:
    """A short-lived token of the client's ServiceAccount: RBAC decides who may have one."""
    audience = f"tenure.dev/{cluster.namespace}/{cluster.name}"
    words = ["create", "token", f"{cluster.name}-client", "-n", cluster.namespace]
    return (await kubectl.run(*words, "--audience", audience, "--duration", TOKEN_LIFE)).strip()


def store(file: Path, made: Endpoint) -> None:
    """Keep the certificate and its key, readable by the user alone."""
    content = {name: getattr(made, name).decode() for name in FIELDS}
    write_private(file, json.dumps(content).encode())


def load(file: Path, authority: bytes, now: float) -> tuple[bytes, bytes] | None:
    """(certificate, key) if they are kept for less than an hour and are of this authority."""
    try:
        age = now - file.stat().st_mtime
        content = json.loads(file.read_text())
        if not 0 <= age < KEEP_S or content["authority_pem"].encode() != authority:
            return None
        return content["certificate_pem"].encode(), content["key_pem"].encode()
    except (OSError, ValueError, KeyError, AttributeError):
        return None
