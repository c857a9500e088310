"""`tenure apply`, `delete`, `doctor` against a real API server (no nodes, no operator): the objects are kubectl's."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.conftest import ApiServer

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "counter"
DEADLINE_S = 60.0
Tenure = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def tenure(crds: ApiServer, tmp_path: Path) -> Tenure:
    """The command line with the API server's kubeconfig, or another one."""
    environment = {
        "PATH": f"{crds.binaries}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "KUBECONFIG": str(crds.kubeconfig),
        "COLUMNS": "200",
    }

    async def run(*words: str, kubeconfig: Path | None = None) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "tenure_cli.main", *words,
            env=environment | ({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {}),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(DEADLINE_S):
            out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    return run


@pytest.fixture
def shop(crds: ApiServer) -> None:
    """The namespace of the example."""
    crds.kubectl("create", "namespace", "shop", check=False)


@pytest.mark.usefixtures("shop")
async def test_apply_and_delete_write_objects(tenure: Tenure, crds: ApiServer) -> None:
    """On Kubernetes the same manifests become objects, and `delete` removes them."""
    status, out, err = await tenure("apply", "-f", str(EXAMPLE))
    assert status == 0, err
    assert "agent.tenure.dev/counter-1 created" in out
    assert "counter-1" in crds.kubectl("get", "agents", "-n", "shop").stdout
    # No operator runs here: without its finalizer the objects go at once.
    status, out, err = await tenure("delete", "-f", str(EXAMPLE))
    assert status == 0, err
    assert "counter-1" not in crds.kubectl("get", "agents", "-n", "shop").stdout


@pytest.mark.usefixtures("shop")
async def test_a_cluster_without_servers_is_said_in_a_sentence(tenure: Tenure) -> None:
    """What is there, and where to look."""
    assert (await tenure("apply", "-f", str(EXAMPLE / "cluster.yaml")))[0] == 0
    status, out, _ = await tenure("doctor", "-n", "shop")
    assert status == 1
    assert "✓ context: kube" in out
    assert "✗ servers: No server of shop/demo runs (0 pods)." in out
    assert (await tenure("delete", "-f", str(EXAMPLE / "cluster.yaml")))[0] == 0
    status, _, err = await tenure("get", "agents", "-n", "shop")
    assert status == 1
    assert "Namespace shop has no AgentCluster." in err


async def test_who_may_not_is_told_what(tenure: Tenure, crds: ApiServer) -> None:
    """RBAC decides; the message names the verb and the thing."""
    status, _, err = await tenure("get", "agents", "-n", "shop", kubeconfig=crds.config_for("nobody", "nobody"))
    assert status == 1
    assert "Kubernetes does not accept the credentials" in err


async def test_an_api_server_that_is_not_there(tenure: Tenure, crds: ApiServer, tmp_path: Path) -> None:
    """One sentence, no traceback."""
    config = tmp_path / "gone"
    config.write_text(crds.kubeconfig.read_text().replace(crds.url, "https://127.0.0.1:9"))
    status, _, err = await tenure("get", "agents", kubeconfig=config)
    assert status == 1
    assert "The Kubernetes API server of the current context does not answer." in err
    assert "Traceback" not in err
