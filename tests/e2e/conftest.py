"""One real multi-node Kubernetes for the whole session, with the chart installed and examples/counter applied.

Run by `make e2e` only. Nothing here skips: where no cluster can be made, every test fails with the reason.
TENURE_E2E_KEEP=1 leaves the cluster up afterwards, and uses one that is up.
"""

import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]  # importlib mode: helper modules here, and tools.k8s

from e2e_kube import Kube, NotSeen  # noqa: E402
from e2e_load import Load  # noqa: E402

from tools.k8s import backend, deploy  # noqa: E402
from tools.k8s.cluster import default_state  # noqa: E402
from tools.k8s.project import ROOT  # noqa: E402
from tools.k8s.shell import Steps  # noqa: E402
from tools.k8s.standstill import Standstills  # noqa: E402

NODES = 3
EXAMPLE = ROOT / "examples" / "counter"
SESSION_LIMIT_S = 1800  # of one test: the first one may have to build Kubernetes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(SESSION_LIMIT_S))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a failure goes what a person would look at first; a wait's own words have it already."""
    report = yield
    if report.failed and call.excinfo is not None and not isinstance(call.excinfo.value, NotSeen):
        fixtures = getattr(item, "funcargs", {}).values()
        if kube := next((value for value in fixtures if isinstance(value, Kube)), None):
            report.sections.append(("the cluster at that time", kube.state()))
    return report


@pytest.fixture(scope="session")
def standstills() -> Iterator[Standstills]:
    seen = Standstills()
    end = seen.watch()
    yield seen
    end()
    print(f"\ne2e: {seen}", flush=True)


@pytest.fixture(scope="session")
def machine() -> Iterator[backend.Backend]:
    """A cluster of three nodes with the project's images on them; removed in the end."""
    step = Steps()
    cluster = backend.choose(default_state())
    keep = bool(os.environ.get("TENURE_E2E_KEEP"))
    if not keep:
        cluster.down()  # what an interrupted run has left
    try:
        cluster.up(NODES, step)
        cluster.load_project(step)
        yield cluster
    finally:
        if not keep:
            cluster.down()


@pytest.fixture(scope="session")
def kube(machine: backend.Backend, standstills: Standstills) -> Kube:
    """The chart installed by helm, its operator ready."""
    print(deploy.install(machine))
    return Kube(machine, standstills)


@pytest.fixture(scope="session")
def shop(kube: Kube) -> Kube:
    """Namespace `shop`, which enforces Pod Security `restricted`, with examples/counter running in it."""
    if not kube.get("namespace", "shop"):
        kube.kubectl("create", "namespace", "shop")
    kube.kubectl("label", "--overwrite", "namespace", "shop", "pod-security.kubernetes.io/enforce=restricted")
    kube.kubectl("apply", "-n", "shop", "-f", EXAMPLE / "cluster.yaml", "-f", EXAMPLE / "agents.yaml")
    kube.wait_steady(240)
    for agent in kube.items("agents.tenure.dev"):
        kube.wait_running(agent["metadata"]["name"])
    return kube


@pytest.fixture
def load(shop: Kube) -> Iterator[Load]:
    """A pod that increments agents without a pause, on the node of the operator."""
    driver = Load(shop)
    try:
        yield driver
    finally:
        driver.stop()


@pytest.fixture
def steady(shop: Kube) -> Iterator[Kube]:
    """The cluster, whole before the test and whole again after it."""
    shop.wait_steady(120)
    yield shop
    shop.wait_steady(180)
