"""Manifests: every complaint names the file and the line, and where a name is wrong, the near one."""

from pathlib import Path

import pytest

from tenure_cli import manifests
from tenure_cli.dev.setup import make_setup
from tenure_cli.errors import ManifestError, UsageError
from tenure_cli.wire import class_of

CLUSTER = """\
apiVersion: tenure.dev/v1alpha1
kind: AgentCluster
metadata:
  name: counter
  namespace: shop
spec:
  pools:
  - name: default
    image: localhost/counter:1
    modules: [agents]
"""
AGENT = """\
apiVersion: tenure.dev/v1alpha1
kind: Agent
metadata:
  name: counter-1
  namespace: shop
spec:
  class: Counter
"""


def write(directory: Path, **files: str) -> str:
    """Files of a directory by their stem; the directory."""
    for name, text in files.items():
        (directory / f"{name}.yaml").write_text(text)
    return str(directory)


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        (AGENT.replace("class: Counter", "clas: Counter"), 7, "unknown field 'spec.clas'; did you mean 'class'?"),
        (AGENT + "  critical: perhaps\n", 8, "spec.critical"),
        (AGENT.replace("kind: Agent", "kind: Agnet"), 1, "kind is 'Agnet'"),
        (AGENT.replace("tenure.dev/", "tenur.dev/"), 1, "apiVersion is 'tenur.dev/v1alpha1'"),
        (AGENT.replace("name: counter-1", "name: Counter_1"), 4, "'Counter_1' cannot be a name"),
        (AGENT.replace("  name: counter-1\n", ""), 3, "this Agent has no metadata.name"),
        (AGENT + "  class: Other\n", 8, "the field 'class' stands here twice, first in line 7"),
        (AGENT + "  pool: [default\n", 9, "this is not YAML"),
        (AGENT + "---\n" + AGENT, 12, "two Agents are called 'counter-1': the first is at"),
    ],
)
def test_a_mistake_is_found_with_its_line(tmp_path: Path, text: str, line: int, sentence: str) -> None:
    """Before anything is sent anywhere."""
    write(tmp_path, agents=text)
    with pytest.raises(ManifestError) as caught:
        manifests.load([str(tmp_path)])
    assert caught.value.line == line, str(caught.value)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'agents.yaml'}:{line}: ")


def test_two_agents_of_one_name_in_two_files(tmp_path: Path) -> None:
    """Both places are named."""
    write(tmp_path, a=AGENT, b=AGENT)
    with pytest.raises(ManifestError, match=r"b\.yaml:4: two Agents .*a\.yaml:4"):
        manifests.load([str(tmp_path)])


def test_a_missing_file_names_the_near_one(tmp_path: Path) -> None:
    """As do all near names: only when there is one."""
    write(tmp_path, agents=AGENT)
    with pytest.raises(UsageError, match=r"agent\.yaml does not exist\. Did you mean .*agents\.yaml\?"):
        manifests.load([str(tmp_path / "agent.yaml")])


def test_a_directory_without_manifests(tmp_path: Path) -> None:
    """It says what a manifest is called."""
    with pytest.raises(UsageError, match="holds no manifest"):
        manifests.load([str(tmp_path)])


def test_what_is_not_ours_is_left_out_and_said(tmp_path: Path) -> None:
    """The same directory may hold a Service; `kubectl apply -f` takes it, a local cluster has no use for it."""
    write(tmp_path, agents=AGENT, service="apiVersion: v1\nkind: Service\nmetadata: {name: shop}\n")
    loaded = manifests.load([str(tmp_path)])
    assert [item.resource.metadata.name for item in loaded.agents] == ["counter-1"]
    assert loaded.passed_over == (f"{tmp_path / 'service.yaml'}:1: Service (v1) is not Tenure's and was left out",)


def test_the_namespace_of_the_command_line_must_not_contradict_the_manifests(tmp_path: Path) -> None:
    """As kubectl has it."""
    write(tmp_path, agents=AGENT)
    with pytest.raises(ManifestError, match="is for namespace 'shop', not for 'other'"):
        manifests.load([str(tmp_path)], "other")


def test_the_setup_of_a_local_cluster(tmp_path: Path) -> None:
    """Pools, rows and the directory from which the modules are imported; `image` is ignored and that is said."""
    write(tmp_path, agents=AGENT, cluster=CLUSTER)
    (tmp_path / "agents.py").write_text("")
    setup = make_setup(manifests.load([str(tmp_path)]), "", Path("/"))
    assert (setup.namespace, setup.cluster, setup.profile) == ("shop", "counter", "Balanced")
    assert setup.python_root == tmp_path
    assert [(row.id, class_of(row), row.cpu_milli, row.critical) for row in setup.agents] == [
        ("shop/counter-1", "Counter", 100, True)
    ]
    assert [list(pool.modules) for pool in setup.pool_rows] == [["agents"]]
    assert "image is ignored (localhost/counter:1)" in setup.notices[0]


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"agents": AGENT}, "The manifests hold no AgentCluster"),
        (
            {"cluster": CLUSTER, "other": CLUSTER.replace("name: counter\n", "name: other\n")},
            "this is the second",
        ),
        (
            {"cluster": CLUSTER, "agents": AGENT + "  pool: defualt\n"},
            "agents.yaml:8: Agent counter-1 asks for the pool 'defualt', which the cluster 'counter' does not have.",
        ),
        (
            {"cluster": CLUSTER, "agents": AGENT + "  clusterRef: {name: other}\n"},
            "agents.yaml:8: Agent counter-1 is for the cluster 'other'",
        ),
        (
            {"cluster": CLUSTER, "agents": AGENT.replace("namespace: shop", "namespace: elsewhere")},
            "agents.yaml:5: Agent counter-1 is in namespace 'elsewhere'",
        ),
    ],
)
def test_what_a_local_cluster_cannot_be_made_from(tmp_path: Path, files: dict[str, str], sentence: str) -> None:
    """Refused before a process is started."""
    with pytest.raises(UsageError) as caught:
        make_setup(manifests.load([write(tmp_path, **files)]), "", tmp_path)
    assert sentence in str(caught.value)
