"""Modules imported once more, so that each simulated process has globals of its own, as a real one has."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from tenure.errors import ConfigurationError

_OURS = frozenset({"tenure", "tenured", "tenure_api", "tenure_link", "tenure_proto"})


def can_be_imported(name: str) -> bool:
    """Whether the module came from a file, and is not part of Tenure."""
    module = sys.modules.get(name)
    return module is not None and name.partition(".")[0] not in _OURS and _has_code(module)


def imported_afresh(names: Collection[str]) -> dict[str, ModuleType]:
    """Copies of modules, with copies of what they import of the same top-level packages.

    Everything else, and `sys.modules`, stays as it is. Raises ConfigurationError for a module that cannot be imported
    a second time.
    """
    with _forgotten({name.partition(".")[0] for name in names}):
        try:
            return {name: importlib.import_module(name) for name in names}
        except Exception as error:
            raise ConfigurationError(
                f"each simulated process imports {', '.join(names)} for itself, and a second import raises "
                f"{type(error).__name__}: {error}; simulate(..., isolate=False) lets all processes share the modules"
            ) from error


@contextmanager
def _forgotten(roots: set[str]) -> Generator[None]:
    """While it lasts, modules of these top-level packages count as not imported."""
    kept = {
        name: module
        for name, module in sys.modules.items()
        if name.partition(".")[0] in roots and _has_code(module)  # namespaces have nothing to forget
    }
    finder = _Finder(kept)
    for name in kept:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in kept:
            sys.modules.pop(name, None)
        sys.modules.update(kept)
        for name, module in kept.items():  # an import also binds the module in its package
            parent, _, last = name.rpartition(".")
            if parent in sys.modules:
                setattr(sys.modules[parent], last, module)


class _Finder(MetaPathFinder):
    """Finds modules where they were found the first time, whatever `sys.path` says now."""

    def __init__(self, originals: Mapping[str, ModuleType]) -> None:
        self._originals = originals

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the interface
        target: ModuleType | None = None,  # noqa: ARG002 - the interface
    ) -> ModuleSpec | None:
        original = self._originals.get(fullname)
        spec = original.__spec__ if original is not None else None
        if spec is None or spec.origin is None:
            return None
        return importlib.util.spec_from_file_location(
            fullname, spec.origin, loader=spec.loader, submodule_search_locations=spec.submodule_search_locations
        )


def _has_code(module: ModuleType) -> bool:
    spec = getattr(module, "__spec__", None)
    return isinstance(spec, ModuleSpec) and spec.loader is not None and spec.origin is not None and spec.has_location
