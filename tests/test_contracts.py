"""Each import contract is seen to fail once: a violation seeded into a copy of the tree is reported under its name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["operator", "daemon", "sdk", "api", "cli", "proto/gen"]

SEEDS = [
    ("The core does no I/O, reads no clock and rolls no dice", "daemon/tenured/core/__init__.py", "import time"),
    ("The daemon is layered", "daemon/tenured/storage/__init__.py", "import tenured.server"),
    (
        "Operator, daemon and SDK meet only at the wire contract and the API types",
        "operator/tenure_operator/__init__.py",
        "import tenured",
    ),
    ("The SDK is light", "sdk/tenure/__init__.py", "import aiohttp"),
    ("Only the remote client of the SDK knows grpc", "sdk/tenure/__init__.py", "import grpc"),
    ("Raft and storage know nothing of gRPC", "daemon/tenured/raft/__init__.py", "import grpc"),
    (
        "Only one operator package talks to the Kubernetes API",
        "operator/tenure_operator/policies/__init__.py",
        "import lightkube",
    ),
]


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    roots = os.pathsep.join(str(tree / package) for package in PACKAGES)
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    return subprocess.run(
        command, cwd=tree, env={**os.environ, "PYTHONPATH": roots}, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    return tree


def test_the_tree_keeps_every_contract(copy: Path) -> None:
    result = lint(copy)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("contract", "file", "line"), SEEDS, ids=[seed[0] for seed in SEEDS])
def test_a_seeded_violation_breaks_the_contract(copy: Path, contract: str, file: str, line: str) -> None:
    target = copy / file
    original = target.read_text()
    try:
        target.write_text(f"{original}\n{line}\n")
        result = lint(copy)
    finally:
        target.write_text(original)
    assert f"{contract} BROKEN" in result.stdout, result.stdout


def test_every_contract_has_a_seed() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert text.count("[[tool.importlinter.contracts]]") == len(SEEDS)
