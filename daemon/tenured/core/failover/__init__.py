"""What the leader does about silence: end leases that have provably ended, and bring their agents back elsewhere.

planner   what to propose next, in order
guard     many hosts silent at once: nothing is moved before it is confirmed
classes   which hosts are written down as silent
pacing    how many agents each host may be starting at a time
waiting   who is not placed, why, and who is marked unavailable

Level-triggered: everything is computed from the registry and the leases as they are, so a plan that was lost costs time
only. Safety does not rest here: every assignment is a compare-and-set under rule R, checked where it is applied.
"""

from __future__ import annotations

from tenured.core.failover.guard import DEFAULT_SHARE, Held
from tenured.core.failover.planner import BATCH, HOST_ROWS_KEPT_NS, UNSETTLED_NS, Planner

__all__ = ["BATCH", "DEFAULT_SHARE", "HOST_ROWS_KEPT_NS", "UNSETTLED_NS", "Held", "Planner"]
