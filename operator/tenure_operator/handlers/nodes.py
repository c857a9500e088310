"""All Nodes: every cluster is told which ones may take agents."""

from __future__ import annotations

from tenure_operator.context import Context
from tenure_operator.kubernetes import kinds
from tenure_operator.policies import nodes


def reconcile(context: Context) -> None:
    """Nothing is sent that was sent before."""
    rows = nodes.rows(context.world.all(kinds.NODE))
    for _, session in context.sessions():
        session.want_nodes(rows)
