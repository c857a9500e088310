"""`tenure.local()`: agents in this process, for tests, first steps, and programs that need no cluster."""

from tenure._local.keyed import InstanceManager
from tenure._local.runtime import DEFAULT_TIMEOUT_S, LocalRuntime, local
from tenure._local.waiting import AgentStatus

__all__ = ["DEFAULT_TIMEOUT_S", "AgentStatus", "InstanceManager", "LocalRuntime", "local"]
