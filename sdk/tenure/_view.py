"""What queries see: a copy of the committed state."""

from __future__ import annotations

import logging
from collections.abc import Callable

from tenure import _state
from tenure._state import State
from tenure.errors import StateInvalid

_logger = logging.getLogger("tenure.agent")


class View:
    """One copy for all queries between two commits, where none of them can see what another did to it in place."""

    __slots__ = ("_bytes", "_frozen", "_state")

    def __init__(self, kind: type[State]) -> None:
        self._frozen = _state.only_scalars(kind)
        self._state: State | None = None
        self._bytes = b""

    def forget(self) -> None:
        """There is another committed state."""
        self._state = None

    def take(self, decode: Callable[[], State], *, at_once: bool) -> State:
        """A copy for one query. `at_once`: it ends in the step in which it begins; others get a copy of their own."""
        if not (at_once or self._frozen):
            return decode()
        if self._state is None:
            self._state = decode()
            self._bytes = b"" if self._frozen else _state.encode(self._state)
        return self._state

    def give_back(self, state: State, label: str, agent_id: str) -> None:
        """The query has ended. What it changed in place is lost, and nobody else sees it."""
        if self._frozen or state is not self._state:
            return
        try:
            same = _state.encode(state) == self._bytes
        except StateInvalid:
            same = False
        if not same:
            self._state = None
            _logger.warning("%s of %s changed the state in place: a query only reads; this is lost", label, agent_id)
