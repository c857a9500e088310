"""`tenure new agent`: what it writes works, and it writes over nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tenure_cli import manifests
from tenure_cli.dev.setup import make_setup

Tenure = Callable[..., Result]
FILES = ["Dockerfile", "README.md", "agents.py", "agents.yaml", "cluster.yaml", "test_agents.py"]


def test_the_project_passes_its_own_tests(tenure: Tenure, tmp_path: Path) -> None:
    """With no settings of pytest."""
    project = tmp_path / "order-desk"
    result = tenure("new", "agent", "order-desk", "--dir", str(project))
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in project.iterdir()) == FILES
    assert "class OrderDesk(tenure.Agent[OrderDeskState])" in (project / "agents.py").read_text()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(project)],
        cwd=project, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def test_the_manifests_are_those_of_a_cluster(tenure: Tenure, tmp_path: Path) -> None:
    """`tenure dev` takes them as they are."""
    tenure("new", "agent", "desk", "--dir", str(tmp_path), "--class", "Reception", "-n", "shop")
    loaded = manifests.load([str(tmp_path)], "")
    setup = make_setup(loaded, "", tmp_path)
    assert (setup.namespace, setup.cluster) == ("shop", "desk")
    (agent,) = loaded.agents
    assert (agent.resource.metadata.name, agent.resource.spec.class_) == ("desk-1", "Reception")
    assert "FROM ${BASE_IMAGE}" in (tmp_path / "Dockerfile").read_text()


def test_it_teaches_what_comes_next(tenure: Tenure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In words, and for programs."""
    monkeypatch.chdir(tmp_path)
    shown = tenure("new", "agent", "desk").stdout.splitlines()
    assert shown[0] == f"desk: {', '.join(FILES)}"
    assert shown[1:] == ["  cd desk", "  pytest", "  tenure dev -f .", "  tenure call default/desk-1 add --text hello"]
    told = json.loads(tenure("new", "agent", "desk", "--dir", "other", "-o", "json").stdout)
    assert (told["directory"], told["class"], told["files"]) == ("other", "Desk", FILES)
    assert told["next"][0] == "cd other"


def test_nothing_is_overwritten(tenure: Tenure, tmp_path: Path) -> None:
    """One file that is there is enough, and then none is written."""
    project = tmp_path / "p"
    project.mkdir()
    (project / "agents.py").write_text("mine")
    (project / "unrelated").write_text("mine too")
    result = tenure("new", "agent", "desk", "--dir", str(project))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "agents.py exists already." in result.stderr.replace("\n", " ")
    assert sorted(path.name for path in project.iterdir()) == ["agents.py", "unrelated"]
    assert (project / "agents.py").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("Desk",), "'Desk' cannot be the name of a project"),
        (("x" * 31,), "at most 30"),
        (("desk", "--class", "my desk"), "'my desk' cannot be the name of a class."),
        (("desk", "--class", "None"), "'None' cannot be the name of a class."),
        (("desk", "-n", "Shop"), "'Shop' cannot be a namespace"),
    ],
)
def test_names_that_cannot_be(tenure: Tenure, tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    """Refused before anything is written."""
    result = tenure("new", "agent", *words, "--dir", str(tmp_path / "p"))
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert not (tmp_path / "p").exists()


def test_a_place_that_cannot_be_written(tenure: Tenure, tmp_path: Path) -> None:
    """A sentence, no traceback."""
    (tmp_path / "file").write_text("")
    result = tenure("new", "agent", "desk", "--dir", str(tmp_path / "file" / "below"))
    assert result.exit_code == 1
    assert "cannot be written: Not a directory." in result.stderr.replace("\n", " ")
