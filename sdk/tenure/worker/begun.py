"""Which turns a worker has begun and not ended: in memory that PID 1 shares with it, so that it outlives the worker.

What ended a worker is among what had begun there; what had only been sent to it did not run. So a turn is noted before
user code of it runs, and crossed out after its end has left (protocol 3, poison [note_first]); PID 1 reads the notes
once the process is reaped. Neither costs a call of the system, and there is no file that could be missing.
"""

from __future__ import annotations

import mmap

_BYTES = mmap.PAGESIZE
_WORD = 8
PAGES = 256
"""What one byte can name. Page 0 is nobody's."""
NO_PAGE = 0
BEYOND = 0
"""This word counts the turns that found no place."""


class Notes:
    """Of one worker. A number is one word, written at once: a worker that dies meanwhile leaves the old or the new."""

    def __init__(self, words: memoryview[int] | list[int]) -> None:
        """`words`: all zero."""
        self._words = words
        self._free = list(range(len(words) - 1, BEYOND, -1))

    def begin(self, turn: int) -> int:
        """Before anything of the turn runs; its place, for `end`."""
        if not self._free:
            self._words[BEYOND] += 1
            return BEYOND
        place = self._free.pop()
        self._words[place] = turn
        return place

    def end(self, place: int) -> None:
        """Nothing of it runs any more, and its end has left."""
        if place == BEYOND:
            self._words[BEYOND] -= 1
            return
        self._words[place] = 0
        self._free.append(place)


class Notebook:
    """The notes of all workers: made before any of them is forked, one page for each."""

    def __init__(self) -> None:
        self._words = memoryview(mmap.mmap(-1, PAGES * _BYTES)).cast("Q")
        self._free = list(range(PAGES - 1, NO_PAGE, -1))

    def take(self) -> int:
        """A page for the next worker; NO_PAGE: there is none left. One whose worker never appeared is not used again:
        who knows whether it lives.
        """
        return self._free.pop() if self._free else NO_PAGE

    def notes(self, page: int) -> Notes:
        """In the worker: its own."""
        return Notes([0] * 2 if page == NO_PAGE else self._page(page))

    def read(self, page: int) -> tuple[int, ...] | None:
        """The turns that a dead worker had begun; None: nobody knows. The page may be taken again."""
        if page == NO_PAGE:
            return None
        words = self._page(page)
        found = tuple(word for word in words[BEYOND + 1 :] if word)
        complete = words[BEYOND] == 0
        words[:] = memoryview(bytes(_BYTES)).cast("Q")
        self._free.append(page)
        return found if complete else None

    def _page(self, page: int) -> memoryview[int]:
        size = _BYTES // _WORD
        return self._words[page * size : (page + 1) * size]
