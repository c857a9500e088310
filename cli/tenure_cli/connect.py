"""From a context to an open connection."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from tenure._remote import Endpoint, discover, from_dev_file
from tenure_cli import contexts, paths
from tenure_cli.kube import certificate
from tenure_cli.kube.discovery import find_cluster, reachable_servers
from tenure_cli.kube.forward import Forward
from tenure_cli.kube.kubectl import Kubectl
from tenure_cli.ports import Cluster
from tenure_cli.remote import RemoteCluster, check


@asynccontextmanager
async def connect(context: contexts.Context, namespace: str) -> AsyncGenerator[Cluster]:
    """A connection that is closed at the end. Raises CliError and the SDK's errors."""
    match context:
        case contexts.DevContext(file=file):
            async with opened(from_dev_file(file)) as cluster:
                yield cluster
        case contexts.UrlContext(url=url):
            async with opened(await discover(url, os.environ)) as cluster:
                yield cluster
        case contexts.KubeContext(context=name):
            async with _kubernetes(Kubectl(name), namespace, paths.certificates(os.environ)) as cluster:
                yield cluster


@asynccontextmanager
async def opened(endpoint: Endpoint) -> AsyncGenerator[RemoteCluster]:
    """The SDK's client behind our interface. Raises CliError when the certificate is of another cluster."""
    check(endpoint)
    cluster = RemoteCluster(endpoint)
    try:
        yield cluster
    finally:
        await cluster.close()


@asynccontextmanager
async def _kubernetes(kubectl: Kubectl, namespace: str, kept: Path) -> AsyncGenerator[Cluster]:
    cluster = await find_cluster(kubectl, namespace)
    async with Forward(kubectl, cluster, lambda: reachable_servers(kubectl, cluster)) as forward:
        endpoint = await certificate.endpoint(kubectl, cluster, forward.ports, kept)
        async with opened(endpoint) as connection:
            yield connection
