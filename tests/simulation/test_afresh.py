"""Modules of users' agents, imported once for each simulated process."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenure.errors import ConfigurationError
from tenure.testing._afresh import can_be_imported, imported_afresh

FILES = {
    "afresh_shop/__init__.py": "NAME = 'shop'",
    "afresh_shop/cache.py": "seen = []",
    "afresh_shop/agents.py": "import json\nfrom afresh_shop import cache\nfrom .cache import seen\nclass Order: pass",
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of a user, imported from a directory that is on the path no more."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with monkeypatch.context() as path:
        path.syspath_prepend(tmp_path)
        importlib.import_module("afresh_shop.agents")
    yield tmp_path / "afresh_shop"
    for name in [name for name in sys.modules if name.startswith("afresh_shop")]:
        del sys.modules[name]


@pytest.mark.usefixtures("shop")
def test_copies_share_nothing_of_their_package() -> None:
    """Not what they import of it either; of other packages everything."""
    original = sys.modules["afresh_shop.agents"]
    one = imported_afresh(["afresh_shop.agents"])["afresh_shop.agents"]
    two = imported_afresh(["afresh_shop.agents"])["afresh_shop.agents"]
    one.seen.append(1)
    assert one.cache.seen == [1]
    assert two.seen == original.seen == []
    assert len({module.Order for module in (original, one, two)}) == 3
    assert original.json is one.json is two.json


@pytest.mark.usefixtures("shop")
def test_nobody_else_sees_the_copies() -> None:
    """`sys.modules`, the finders, and what packages know of their modules are as before."""
    before, finders = dict(sys.modules), list(sys.meta_path)
    imported_afresh(["afresh_shop.agents"])
    assert dict(sys.modules) == before
    assert sys.meta_path == finders
    package = importlib.import_module("afresh_shop")
    assert package.agents is sys.modules["afresh_shop.agents"]


def test_a_module_that_can_be_imported_only_once(shop: Path) -> None:
    """The way out is named, and everything is as before."""
    (shop / "agents.py").write_text("raise RuntimeError('registered already')  # another length: not from the cache")
    before = dict(sys.modules)
    with pytest.raises(ConfigurationError, match=r"RuntimeError: registered already; simulate\(..., isolate=False\)"):
        imported_afresh(["afresh_shop.agents"])
    assert dict(sys.modules) == before


@pytest.mark.usefixtures("shop")
def test_which_modules_can_be_imported_again() -> None:
    """Those that came from a file; not Tenure's own."""
    assert can_be_imported("afresh_shop.agents")
    assert not any(can_be_imported(name) for name in ("tenure.testing", "builtins", "no_such_module"))
