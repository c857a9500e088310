"""What a replaced disk takes over from pages of the others (protocol 2, rejoin 4)."""

from hypothesis import given
from hypothesis import strategies as st

from tenured.core.cells import NOTHING, Version
from tenured.core.joining import Head, Page, merge, quorum_of_others

UIDS = st.integers(1, 30).map(str)
VERSIONS = st.builds(Version, st.integers(1, 4), st.integers(0, 4)) | st.just(NOTHING)
HEADS = st.builds(
    lambda uid, version, more: Head(uid, version.epoch + more, version), UIDS, VERSIONS, st.integers(0, 2)
)
STORES = st.lists(HEADS, unique_by=lambda head: head.uid, max_size=20).map(sorted)


def page(store: list[Head], after: str, limit: int) -> Page:
    left = [head for head in store if head.uid > after]
    return Page(left[:limit], len(left) > limit, len(store))


def test_so_many_others_must_answer() -> None:
    """A majority of the others: with the lost disk they were a majority of all."""
    assert [quorum_of_others(others) for others in (1, 2, 4)] == [1, 2, 3]
    assert merge({"a": Page([])}, 2) is None
    assert merge({"a": Page([]), "b": Page([])}, 4) is None


@given(st.lists(STORES, min_size=3, max_size=4), st.integers(1, 7), st.randoms(use_true_random=False))
def test_reading_page_by_page_finds_the_highest_seal_and_version_of_every_record(
    stores: list[list[Head]], limit: int, random: object
) -> None:
    """Whatever the pages' sizes are, and whichever majority answers each time, every record of an answer is there."""
    after, found, done = "", {}, False
    while not done:
        answering = random.sample(range(len(stores)), 3)
        step = merge({str(n): page(stores[n], after, limit) for n in answering}, 4)
        assert step is not None
        assert step.done or step.upto > after, "it goes on"
        for need in step.needs:
            heads = {str(n): head for n in answering for head in stores[n] if head.uid == need.uid}
            best = max(head.version for head in heads.values())
            assert need.sealed == max(head.sealed for head in heads.values())
            assert need.version == best
            assert need.holders == tuple(
                sorted(n for n, head in heads.items() if head.version == best and best != NOTHING)
            )
            assert need.uid not in found, "once is enough"
            found[need.uid] = need
        seen = {head.uid for n in answering for head in stores[n] if after < head.uid <= step.upto}
        assert seen <= set(found)
        after, done = step.upto or after, step.done
    everywhere = set.intersection(*({head.uid for head in store} for store in stores))
    assert everywhere <= set(found)
