"""Which of Kubernetes' events are handled, and when."""

from typing import Any, cast

import pytest

from tenure_operator.context import Context
from tenure_operator.handlers.events import take
from tenure_operator.kubernetes import kinds
from tenure_operator.settings import Settings


def node(version: int, *, ready: bool = True, team: str = "books", **spec: object) -> dict[str, Any]:
    metadata = {"name": "n1", "resourceVersion": str(version), "labels": {"team": team}}
    return {"metadata": metadata, "spec": spec, "status": {"ready": ready}}


@pytest.fixture
async def context() -> Context:
    """An operator that has seen one node and has nothing left to do."""
    made = Context(Settings(image="tenure"), cast("Any", None), cast("Any", None))
    made.world.put(kinds.NODE, node(1))
    return made


def see(context: Context, item: dict[str, Any]) -> None:
    take(context, kinds.NODE, item, deleted=False, watched=True)


async def test_a_cordon_is_told_without_a_pause(context: Context) -> None:
    """Whoever cordons a node and then makes an agent must not see it placed there."""
    see(context, node(2, unschedulable=True))
    assert len(context.queue) == 1
    assert not context.queue.idle, "it is due at some later time"


async def test_labels_of_nodes_are_gathered(context: Context) -> None:
    see(context, node(2, team="films"))
    assert len(context.queue) == 1
    assert context.queue.idle


async def test_a_heartbeat_of_a_node_is_no_news(context: Context) -> None:
    see(context, node(2, ready=False))
    assert len(context.queue) == 0
