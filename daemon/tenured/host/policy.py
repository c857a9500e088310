"""What an agent's spec says of how it is served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tenure_proto.v1.registry_pb2 import AgentSpec

LONGEST_BACKOFF_S = 60.0


@dataclass(frozen=True, slots=True)
class Policy:
    """See AgentSpec. Durations in seconds."""

    durable: bool = True
    quorum_reads: bool = False
    on_exhausted: Literal["DeadLetter", "Pause"] = "DeadLetter"
    max_attempts: int = 5
    backoff_s: float = 0.1
    """Before the second attempt; doubles up to `LONGEST_BACKOFF_S`."""
    ttl_s: float = 300.0
    """After which an undelivered signal is given up."""
    idle_timeout_s: float | None = None
    """Without anything to do; None: it stays in memory."""

    def pause_s(self, attempts: int, jitter: float) -> float:
        """How long to wait after so many failed attempts. `jitter`: 0 to 1, of the second half."""
        whole = min(self.backoff_s * 2.0 ** min(attempts - 1, 32), LONGEST_BACKOFF_S)
        return whole * (0.5 + jitter / 2)


_default = Policy()


def policy_of(spec: AgentSpec) -> Policy:
    """Of a row of the registry."""
    default = _default
    given = spec.delivery
    return Policy(
        durable=spec.durability != "Volatile",
        quorum_reads=spec.reads == "Quorum",
        on_exhausted="Pause" if spec.on_exhausted == "Pause" else "DeadLetter",
        max_attempts=given.max_attempts or default.max_attempts,
        backoff_s=given.backoff_s or default.backoff_s,
        ttl_s=given.ttl_s or default.ttl_s,
        idle_timeout_s=spec.idle_timeout_s or None,
    )
