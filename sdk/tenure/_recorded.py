"""The record of an agent in memory: as it is, as it was last committed, and as turns that ran ahead have left it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import msgspec

from tenure import _codec, _record, _state
from tenure._agent import Agent, state_class
from tenure._record import Record
from tenure._state import S, State
from tenure._view import View
from tenure.errors import StateInvalid

if TYPE_CHECKING:
    from tenure.skills._roster import Roster

MEMORY = "@strategy"
"""The slice of the agent's strategy."""
_logger = logging.getLogger("tenure.agent")


class Ahead(msgspec.Struct, frozen=True):
    """A turn that ended well and is not settled."""

    turn: int
    state: bytes | None
    """None: as before."""
    roster: Roster | None


class Recorded:
    """What an activation has of its agent's record. The last committed bytes are the undo of a turn.

    Turns may run ahead of their commits, each on the draft that the one before left (protocol 3, several turns in one
    write).
    """

    __slots__ = (
        "_ahead",
        "_committed",
        "_dropped",
        "_kind",
        "_record",
        "_roster",
        "_running",
        "_unread",
        "_view",
        "cls",
        "first",
        "id",
    )

    def __init__(self, cls: type[Agent[Any]], agent_id: str, stored: bytes | None, initial: bytes) -> None:
        """Begin with what is stored, or make the first one. Raises StateInvalid, StateUnreadable, DefinitionError."""
        self.cls = cls
        self.id = agent_id
        self._kind: type[State] = state_class(cls)
        self.first: bytes | None = None
        """The first state, to be committed before the agent is called; None when there was a stored one."""
        if stored is None:
            state = _state.initial(self._kind, self._map(initial, "initial state"))
            memory = cls.__tenure_strategy__.initial() if cls.__tenure_strategy__ is not None else {}
            self._record = Record(state, {MEMORY: memory} if memory else {}, _record.first_roster(cls))
            stored = self.first = _record.encode(cls, self._record, checked=False)
        else:
            self._record = _record.decode(cls, self._kind, stored)
        self._committed = stored
        self._roster = self._record.skills
        """Skills as of the last commit, their states in bytes: the undo of what is not in `_committed` too."""
        self._running: int | None = None
        self._dropped = False
        self._ahead: list[Ahead] = []
        self._unread = False
        """The author's code refused what an undo went back to: `_record` has no state until it is read."""
        self._view = View(self._kind)

    @property
    def committed(self) -> bytes:
        """The last committed record, msgpack."""
        return self._committed

    @property
    def settled(self) -> bool:
        """Whether no turn runs, and none waits for its commit."""
        return self._running is None and not self._ahead

    @property
    def is_in_its_bytes(self) -> bool:
        """Whether what is committed is all that there is of it while it is settled."""
        return self._roster is None and self._record.skills is None and not self._kind.__private_attributes__

    def committed_state(self, kind: type[S]) -> S:
        """A copy of the last committed state."""
        return _record.decode(cast("type[Agent[S]]", self.cls), kind, self._committed, self._roster).state

    @property
    def slices(self) -> Mapping[str, Any]:
        """What is kept beside the state, by name; of the live record."""
        return self._record.slices

    def commit(self, turn: int) -> None:
        """Everything up to this turn is durable: it is the new undo. Ignored for what is not pending."""
        count = sum(one.turn <= turn for one in self._ahead)
        settled, self._ahead = self._ahead[:count], self._ahead[count:]
        for one in settled:
            self._roster = one.roster
            if one.state is not None:
                self._committed = one.state
                self._view.forget()

    def drop(self, turn: int) -> None:
        """This turn and all later ones did not happen: undo them, one that runs when it ends."""
        kept = [one for one in self._ahead if one.turn < turn]
        dropped = len(kept) < len(self._ahead)
        self._ahead = kept
        if self._running is not None and self._running >= turn:
            self._dropped = True
        elif dropped:
            self._undo()

    def adopt(self, record: bytes) -> None:
        """What `beside` returned is durable. The turn that runs goes on from there."""
        self._record.slices = _slices_in(record)
        self._committed = record

    def _decoded(self) -> State:
        return cast(State, _record.decode(self.cls, self._kind, self._committed, self._roster).state)

    @property
    def _draft_bytes(self) -> bytes:
        """The record that the next turn begins with."""
        for one in reversed(self._ahead):
            if one.state is not None:
                return one.state
        return self._committed

    def _live_state(self) -> State:
        """What the next turn works on. Raises as `_read_back` where an undo was refused."""
        if self._unread:
            self._read_back()
        return self._record.state

    def _undo(self) -> None:
        """Go back to what the last turn that stands has left [batch_restart]; if that is refused, the next turn asks
        again, and fails until it is accepted.
        """
        try:
            self._read_back()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - validators and hooks of the state are the author's
            _logger.warning("the state of %s is refused where a turn is undone: %s", self.id, error)
            self._record = Record(cast(State, None), _slices_in(self._draft_bytes), self._standing_roster)
            self._unread = True

    def _read_back(self) -> None:
        """The record that the next turn begins with, from its bytes. Raises what `decode` and the author's code do."""
        self._record = _record.decode(self.cls, self._kind, self._draft_bytes, self._standing_roster)
        self._unread = False

    @property
    def _standing_roster(self) -> Roster | None:
        return self._ahead[-1].roster if self._ahead else self._roster

    def _map(self, data: bytes, what: str) -> dict[str, object]:
        try:
            return _codec.unpack_map(data)
        except ValueError as error:
            raise StateInvalid(f"{what} of {self.id}: {error}") from error


def _slices_in(record: bytes) -> dict[str, Any]:
    """What is in `Record.slices` of these bytes; the state is not read."""
    content = _codec.unpack_map(record)
    return _record.own_slices({name: value for name, value in content.items() if name.startswith("@")})
