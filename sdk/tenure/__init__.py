"""Write stateful agents in Python; run them alone, in tests, or on a Tenure cluster.

Everything is imported from here; modules with an underscore are not for you. Errors are in `tenure.errors`.
"""

from tenure._agent import Agent
from tenure._client import AsyncClient, Client, Reference, connect
from tenure._context import Context
from tenure._directives import Directive, Emit, Error
from tenure._instruction import Instruction
from tenure._local import LocalRuntime, Signal, local
from tenure._methods import action, query
from tenure._state import State
from tenure.errors import CallError, TenureError

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "AsyncClient",
    "CallError",
    "Client",
    "Context",
    "Directive",
    "Emit",
    "Error",
    "Instruction",
    "LocalRuntime",
    "Reference",
    "Signal",
    "State",
    "TenureError",
    "action",
    "connect",
    "local",
    "query",
]
