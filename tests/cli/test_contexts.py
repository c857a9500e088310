"""Which cluster a command talks to: --context, TENURE_URL, a running `tenure dev`, kubeconfig, in that order."""

from pathlib import Path

import pytest

from tenure_cli import contexts
from tenure_cli.contexts import DevContext, KubeContext, UrlContext
from tenure_cli.errors import CliError


@pytest.fixture
def nowhere(tmp_path: Path) -> dict[str, str]:
    """No cluster at all."""
    return {"XDG_STATE_HOME": str(tmp_path / "empty"), "KUBECONFIG": str(tmp_path / "none")}


@pytest.fixture
def kubeconfig(tmp_path: Path) -> dict[str, str]:
    """A kubeconfig alone."""
    file = tmp_path / "kubeconfig"
    file.write_text("{}")
    return {"XDG_STATE_HOME": str(tmp_path / "empty"), "KUBECONFIG": str(file)}


def test_the_order(home: dict[str, str], kubeconfig: dict[str, str]) -> None:
    """Each one wins over those after it."""
    everything = kubeconfig | home | {"TENURE_URL": "tenure://a/shop/counter"}
    assert contexts.choose("kube/prod", everything) == KubeContext("prod", "--context says so")
    assert contexts.choose("", everything) == UrlContext("tenure://a/shop/counter", "TENURE_URL is set")
    del everything["TENURE_URL"]
    chosen = contexts.choose("", everything)
    assert isinstance(chosen, DevContext)
    assert chosen.label == "dev/dev"
    assert isinstance(contexts.choose("", kubeconfig), KubeContext)


def test_a_cluster_that_was_killed_does_not_run(home: dict[str, str], nowhere: dict[str, str]) -> None:
    """Its file may be left; its lock is not held any more."""
    directory = Path(home["XDG_STATE_HOME"]) / "tenure" / "dev" / "old"
    directory.mkdir()
    (directory / "cluster.json").write_text("{}")
    (directory / "lock").write_text("")
    assert [found.name for found in contexts.running_dev(home)] == ["dev"]


def test_no_cluster_says_how_to_get_one(nowhere: dict[str, str]) -> None:
    """The message is the way out."""
    with pytest.raises(CliError, match=r"There is no cluster to talk to\. Start one with `tenure dev"):
        contexts.choose("", nowhere)


def test_a_name_can_be_a_local_cluster_or_a_kubernetes_context(
    home: dict[str, str], kubeconfig: dict[str, str]
) -> None:
    """A running local cluster first."""
    assert contexts.choose("dev", kubeconfig | home).label == "dev/dev"
    assert contexts.choose("prod", kubeconfig | home).label == "kube/prod"
    with pytest.raises(CliError, match="no context called 'prod'"):
        contexts.choose("prod", home | {"KUBECONFIG": "/nonexistent"})
