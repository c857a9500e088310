"""A pool's image for simulated hosts: the user's agent classes, run by the worker's own code."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, NoReturn, TypeGuard

from tenure._agent import Agent
from tenure._definition import collect, describe
from tenure.errors import DefinitionError
from tenure.testing._afresh import can_be_imported, imported_afresh
from tenure.worker.begun import NO_PAGE, Notebook
from tenure.worker.process import Worker
from tenure_link import AgentClass, Welcome

AnyClass = type[Agent[Any]]


class Image:
    """Agent classes as every simulated worker process imports them (the daemon's `simulation.programs.Program`)."""

    def __init__(self, agents: Mapping[str, AnyClass], *, isolate: bool = True) -> None:
        """`isolate`: each process has the modules of the classes for itself. Raises DefinitionError."""
        self.agents = dict(agents)
        self.classes: tuple[AgentClass, ...] = tuple(describe(cls) for _, cls in sorted(agents.items()))
        modules = {cls.__module__ for cls in agents.values()}
        self._modules = sorted(name for name in modules if isolate and can_be_imported(name))

    @property
    def shared(self) -> list[str]:
        """Classes that all processes share: of functions, notebooks, `__main__`, or by wish."""
        return sorted(name for name, cls in self.agents.items() if not self._is_isolated(cls))

    def start(self, send: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """Start a worker on the running loop."""
        worker = _SimulatedWorker(self.imported(), self.classes, Notebook().notes(NO_PAGE))
        worker.connection_made(_Wire(send))
        return worker.data_received

    def imported(self) -> dict[str, AnyClass]:
        """The classes as one more process has them. Raises ConfigurationError."""
        copies = imported_afresh(self._modules) if self._modules else {}
        return {
            name: _same(copies[cls.__module__], cls) if self._is_isolated(cls) else cls
            for name, cls in self.agents.items()
        }

    def _is_isolated(self, cls: AnyClass) -> bool:
        return cls.__module__ in self._modules and "<locals>" not in cls.__qualname__


def _same(module: ModuleType, cls: AnyClass) -> AnyClass:
    """The class in a copy of its module."""
    found: Any = module
    for part in cls.__qualname__.split("."):
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]


class _Wire(asyncio.WriteTransport):
    """The socket of a worker."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        super().__init__()
        self._send = send

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """To the daemon."""
        self._send(bytes(data))


class _SimulatedWorker(Worker):
    """The worker of real pools, without a process that it could end and files that it could lock."""

    def _welcome(self, welcome: Welcome) -> None:
        """The lock is the simulation's."""

    def _end(self, status: int, why: str) -> NoReturn:
        raise RuntimeError(f"the worker gives up ({status}): {why}")


def classes_of(story: Callable[..., object]) -> dict[str, AnyClass]:
    """The agent classes that a story can name: of its module, of modules imported there, of its own closure."""
    found: dict[str, AnyClass] = {}
    while isinstance(story, functools.partial):
        story = story.func
    story = inspect.unwrap(story)
    names = {**getattr(story, "__globals__", {})}
    names |= inspect.getclosurevars(story).nonlocals if inspect.isfunction(story) else {}
    for value in names.values():
        if _is_agent(value):
            found.setdefault(value.__name__, value)
    modules = {id(value): value for value in names.values() if isinstance(value, ModuleType)}
    for module in modules.values():
        if can_be_imported(module.__name__) and not _is_library(module):
            for name, cls in collect([module]).items():
                found.setdefault(name, cls)
    return found


def named(agents: Iterable[AnyClass]) -> dict[str, AnyClass]:
    """Classes by their names. Raises DefinitionError for a name used twice."""
    found: dict[str, AnyClass] = {}
    for cls in agents:
        if found.setdefault(cls.__name__, cls) is not cls:
            raise DefinitionError(f"two classes are called {cls.__name__}: one of them needs another name")
    return found


def _is_agent(value: object) -> TypeGuard[AnyClass]:
    return isinstance(value, type) and issubclass(value, Agent) and value.__tenure_state__ is not None


def _is_library(module: ModuleType) -> bool:
    """Of the interpreter, or installed: not the user's."""
    file = getattr(module, "__file__", None) or ""
    return module.__name__.partition(".")[0] in sys.stdlib_module_names or "site-packages" in file
