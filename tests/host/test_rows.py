"""What a host keeps of rows: what it needs, and of many alike one copy."""

import gc
import tracemalloc

from tenure_proto.v1.registry_pb2 import AgentRow, AgentSpec, Spread, WatchBatch
from tenured.host.mirror import Mirror
from tenured.host.policy import Policy
from tenured.host.rows import row_of

MANY = 1000
ROW_BYTES = 500
"""Of one row of an agent of another host, with its places in the mirror's tables; 310 are measured."""


def given(number: int, **more: object) -> AgentRow:
    spec = AgentSpec(id=f"shop/agent-{number}", pool="default", durability="Volatile", **{"class": "Cart"})
    spec.delivery.max_attempts = 7
    spec.spread.append(Spread(by="Zone", group="blue"))
    return AgentRow(**{"uid": str(number), "epoch": 3, "spec": spec, "host": "h", "incarnation": "h.1", **more})


def test_agents_of_one_spec_share_what_it_says() -> None:
    """And those of another do not."""
    one, two = row_of(given(1)), row_of(given(2))
    assert one.kind is two.kind
    assert (one.kind.name, one.kind.pool, one.kind.groups) == ("Cart", "default", ("blue",))
    assert one.kind.policy == Policy(durable=False, max_attempts=7)
    other = given(3)
    other.spec.delivery.max_attempts = 8
    assert row_of(other).kind.policy.max_attempts == 8


def test_what_an_agent_begins_with_is_kept_by_its_host_only() -> None:
    """Nobody else reads it."""
    batch = WatchBatch(revision=9, snapshot=True, synced=True, agents=[given(1), given(2, incarnation="h.2")])
    for row in batch.agents:
        row.spec.state, row.spec.config = b"state", b"config"
    mirror = Mirror("h.1")
    mirror.apply(batch)
    mine, other = mirror.agents["1"], mirror.agents["2"]
    assert (mine.state, mine.config) == (b"state", b"config")
    assert (other.state, other.config) == (b"", b"")
    for row in batch.agents:
        row.incarnation = "h.1"
    mirror.apply(WatchBatch(revision=10, agents=batch.agents))
    assert mirror.mine["2"].state == b"state", "it has come here"


def test_rows_of_others_are_small() -> None:
    """A host has one of every agent of the cluster. What came with a row from the wire goes with the batch."""
    mirror = Mirror("me")
    mirror.apply(WatchBatch(snapshot=True, synced=True, agents=[given(n, uid=str(n)) for n in range(1, 50)]))
    batches = [WatchBatch(agents=[given(n)]).SerializeToString() for n in range(100, 100 + MANY)]
    messages = messages_alive()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for batch in batches:
            mirror.apply(WatchBatch.FromString(batch))
        assert messages_alive() == messages, "their memory is that of the whole batch, and not traced"
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown / MANY < ROW_BYTES


def messages_alive() -> int:
    gc.collect()
    return sum(isinstance(one, AgentRow | AgentSpec | WatchBatch) for one in gc.get_objects())
