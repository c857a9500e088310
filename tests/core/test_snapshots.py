"""The registry in chunks: the same state from any of them, old ones too, each small."""

from collections.abc import Iterator

import msgspec
import pytest

from tenured.core import commands, machine, snapshots
from tenured.core.agentspec import AgentSpec
from tenured.core.model import Pool
from tenured.core.registry import Registry

AGENTS = 1203


@pytest.fixture(scope="module")
def filled() -> Registry:
    """Pools, hosts, agents, assignments and remembered results."""
    registry = Registry()
    for index, command in enumerate(story(), start=2):
        machine.apply(registry, index, command)
    assert len(registry.agents) == AGENTS
    assert registry.results
    assert registry.decisions
    return registry


def story() -> Iterator[commands.Command]:
    yield commands.ApplyPools(pools=(Pool(name="default"),))
    for number in range(120):
        yield commands.RegisterHost(name=f"h{number}", incarnation=f"i{number}", pool="default", node=f"n{number}")
    specs = tuple(AgentSpec(id=f"a/{n}", class_name="Cart") for n in range(AGENTS))
    yield commands.ApplyAgents(agents=specs, managed_by="API", command_id="c1")
    yield commands.ReleaseHost(incarnation="i7")
    yield commands.Tick(step_ns=5)
    items = tuple(
        commands.Assignment(uid=str(121 + n + 1), epoch=0, incarnation="i3", reason="Scheduled", explanation="why")
        for n in range(AGENTS)
    )
    yield commands.Assign(items=items, wall=7.0)


def taken(chunks: Iterator[bytes], *, shared: bool = False) -> Registry:
    registry, strings = Registry(), dict[str, str]()
    for chunk in chunks:
        part = snapshots.decode(chunk)
        if shared:
            snapshots.share(part.agents, strings)
        registry.take(part)
    return registry


def derived(registry: Registry) -> tuple[object, ...]:
    """What is not in a snapshot and must be the same after it."""
    return (
        registry.by_id, registry.held_by, registry.incarnations, registry.usage, registry.unheld, registry._result_rows,
    )  # fmt: skip


@pytest.mark.parametrize("shared", [False, True])
def test_all_chunks_give_the_same_registry(filled: Registry, shared: bool) -> None:
    again = taken(snapshots.chunks(filled.freeze()), shared=shared)
    assert again.snapshot() == filled.snapshot()
    assert derived(again) == derived(filled)
    assert again.agents == filled.agents


def test_the_same_state_gives_the_same_chunks(filled: Registry) -> None:
    once = list(snapshots.chunks(filled.freeze()))
    assert list(snapshots.chunks(taken(iter(once)).freeze())) == once


def test_a_chunk_is_small(filled: Registry) -> None:
    parts = [snapshots.decode(chunk) for chunk in snapshots.chunks(filled.freeze())]
    assert max(len(part.agents) for part in parts) == snapshots.ROWS["agents"]
    assert max(len(part.hosts) for part in parts) == snapshots.ROWS["hosts"]
    kinds = [name for part in parts for name in ("agents", "hosts", "decisions", "results") if getattr(part, name)]
    assert len(kinds) >= 7  # none of them in the chunk of another


def test_what_happens_after_the_freezing_is_not_in_the_snapshot(filled: Registry) -> None:
    registry = taken(snapshots.chunks(filled.freeze()))
    before = registry.snapshot()
    chunks = snapshots.chunks(registry.freeze())
    first = next(chunks)
    machine.apply(registry, 1000, commands.DeleteAgents(ids=("a/0", "a/1202"), managed_by="API", command_id="c9"))
    machine.apply(registry, 1001, commands.ReleaseHost(incarnation="i3"))
    rest = list(chunks)
    assert taken(iter([first, *rest])).snapshot() == before != registry.snapshot()


def test_a_snapshot_of_version_1_is_read(filled: Registry) -> None:
    """All in one, as it was before there were chunks."""
    old = b"\x01" + msgspec.msgpack.encode(filled.freeze())
    assert taken(iter([old])).snapshot() == filled.snapshot()
    assert Registry.restore(old).snapshot() == filled.snapshot()


@pytest.mark.parametrize("chunk", [b"", b"\x09", b"\x02\xc1", b"\x02"])
def test_what_is_no_chunk_is_refused(chunk: bytes) -> None:
    with pytest.raises(commands.Undecodable):
        snapshots.decode(chunk)
