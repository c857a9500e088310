"""Agent classes as a pool registers them: found in modules, described for the cluster."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, TypeGuard, cast

from tenure._agent import Agent, state_class
from tenure._methods import Method, methods_of
from tenure.errors import DefinitionError
from tenure_link import AgentClass
from tenure_link import Method as MethodInfo


def describe(cls: type[Agent[Any]]) -> AgentClass:
    """Schemas and descriptions of a class. Raises DefinitionError when an annotation makes no sense."""
    kind = state_class(cls)
    methods = tuple(
        MethodInfo(
            name=name,
            query=method.kind == "query",
            description=method.description,
            parameters=method.signature.schema(),
        )
        for name, method in sorted([*methods_of(cls).items(), *_of_skills(cls)])
    )
    schema = cast(dict[str, object], kind.model_json_schema())
    if cls.__tenure_skills__ is not None and cls.__tenure_skills__.skills:
        schema["skills"] = {
            skill.alias: type(skill).__tenure_state__.model_json_schema() for skill in cls.__tenure_skills__.skills
        }
    description = cls.__doc__ if cls.__doc__ != Agent.__doc__ else ""
    return AgentClass(
        cls.__name__,
        version=cls.__tenure_version__,
        description=inspect.cleandoc(description or ""),
        methods=methods,
        state_schema=schema,
        capabilities=cls.__tenure_capabilities__,
        subscribes=cls.__tenure_subscribes__,
    )


def _of_skills(cls: type[Agent[Any]]) -> Iterator[tuple[str, Method[..., Any]]]:
    """Actions and queries of the skills that the class gives to its agents, by their full names."""
    for skill in cls.__tenure_skills__.skills if cls.__tenure_skills__ is not None else ():
        for name, method in methods_of(type(skill)).items():
            yield f"{skill.alias}.{name}", method


def collect(modules: Iterable[ModuleType]) -> dict[str, type[Agent[Any]]]:
    """The agent classes that these modules show, public ones. Raises DefinitionError for a name used twice."""
    found: dict[str, type[Agent[Any]]] = {}
    for module in modules:
        for name, value in vars(module).items():
            if name.startswith("_") or not _is_concrete(value):
                continue
            other = found.setdefault(value.__name__, value)
            if other is not value:
                raise DefinitionError(
                    f"two classes are called {value.__name__}: {_where(other)} and {_where(value)}; "
                    "agents name their class by this name, so one of them needs another"
                )
    return found


def _is_concrete(value: object) -> TypeGuard[type[Agent[Any]]]:
    """An agent class that names its state; one without is a base for others."""
    return isinstance(value, type) and issubclass(value, Agent) and value.__tenure_state__ is not None


def _where(cls: type[object]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
