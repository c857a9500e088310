"""`make k8s`: a cluster with Tenure installed, and what to do next."""

import time
from pathlib import Path

from tools.k8s import backend, project
from tools.k8s.shell import Steps, run

NODES = 3
NAMESPACE = "tenure-system"
_NEXT = """
Tenure is installed. Talk to it:

  export KUBECONFIG={kubeconfig} PATH={programs}:$PATH
  kubectl create namespace shop
  kubectl apply -n shop -f examples/counter/cluster.yaml -f examples/counter/agents.yaml
  kubectl get agents -n shop
  .venv/bin/tenure call shop/counter-1 increment --by 2

`make k8s-down` removes all of it."""


def install(cluster: backend.Backend, *more: str) -> str:
    """Install or upgrade the chart with the images that `load_project` loaded. Returns what helm printed."""
    repository, tag = project.TENURED.name.rsplit(":", 1)
    return run(
        *(cluster.program("helm"), "upgrade", "--install", "tenure", project.ROOT / "charts" / "tenure"),
        *("--kubeconfig", cluster.kubeconfig, "-n", NAMESPACE, "--create-namespace", "--wait", "--timeout", "180s"),
        *("--set", f"image.repository={repository}", "--set", f"image.tag={tag}"),
        # The tag never changes while one develops: without this an upgrade would not roll the operator.
        *("--set-string", f"operator.podAnnotations.tenure\\.dev/built={int(time.time())}", *more),
    )


def deploy(state: Path) -> None:
    step = Steps()
    cluster = backend.choose(state)
    cluster.up(NODES, step)
    cluster.load_project(step)
    print(install(cluster))
    step("chart installed")
    print(_NEXT.format(kubeconfig=cluster.kubeconfig, programs=cluster.program("kubectl").parent))


def undeploy(state: Path) -> None:
    backend.choose(state).down()
