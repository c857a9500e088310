"""`tenure.local()`: agents in this process, for tests, first steps, and programs that need no cluster."""

from tenure._local.runtime import DEFAULT_TIMEOUT_S, LocalRuntime, local

__all__ = ["DEFAULT_TIMEOUT_S", "LocalRuntime", "local"]
