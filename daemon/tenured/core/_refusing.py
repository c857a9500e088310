"""How a whole command is refused."""

from __future__ import annotations

from tenure_api.reasons import Reason
from tenured.core.results import Result


def refused(reason: Reason, message: str) -> Result:
    """Refuse a whole command."""
    return Result(ok=False, reason=reason, message=message)
