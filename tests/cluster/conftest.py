"""The cluster is started once for the session: 3 servers, 3 hosts, and a host whose modules do not load."""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tenure_cli.connect import connect
from tenure_cli.dev.bring_up import context_of, wait_for_hosts, wait_for_leader
from tenure_cli.dev.cluster import DevCluster, Options
from tenure_cli.dev.plan import PoolPlan
from tenure_proto.v1 import registry_pb2
from tests.cluster.cluster_local import BROKEN, EXAMPLE, GOOD, HERE, NAMESPACE, Local, deploy, good_hosts
from tools.k8s.standstill import Standstills


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def local() -> AsyncIterator[Local]:
    """Started once; every test leaves it whole and uses agents of its own."""
    log: list[tuple[str, str]] = []
    # Not pytest's directory: the path of a unix socket is short.
    with tempfile.TemporaryDirectory(prefix="tn-") as home:
        directory = Path(home) / "tenure" / "dev" / "dev"
        code = Path(home) / "code"
        code.mkdir()
        deploy(code, "old")
        good = replace(GOOD, env=(("PYTHONPATH", f"{code}{os.pathsep}{EXAMPLE}"),))
        options = Options(directory, NAMESPACE, "tests", (good, BROKEN), python_root=HERE)
        environment = {"PATH": os.environ["PATH"], "HOME": home, "XDG_STATE_HOME": home, "COLUMNS": "200"}
        async with (
            DevCluster(options, lambda name, line: log.append((name, line))) as running,
            connect(context_of(running), "") as cluster,
        ):
            await wait_for_leader(cluster)
            await cluster.apply_pools([_pool(GOOD), _pool(BROKEN)])
            await wait_for_hosts(cluster, good_hosts(running))
            yield Local(running, cluster, environment, log, code)


def _pool(pool: PoolPlan) -> registry_pb2.PoolSpec:
    return registry_pb2.PoolSpec(name=pool.name, modules=pool.modules)


@pytest_asyncio.fixture(loop_scope="session")
async def whole(local: Local) -> AsyncIterator[Local]:
    """For tests that break something: the cluster is whole again afterwards."""
    yield local
    await local.whole()


@pytest.fixture
def standstills() -> Iterator[Standstills]:
    """Of the machine, while the test runs."""
    seen = Standstills()
    end = seen.watch()
    yield seen
    end()


@pytest.fixture(autouse=True)
def show_log(request: pytest.FixtureRequest) -> Iterator[None]:
    """When a test of the shared cluster fails, what its processes wrote meanwhile belongs to the report."""
    if "local" not in request.fixturenames:
        yield
        return
    local: Local = request.getfixturevalue("local")
    first = len(local.log)
    yield
    for name, line in local.log[first:][-200:]:
        print(f"{name} {line}")
