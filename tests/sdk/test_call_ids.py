"""How a client numbers its calls: what an agent's record pays for recognising them."""

from __future__ import annotations

from tenure._remote.callids import CallIds
from tenured.core import turns

AGENTS = ("shop/a", "shop/b", "shop/c")


def test_a_client_of_many_agents_costs_each_of_them_one_span() -> None:
    """A soak found it: after 10,000 calls in two hours such a client's agents refused everybody as Busy."""
    ids, books = CallIds("me"), dict.fromkeys(AGENTS, turns.Book())
    for number in range(2 * turns.MAX_REPLIES):
        now = float(number)
        for agent, book in books.items():
            ids.next(agent, query=True)  # as a dashboard asks between all actions
            call_id = ids.next(agent, query=False)
            assert turns.judge(book, *call_id, born=now, now=now) == turns.New()
            draft = turns.Draft(book, now)
            draft.call(call_id, now, b"reply")
            books[agent] = draft.turn().book
    assert [book.spans for book in books.values()] == [1, 1, 1]


def test_no_id_is_given_twice() -> None:
    ids = CallIds("me", limit=2)
    given = [ids.next(agent, query=query) for _ in range(5) for agent in AGENTS for query in (False, True)]
    assert len(set(given)) == len(given)
    assert all(client.startswith("me-") for client, _ in given)


def test_what_is_told_beforehand_is_given() -> None:
    ids = CallIds("me")
    for query in (False, True, False):
        assert ids.peek("shop/a", query=query) == ids.next("shop/a", query=query)
