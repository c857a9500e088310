"""Views of agents and servers, as the operator takes them."""

from datetime import UTC, datetime
from typing import Any

from tenure_api.agent import AgentSpec
from tenure_operator.policies import conditions, rolls, rows
from tenure_operator.policies.agents import AgentView
from tenure_operator.policies.agents import ClusterView as Servers
from tenure_operator.registry.values import AgentRow

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def view(spec: dict[str, Any] | None = None, **fields: Any) -> AgentView:
    made = AgentSpec.model_validate({"class": "Counter", **(spec or {})})
    wanted = rows.agent_row("shop/c", made, "u-1", fields.get("generation", 1))
    given: dict[str, Any] = {"generation": 1, "deleting": False, "finalized": True, "paused": False, "status": {}}
    return AgentView(namespace="shop", name="c", uid="u-1", spec=made, wanted=wanted, **{**given, **fields})


def demo(**fields: Any) -> Servers:
    given: dict[str, Any] = {"name": "demo", "pools": ("default",), "reachable": True}
    return Servers(**{**given, **fields})


def row(seen: AgentView, **fields: Any) -> AgentRow:
    assert seen.wanted is not None
    given: dict[str, Any] = {
        "uid": "17",
        "spec": seen.wanted,
        "epoch": 3,
        "host": "host-a",
        "node": "node-a",
        "ready": True,
        "phase": "Running",
        "summary": "Running on node-a",
        "reason": "Running",
    }
    return AgentRow(**{**given, **fields})


def of(status: dict[str, Any] | None, kind: str) -> tuple[str, str]:
    found = conditions.find(status or {}, kind)
    return found["status"], found["reason"]


# --- clusters --------------------------------------------------------------------------------------------------------


def pod(name: str, *, ready: bool = True, revision: str = "new", going: bool = False) -> dict[str, Any]:
    metadata = {"name": name, "labels": {rolls.REVISION: revision}}
    if going:
        metadata["deletionTimestamp"] = "now"
    return {"metadata": metadata, "status": {"conditions": [{"type": "Ready", "status": str(ready)}]}}


CLAIM = {"metadata": {"name": "data-demo-server-0"}, "spec": {}, "status": {"phase": "Pending"}}


def old(*names: str) -> tuple[dict[str, Any], ...]:
    """All three servers, those of the given names outdated."""
    every = [f"demo-server-{n}" for n in range(3)]
    return tuple(pod(name, revision="old" if name in names else "new") for name in every)
