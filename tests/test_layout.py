"""`operator`, `daemon` and `proto` must never become importable, and the wheel must hold every package."""

import operator
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE_ROOTS = ["operator", "daemon", "sdk", "api", "cli", "proto/gen"]


def test_operator_is_the_standard_library_module() -> None:
    assert Path(operator.__file__).parent == Path(sysconfig.get_path("stdlib"))


@pytest.mark.parametrize("folder", [*SOURCE_ROOTS, "proto", "charts", "crds"])
def test_source_roots_are_not_packages(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


def test_no_first_party_package_shadows_the_standard_library() -> None:
    names = {entry.stem for root in SOURCE_ROOTS for entry in (ROOT / root).iterdir()}
    assert not names & sys.stdlib_module_names


def test_the_wheel_holds_every_package_and_marks_it_as_typed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packed = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    present = {
        f"{root}/{entry.name}"
        for root in SOURCE_ROOTS
        for entry in (ROOT / root).iterdir()
        if (entry / "__init__.py").exists()
    }
    assert packed == present
    assert not [package for package in packed if not (ROOT / package / "py.typed").exists()]
