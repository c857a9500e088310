"""Write stateful agents in Python; run them alone, in tests, or on a Tenure cluster.

Everything is imported from here; modules with an underscore are not for you. Errors are in `tenure.errors`.
"""

import importlib
from typing import TYPE_CHECKING

from tenure._agent import Agent
from tenure._context import Context
from tenure._effects import Directive, Emit, Error
from tenure._instruction import Instruction, instruction
from tenure._methods import action, query
from tenure._record import migration
from tenure._state import State
from tenure._stepkey import StepKey
from tenure.errors import CallError, TenureError

if TYPE_CHECKING:
    from tenure._client import AsyncClient, Client, Reference, connect
    from tenure._local import AgentStatus, InstanceManager, LocalRuntime, local
    from tenure._routes import on
    from tenure.signals import Signal
    from tenure.skills import Skill
    from tenure.strategies import FSM, Strategy

__version__ = "0.1.0"

__all__ = [
    "FSM",
    "Agent",
    "AgentStatus",
    "AsyncClient",
    "CallError",
    "Client",
    "Context",
    "Directive",
    "Emit",
    "Error",
    "InstanceManager",
    "Instruction",
    "LocalRuntime",
    "Reference",
    "Signal",
    "Skill",
    "State",
    "StepKey",
    "Strategy",
    "TenureError",
    "action",
    "connect",
    "instruction",
    "local",
    "migration",
    "on",
    "query",
]

# What runs agents brings asyncio along; a module that only defines agents is imported without it.
_LAZY = {
    "AgentStatus": "tenure._local",
    "AsyncClient": "tenure._client",
    "Client": "tenure._client",
    "FSM": "tenure.strategies",
    "InstanceManager": "tenure._local",
    "LocalRuntime": "tenure._local",
    "Reference": "tenure._client",
    "Signal": "tenure.signals",
    "Skill": "tenure.skills",
    "Strategy": "tenure.strategies",
    "connect": "tenure._client",
    "local": "tenure._local",
    "on": "tenure._routes",
}


def __getattr__(name: str) -> object:
    """Load the module of a name that is first used now (PEP 562)."""
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'tenure' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Every name, loaded or not."""
    return sorted({*globals(), *_LAZY})
