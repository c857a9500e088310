"""Modules that are loaded when they are first used: `import tenure` stays quick."""

import importlib


class Lazy:
    """Stands for a module; not for `isinstance` or `import from`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> object:
        value: object = getattr(importlib.import_module(self._name), name)
        setattr(self, name, value)
        return value
