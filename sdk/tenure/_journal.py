"""What is kept of a turn with steps, where it is kept, and how results are written there (protocol 9)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from tenure import _codec, errors
from tenure._faults import MESSAGE_LIMIT
from tenure_link import Entry, Fault, Progress, Turn

if TYPE_CHECKING:
    from tenure._effects import Directive
    from tenure.signals import Signal

NOTHING = _codec.pack(None)
"""The result of a sleep, and of a wait whose time was over."""
WAITING = "waiting"
"""Of `Work.carried`: the agents whose turns wait for the end of this work, the last one for its reply."""


class Journal(Protocol):
    """What a runtime keeps of one turn. Whatever `accept` and `record` raise ends the attempt, and is raised by it."""

    @property
    def key(self) -> str:
        """Of the turn, the same in every attempt [stable_key]."""
        ...

    @property
    def accepted(self) -> bool:
        """Whether the turn's acceptance is committed."""
        ...

    @property
    def entries(self) -> Sequence[Entry]:
        """The finished steps, in order."""
        ...

    @property
    def chain(self) -> tuple[str, ...]:
        """Agents whose turns wait for the end of this one."""
        ...

    @property
    def keeps_extra(self) -> bool:
        """Whether what the runtime folds into the record with the turn is committed by its end, not its acceptance."""
        ...

    def now(self) -> float:
        """Seconds, of the clock that waits end by."""
        ...

    async def accept(self, lasts: float) -> None:
        """Commit that the turn is owed, for so many seconds [accept_first]. Afterwards `accepted` is True."""
        ...

    async def record(self, position: int, entry: Entry) -> None:
        """Commit a finished step [journal_first]. Afterwards `entries` has it."""
        ...

    def ending(self, reply: bytes) -> tuple[Directive, ...]:
        """What is to be folded into the record with the commit of the turn's end [end_in_commit]."""
        ...


class LinkJournal:
    """The journal of a turn that a daemon keeps: `progress` sends the frame and returns when it is durable."""

    keeps_extra = True

    def __init__(
        self,
        turn: Turn,
        progress: Callable[[Progress], Awaitable[object]],
        now: Callable[[], float],
        chain: tuple[str, ...] = (),
    ) -> None:
        """`now`: cluster time in seconds, that of `Turn.now` and what has passed since."""
        self._turn = turn
        self.key, self.accepted, self.entries, self.chain = turn.key, turn.accepted, list(turn.journal), chain
        self.now = now
        self._progress = progress

    async def accept(self, lasts: float) -> None:
        """See `Journal`."""
        await self._progress(Progress(self._turn.turn, self._turn.uid, lasts=lasts))
        self.accepted = True

    async def record(self, position: int, entry: Entry) -> None:
        """See `Journal`."""
        await self._progress(Progress(self._turn.turn, self._turn.uid, position, entry))
        self.entries.append(entry)

    def ending(self, reply: bytes) -> tuple[Directive, ...]:  # noqa: ARG002 - the interface
        """The daemon drops the journal by itself."""
        return ()


def signal_of(result: bytes) -> Signal | None:
    """What `wait_for` returns. Raises ValueError."""
    if result == NOTHING:
        return None
    from tenure.signals import from_msgpack  # noqa: PLC0415 - agents without signals need none of it

    return from_msgpack(result)


def chain_of(carried: bytes) -> tuple[str, ...]:
    """The agents whose turns wait for the end of some work, as `Work.carried` has them. Raises ValueError."""
    return tuple(str(_codec.unpack_map(carried).get(WAITING, "")).split())


def outcome(reply: bytes | None, fault: Fault | None) -> bytes:
    """How a call ended, as the result of its step: a reply, msgpack, or a fault."""
    if fault is not None:
        return _codec.pack({"fault": [fault.code, fault.message, fault.details[-MESSAGE_LIMIT:]]})
    return _codec.pack({"reply": reply})


def reply_of(result: bytes, name: str, agent: str) -> bytes:
    """The reply in the result of a call's step. Raises CallError: the fault, or that its time was over."""
    content = _codec.unpack_map(result) if result != NOTHING else None
    if content is None:
        raise errors.DeadlineExceeded(f"{name}: no reply came in time", outcome="unknown", agent=agent)
    if "fault" in content:
        code, message, details = cast("tuple[str, str, str]", content["fault"])
        raise errors.from_code(code, message, agent=agent, details=details)
    return cast(bytes, content["reply"])
