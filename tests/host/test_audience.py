"""Who hears a signal that names no single agent: the mirror's indexes, against the rows themselves."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tenure_proto.v1.registry_pb2 import AgentRow, AgentSpec, ClassInfo, HostRow, Spread, WatchBatch
from tenured.core import patterns
from tenured.host.mirror import Mirror
from tenured.host.rows import Row


def agent(uid: int, kind: str = "Cart", space: str = "shop", *, deleting: bool = False, **more: Any) -> AgentRow:
    spec = AgentSpec(id=f"{space}/a{uid}", pool=more.pop("pool", "default"), **more)
    setattr(spec, "class", kind)
    return AgentRow(uid=str(uid), spec=spec, deleting=deleting)


def host(name: str, *classes: ClassInfo, pool: str = "default", expired: bool = False) -> HostRow:
    return HostRow(name=name, incarnation=f"{name}.1", pool=pool, classes=classes, expired=expired)


def filled(*agents: AgentRow, hosts: Any) -> Mirror:
    mirror = Mirror("me")
    mirror.apply(WatchBatch(revision=9, snapshot=True, synced=True, agents=agents, hosts=hosts))
    return mirror


def uids(rows: list[AgentRow]) -> list[int]:
    return [int(row.uid) for row in rows]


CART = ClassInfo(name="Cart", subscribes=["order.*"], capabilities=["carts"])
AUDIT = ClassInfo(name="Audit", subscribes=["**"])


def test_subscribers_are_those_of_the_class_and_the_namespace() -> None:
    """In the order of their uids, as numbers."""
    mirror = filled(
        agent(10),
        agent(9),
        agent(3, space="other"),
        agent(4, "Audit"),
        agent(5, "Deaf"),
        hosts=[host("h", CART, AUDIT)],
    )
    assert uids(mirror.subscribers("order.paid", "shop")) == [4, 9, 10]
    assert uids(mirror.subscribers("order.paid", "other")) == [3]
    assert uids(mirror.subscribers("user.left", "shop")) == [4]


def test_a_class_is_what_the_hosts_of_its_own_pool_say() -> None:
    """Two pools may register the same name."""
    mirror = filled(
        agent(1), agent(2, pool="other"), hosts=[host("h", CART), host("o", ClassInfo(name="Cart"), pool="other")]
    )
    assert uids(mirror.subscribers("order.paid", "shop")) == [1]


def test_new_patterns_count_at_once() -> None:
    """A pool was rolled: what was remembered of a type is forgotten."""
    mirror = filled(agent(1), hosts=[host("h", CART)])
    assert uids(mirror.subscribers("user.left", "shop")) == []
    mirror.apply(WatchBatch(revision=10, hosts=[host("h", ClassInfo(name="Cart", subscribes=["user.*"]))]))
    assert uids(mirror.subscribers("user.left", "shop")) == [1]
    assert uids(mirror.subscribers("order.paid", "shop")) == []


def test_a_signal_does_not_pass_by_agents_whose_hosts_are_all_away() -> None:
    """The last word of hosts that ended counts until another one speaks."""
    mirror = filled(agent(1), hosts=[host("h", CART)])
    mirror.apply(WatchBatch(revision=10, hosts=[host("h", CART, expired=True)]))
    assert uids(mirror.subscribers("order.paid", "shop")) == [1]
    mirror.apply(WatchBatch(revision=11, hosts=[host("new", ClassInfo(name="Cart"))]))
    assert uids(mirror.subscribers("order.paid", "shop")) == []


def test_capabilities_are_those_of_the_agent_and_of_its_class() -> None:
    """One with neither is of general purpose, as lookups say it."""
    mirror = filled(agent(1), agent(2, capabilities=["ocr"]), agent(3, "Audit"), hosts=[host("h", CART, AUDIT)])
    assert uids(mirror.capable("carts", "shop")) == [1, 2]
    assert uids(mirror.capable("ocr", "shop")) == [2]
    assert uids(mirror.capable("general_purpose", "shop")) == [3]


def test_groups_are_those_of_spread_and_the_class() -> None:
    rule = Spread(by="Zone", group="blue")
    mirror = filled(agent(1, spread=[rule]), agent(2), agent(3, "Audit", spread=[rule]), hosts=[])
    assert uids(mirror.group("blue", "shop")) == [1, 3]
    assert uids(mirror.group("Cart", "shop")) == [1, 2]
    assert uids(mirror.group("blue", "other")) == []


def test_who_is_going_hears_nothing() -> None:
    """It would be deleted with what it was told."""
    mirror = filled(agent(1), agent(2), hosts=[host("h", CART)])
    mirror.apply(WatchBatch(revision=10, agents=[agent(1, deleting=True)]))
    assert uids(mirror.everyone("shop")) == [2]
    mirror.apply(WatchBatch(revision=11, gone_agents=["1", "2"]))
    assert uids(mirror.everyone("shop")) == []
    assert uids(mirror.subscribers("order.paid", "shop")) == []


AGENTS = st.builds(
    lambda uid, kind, space, pool, words, groups, deleting: agent(
        uid, kind, space, pool=pool, capabilities=words, spread=[Spread(group=g) for g in groups], deleting=deleting
    ),
    st.integers(1, 6), st.sampled_from(["Cart", "Audit"]), st.sampled_from(["shop", "other"]),
    st.sampled_from(["default", "gpu"]), st.lists(st.sampled_from(["ocr", "carts"]), unique=True),
    st.lists(st.sampled_from(["blue", ""])), st.booleans(),
)  # fmt: skip
CLASSES = st.builds(
    lambda name, heard, words: ClassInfo(name=name, subscribes=heard, capabilities=words),
    st.sampled_from(["Cart", "Audit"]),
    st.lists(st.sampled_from(["order.*", "**", "order.paid"]), max_size=2),
    st.lists(st.sampled_from(["carts"]), max_size=1),
)
HOSTS = st.builds(
    lambda name, classes, pool: host(name, *classes, pool=pool),
    st.sampled_from(["h", "o"]), st.lists(CLASSES, max_size=2), st.sampled_from(["default", "gpu"]),
)  # fmt: skip
BATCHES = st.builds(
    lambda agents, hosts, gone, snapshot: WatchBatch(
        snapshot=snapshot, agents=agents, hosts=hosts, gone_agents=[str(uid) for uid in gone]
    ),
    st.lists(AGENTS, max_size=4), st.lists(HOSTS, max_size=2), st.lists(st.integers(1, 6), max_size=2), st.booleans(),
)  # fmt: skip


@given(st.lists(BATCHES, max_size=6))
def test_the_indexes_are_what_the_rows_say(batches: list[WatchBatch]) -> None:
    """Whatever came in which order."""
    mirror = Mirror("me")
    for batch in batches:
        mirror.apply(batch)
        for type_ in ("order.paid", "x"):
            found = uids(mirror.subscribers(type_, "shop"))
            assert found == slow(mirror, lambda row: any(hears(info, type_) for info in kinds(mirror, row)))  # noqa: B023
    assert uids(mirror.capable("ocr", "shop")) == slow(mirror, lambda row: "ocr" in row.kind.capabilities)
    assert uids(mirror.group("blue", "shop")) == slow(mirror, lambda row: "blue" in row.kind.groups)
    assert uids(mirror.everyone("shop")) == slow(mirror, lambda _: True)


def slow(mirror: Mirror, wanted: Any) -> list[int]:
    rows = [row for row in mirror.agents.values() if row.id.startswith("shop/") and not row.deleting]
    return sorted(int(row.uid) for row in rows if wanted(row))


def kinds(mirror: Mirror, row: Row) -> list[ClassInfo]:
    name, pool = row.kind.name, row.kind.pool
    return [info for each in mirror.hosts.values() if each.pool == pool for info in each.classes if info.name == name]


def hears(info: ClassInfo, type_: str) -> bool:
    return any(patterns.matches(pattern, type_) for pattern in info.subscribes)
