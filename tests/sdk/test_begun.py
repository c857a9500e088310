"""Notes of the turns that a worker has begun: what PID 1 reads of them once it is dead."""

import os

from tenure.worker.begun import NO_PAGE, PAGES, Notebook, Notes


def test_the_notes_of_a_dead_process_can_be_read() -> None:
    """Another process wrote them, and is gone. The next one on that page begins with none."""
    book = Notebook()
    page = book.take()
    child = os.fork()
    if child == 0:
        notes = book.notes(page)
        ended = notes.begin(5)
        notes.begin(6)
        notes.begin(1 << 40)
        notes.end(ended)
        os._exit(0)
    os.waitpid(child, 0)
    assert sorted(book.read(page) or ()) == [6, 1 << 40]
    assert book.take() == page
    assert book.read(page) == ()


def test_more_turns_than_places_are_not_known() -> None:
    """Then each of them may have ended the worker; once they are fewer again all is known again."""
    notes = Notes([0] * 3)
    places = [notes.begin(turn) for turn in (7, 8, 9, 10)]
    assert notes._words == [2, 7, 8]
    notes.end(places[3])
    notes.end(places[0])
    notes.end(places[2])
    assert notes._words == [0, 0, 8]
    book = Notebook()
    page = book.take()
    crowd = book.notes(page)
    for turn in range(1, 600):
        crowd.begin(turn)
    assert book.read(page) is None


def test_without_a_page_nothing_is_known() -> None:
    """More workers than pages: they work, and any of their turns may have ended them."""
    book = Notebook()
    assert len({book.take() for _ in range(PAGES - 1)} - {NO_PAGE}) == PAGES - 1
    assert book.take() == NO_PAGE
    notes = book.notes(NO_PAGE)
    notes.end(notes.begin(7))
    assert book.read(NO_PAGE) is None
