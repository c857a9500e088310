"""Is an action the same each time? Every turn is run once more, on what it began with, and has to do the same."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from tenure import _codec
from tenure._local.work import Asked, label_of
from tenure._scope import Emission, current_scope
from tenure._turn import Activation, Done
from tenure.directives import Directive
from tenure_link import Entry, Turn, Wait

if TYPE_CHECKING:
    from tenure._local.engine import Engine
    from tenure._local.held import Held
    from tenure._local.journal import LocalJournal
    from tenure._local.owed import Request

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_RUNTIME = ("@turn", "@inbox", "@calls", "@timers", "@children", "@parent")
"""Slices that the runtime makes of directives, which are compared themselves."""


class _AskedForMore(Exception):
    """The second run came to a step that the first one did not ask for."""

    def __init__(self, asked: Sequence[str]) -> None:
        super().__init__(", ".join(asked))
        self.asked = list(asked)


class Replayed:
    """A journal that holds what another attempt has recorded, and takes nothing more."""

    def __init__(self, journal: LocalJournal, waits: Wait | None) -> None:
        self.key, self.chain, self.entries = journal.key, journal.chain, list(journal.entries)
        self.accepted = False
        """So that it is asked before anything that is not in `entries`."""
        self._waits = waits
        self._now = journal.now()

    def now(self) -> float:
        """See `Journal`."""
        return self._now

    async def accept(self, lasts: float) -> None:  # noqa: ARG002 - the interface
        """See `Journal`. Raises what ends this run."""
        scope = current_scope.get()
        asked = scope.steps.asked if scope is not None and scope.steps is not None else []
        if self._waits is None or asked[-1] != self._waits.name:
            raise _AskedForMore(asked)
        self.accepted = True

    async def record(self, position: int, entry: Entry) -> None:  # noqa: ARG002 - the interface
        """See `Journal`."""
        raise _AskedForMore([*(one.name for one in self.entries), entry.name])

    def ending(self, reply: bytes) -> tuple[Directive, ...]:  # noqa: ARG002 - the interface
        """See `Journal`."""
        return ()


@dataclasses.dataclass(frozen=True)
class Trial:
    """A turn as it is about to begin."""

    engine: Engine
    held: Held
    request: Request
    turn: Turn
    before: bytes
    """The record."""
    extra: tuple[Directive, ...]

    async def difference(self, journal: LocalJournal, first: Done) -> str:
        """What a second run does otherwise, in words; empty: nothing."""
        if first.fault is not None and first.fault.code == "DeadlineExceeded":
            return ""  # it may have come anywhere
        held, wanted = self.held, self.request.wanted
        again = Activation(
            held.activation.cls,
            uid=held.activation.uid,
            agent_id=held.id,
            epoch=held.activation.epoch,
            stored=self.before,
            config=held.seed.config,
            supports=self.engine.supports,
            fold=partial(self.engine.fold, held.id),
        )
        again.recovered = held.activation.recovered
        replayed = Replayed(journal, first.waits)
        try:
            if isinstance(wanted, Asked):
                second = await again.perform(self.turn, self.extra, replayed)
            else:
                second = await again.handle(
                    self.turn.turn,
                    wanted,
                    deadline_ns=self.turn.deadline_ns,
                    caller=self.turn.caller,
                    extra=self.extra,
                    journal=replayed,
                )
        except _AskedForMore as more:
            return self._told([("steps", list(first.asked), more.asked)])
        return self._told(self._pairs(first, second))

    def _pairs(self, first: Done, second: Done) -> list[tuple[str, object, object]]:
        return [
            ("end", _end(first), _end(second)),
            ("steps", list(first.asked), list(second.asked)),
            ("directives", [_shown(one) for one in first.directives], [_shown(one) for one in second.directives]),
            ("state", _state(first.state or self.before), _state(second.state or self.before)),
            ("reply", first.reply, second.reply),
        ]

    def _told(self, pairs: Sequence[tuple[str, object, object]]) -> str:
        lines = [f"  {name}: first {one}; then {two}" for name, one, two in pairs if one != two]
        head = f"{label_of(self.request.wanted)} of {self.held.id} does something else when it is run again:"
        return "\n".join([head, *lines]) if lines else ""


def _end(done: Done) -> str:
    if done.fault is not None:
        return f"{done.fault.code}: {done.fault.message}"
    return f"suspended: {done.waits.name}" if done.waits is not None else "well"


def _state(record: bytes) -> Mapping[str, object]:
    return {name: value for name, value in _codec.unpack_map(record).items() if name not in _RUNTIME}


def _shown(directive: Directive) -> str:
    """A directive as text that is the same for the same effect."""
    if isinstance(directive, Emission):
        return repr(directive.plain())
    if not dataclasses.is_dataclass(directive):
        return _ADDRESS.sub("", repr(directive))
    fields: dict[str, Any] = {one.name: getattr(directive, one.name) for one in dataclasses.fields(directive)}
    shown = (f"{name}={getattr(value, '__qualname__', None) or repr(value)}" for name, value in fields.items())
    return _ADDRESS.sub("", f"{type(directive).__name__}({', '.join(shown)})")
