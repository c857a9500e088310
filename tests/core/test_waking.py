"""When sleeping agents are wanted: one order for all of them, against a plain search in any order of events."""

from hypothesis import given
from hypothesis import strategies as st

from tenured.core.turns import Wake
from tenured.core.waking import SLACK, Plans

TIMES = st.none() | st.integers(0, 20).map(float)
UIDS = st.sampled_from(["1", "2", "3", "4"])
EVENTS = st.lists(
    st.tuples(st.just("put"), UIDS, TIMES, TIMES)
    | st.tuples(st.just("drop"), UIDS)
    | st.tuples(st.just("due"), st.integers(0, 20), st.integers(0, 20), st.integers(1, 4)),
    max_size=40,
)


def waits(plans: dict[str, Wake], cluster: float, wall: float) -> dict[str, float]:
    """uid -> seconds until it is wanted, of all that wait for something."""
    ends = {
        uid: [at - now for at, now in ((wake.cluster, cluster), (wake.wall, wall)) if at is not None]
        for uid, wake in plans.items()
    }
    return {uid: min(found) for uid, found in ends.items() if found}


@given(EVENTS)
def test_it_finds_what_a_search_through_all_finds(events: list) -> None:
    """By either clock, each once, at most so many at a time."""
    plans, plain = Plans(), {}
    for kind, *given_ in events:
        if kind == "put":
            uid, cluster, wall = given_
            plans.put(uid, Wake(cluster, wall))
            plain[uid] = Wake(cluster, wall)
        elif kind == "drop":
            plans.drop(*given_)
            plain.pop(*given_, None)
        else:
            cluster, wall, most = given_
            ready = {uid for uid, wait in waits(plain, cluster, wall).items() if wait <= 0}
            found = plans.due(cluster, wall, most)
            assert set(found) <= ready
            assert len(found) == len(set(found)) == min(most, len(ready))
            for uid in found:
                del plain[uid]
        left = waits(plain, 10.0, 5.0)
        assert len(plans) == len(left)
        assert plans.wait_s(10.0, 5.0) == (max(0.0, min(left.values())) if left else None)


def test_one_that_is_planned_anew_again_and_again_takes_no_more_room() -> None:
    """What its earlier plans left is cleared away."""
    plans = Plans()
    for at in range(100 * SLACK):
        plans.put("1", Wake(cluster=1e6 + at, wall=1e6 - at))
    assert len(plans._cluster._heap) <= 2 + SLACK
    assert len(plans._wall._heap) <= 2 + SLACK
    assert plans.due(2e6, 0.0, 9) == ["1"]
    assert plans.wait_s(2e6, 2e6) is None


def test_whoever_waits_for_nothing_takes_no_room() -> None:
    """A hundred thousand of those are nothing."""
    plans = Plans()
    plans.put("1", Wake())
    assert (len(plans), plans.wait_s(0.0, 0.0), plans.due(1e9, 1e9, 9)) == (0, None, [])
