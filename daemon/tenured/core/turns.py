"""What one committed turn writes, and how a repeated call is recognised (protocol 3, "External clients").

The record of an agent is a small map (protocol additions 8). Its keys:

* `s`: the user's state, msgpack.
* `c`: the latest cluster time that this state has seen, seconds [state_clock].
* `r/<client>/<key>`: a call that was applied: when (`used`) and its reply.
* `m/<client>`: calls that were applied and whose replies are no longer kept, as spans of keys. A client that numbers
  its calls 1, 2, 3, ... costs one span; keys drawn at random cost one each.
* `w`: when the agent must be awake, for those that do not hold it: a `Wake`. Never encrypted.
* what `core.boxes` keeps of signals, `core.journals` of turns with steps, `core.endings` of an agent that has ended.

Bounds: replies and marks are forgotten after `KEEP_S` of cluster time; `MAX_REPLIES` replies and `MAX_REPLY_BYTES` of
them are kept, older ones become marks; `MAX_SPANS` spans, then new calls get `Busy` until some are old enough to be
forgotten. A call that was made longer ago than `KEEP_S` and has no mark is `TooOld`: its effect is unknown [age].
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import islice

import msgspec

from tenured.core import boxdraft, boxes, endings, journals
from tenured.core.boxes import Boxes
from tenured.core.endings import Ended
from tenured.core.frames import WAKE
from tenured.core.journals import Journal

KEEP_S = 7200.0
"""Cluster time for which a call is recognised; more than any client repeats one."""
MAX_LEAD_S = 60.0
"""How much later than a host has read a client may say that its call was born: hosts lag by a heartbeat or two. A
commit takes the latest time it has seen for the record's clock: one call from the far future would make all others old.
"""
MAX_REPLIES = 1000
MAX_REPLY_BYTES = 256 * 1024
FOLD = 100
"""Replies that are turned into marks at once, so that most turns write one mark only."""
MAX_SPANS = 10_000
FORGET = 16
"""Old replies dropped by one turn at most: a delta stays small."""

STATE = "s"
CLOCK = "c"
_REPLY = "r/"
_MARK = "m/"


class Damaged(ValueError):
    """A record that this version cannot read: the agent stays down (StateUnreadable)."""


class Span(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Keys `low` to `high` of one client were applied, the last of them at `used`."""

    low: int
    high: int
    used: float


class Reply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A recorded reply, as the shell encoded it."""

    used: float
    body: bytes


class Wake(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The earliest of what is planned, in seconds; None: nothing."""

    cluster: float | None = None
    wall: float | None = None
    """Since 1970."""


NEVER = Wake()
AT_ONCE = Wake(cluster=0.0)
CallId = tuple[str, int]
"""(client id, key)"""


class Book(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The marks of one record, as of one version. Judge by the book of the *committed* version only [ack_committed]."""

    clock: float = 0.0
    replies: dict[CallId, Reply] = {}
    """Oldest first."""
    reply_bytes: int = 0
    marks: dict[str, tuple[Span, ...]] = {}
    spans: int = 0
    boxes: Boxes = boxes.EMPTY
    journal: Journal = journals.EMPTY
    planned: Wake = NEVER
    """Of the state's plans; of a record that was read just now: of everything that does not ask for it at once."""
    wake: Wake = NEVER
    """What is written: of the plans, and of a turn that is owed."""
    ended: Ended | None = None
    """The agent has ended: nothing new begins [end_kept]."""


# Of all books that have none: nobody changes a book's.
_no_replies: dict[CallId, Reply] = {}
_no_marks: dict[str, tuple[Span, ...]] = {}


class New(msgspec.Struct, frozen=True):
    """Run the turn."""


class Recorded(msgspec.Struct, frozen=True):
    """Applied before; this was the reply."""

    reply: bytes


class AppliedReplyGone(msgspec.Struct, frozen=True):
    """Applied before; the reply is no longer kept."""


class TooOld(msgspec.Struct, frozen=True):
    """Made longer ago than marks are kept: whether it was applied is unknown."""


class FromTheFuture(msgspec.Struct, frozen=True):
    """Born later than any honest client can say: not applied."""


class Busy(msgspec.Struct, frozen=True):
    """Too many calls to tell apart within `KEEP_S`: not applied, try later."""


Judgement = New | Recorded | AppliedReplyGone | TooOld | FromTheFuture | Busy


class Turn(msgspec.Struct, frozen=True):
    """What one turn writes, and the book as of that version."""

    book: Book
    puts: dict[str, bytes]
    deletes: tuple[str, ...] = ()


_encode = msgspec.msgpack.Encoder().encode
_reply_decoder = msgspec.msgpack.Decoder(Reply)
_spans_decoder = msgspec.msgpack.Decoder(tuple[Span, ...])
_clock_decoder = msgspec.msgpack.Decoder(float)
_wake_decoder = msgspec.msgpack.Decoder(Wake)
_ended_decoder = msgspec.msgpack.Decoder(Ended)


def load(entries: Mapping[str, bytes]) -> Book:
    """Read the book of an adopted record.

    Raises:
        Damaged: an entry does not decode.

    """
    replies: dict[CallId, Reply] = {}
    marks: dict[str, tuple[Span, ...]] = {}
    try:
        clock = _clock_decoder.decode(entries[CLOCK]) if CLOCK in entries else 0.0
        for name, data in entries.items():
            if name.startswith(_REPLY):
                client, _, key = name[len(_REPLY) :].rpartition("/")
                replies[client, int(key)] = _reply_decoder.decode(data)
            elif name.startswith(_MARK):
                marks[name[len(_MARK) :]] = _spans_decoder.decode(data)
        of_signals, of_steps = boxes.load(entries), journals.load(entries)
        wake = _wake_decoder.decode(entries[WAKE]) if WAKE in entries else NEVER
        ended = _ended_decoder.decode(entries[endings.ENDED]) if endings.ENDED in entries else None
    except (msgspec.DecodeError, ValueError) as error:
        raise Damaged(f"a mark of the record cannot be read: {error}") from error
    ordered = dict(sorted(replies.items(), key=lambda item: (item[1].used, item[0])))
    return Book(
        clock=clock,
        replies=ordered or _no_replies,
        reply_bytes=sum(len(reply.body) for reply in ordered.values()),
        marks=marks or _no_marks,
        spans=sum(map(len, marks.values())),
        boxes=of_signals,
        journal=of_steps,
        planned=NEVER if wake == AT_ONCE else wake,
        wake=wake,
        ended=ended,
    )


def judge(book: Book, client: str, key: int, born: float, now: float) -> Judgement:  # noqa: PLR0911 - verdicts
    """Decide what to do with a call. `born`, `now`: cluster seconds. An empty client id is never recognised again."""
    now = max(now, book.clock)  # a new holder may have read less cluster time than this state has seen [state_clock]
    if not born <= now + MAX_LEAD_S:  # NaN neither
        return FromTheFuture()
    if not client:
        return New()
    reply = book.replies.get((client, key))
    if reply is not None:
        return Recorded(reply.body)
    if _covered(book.marks.get(client, ()), key):
        return AppliedReplyGone()
    if now - born >= KEEP_S:
        return TooOld()
    if book.spans >= MAX_SPANS and not any(
        now - span.used >= KEEP_S for spans in book.marks.values() for span in spans
    ):
        return Busy()
    return New()


class Draft:
    """A book in the making, with the entries that change: of one turn, or of several in their order, which are written
    as one [batch_whole].
    """

    def __init__(self, book: Book, now: float) -> None:
        """`now`: cluster seconds as read; the record's clock, if that has seen more [state_clock]."""
        self.now = max(now, book.clock)
        self._book = book
        self.replies = book.replies.copy()
        self.bytes = book.reply_bytes
        self.marks = book.marks.copy()
        self.spans = book.spans
        self.planned = book.planned
        self.ended = book.ended
        self.puts: dict[str, bytes] = {}
        self.deletes: dict[str, None] = {}
        self.boxes = boxdraft.BoxDraft(book.boxes, self.puts, self.deletes)
        self.journal = journals.JournalDraft(book.journal, self.puts, self.deletes)

    def state(self, state: bytes | None) -> None:
        """The user's state; None: as it was."""
        if state is not None:
            self.puts[STATE] = state

    def call(self, call_id: CallId, born: float, reply: bytes) -> None:
        """A call was applied: the mark with its reply [mark_in_commit, used_born]."""
        self.saw(born)
        if call_id[0]:
            self.record(call_id, Reply(self.now, reply))

    def call_without_reply(self, call_id: CallId, born: float) -> None:
        """A call had effects, and ended without a reply to keep: it is not run again."""
        self.saw(born)
        client, key = call_id
        if client:
            self._keep_marks(client, _with_key(self.marks.get(client, ()), key, self.now))

    def saw(self, born: float) -> None:
        """Something of that time is in this state from now on [used_born]."""
        self.now = max(self.now, born)

    def due(self, wake: Wake) -> None:
        """What the state plans from now on."""
        self.planned = wake

    def end(self, reason: str, wall: float) -> None:
        """The turn ends its agent: after all that it sends [end_in_commit]. `wall`: seconds since 1970, for people."""
        if self.ended is None:
            self.ended = Ended(reason[: endings.REASON_LIMIT], self.boxes.n, wall)
            self.puts[endings.ENDED] = _encode(self.ended)

    def forget(self) -> None:
        """Drop what is older than the keep time: a few replies from the old end; all old spans once the bound is
        reached.
        """
        for call_id in tuple(islice(self.replies, FORGET)):
            if self.now - self.replies[call_id].used < KEEP_S:
                break
            self._drop(call_id)
        if self.spans >= MAX_SPANS:
            for client in list(self.marks):
                self._keep_marks(client, self.marks[client])

    def record(self, call_id: CallId, reply: Reply) -> None:
        """Add the mark of this turn; make room first."""
        fits = len(reply.body) <= MAX_REPLY_BYTES
        if fits and (len(self.replies) >= MAX_REPLIES or self.bytes + len(reply.body) > MAX_REPLY_BYTES):
            self._fold(len(reply.body))
        if fits:
            self.replies[call_id] = reply
            self.bytes += len(reply.body)
            self._put(_reply_key(call_id), _encode(reply))
        else:
            self._keep_marks(call_id[0], _with_key(self.marks.get(call_id[0], ()), call_id[1], reply.used))

    def _fold(self, room: int) -> None:
        """Turn the oldest replies into marks."""
        touched: dict[str, tuple[Span, ...]] = {}
        for count, call_id in enumerate(list(self.replies)):
            if count >= FOLD and len(self.replies) < MAX_REPLIES and self.bytes + room <= MAX_REPLY_BYTES:
                break
            client, key = call_id
            spans = touched.get(client, self.marks.get(client, ()))
            touched[client] = _with_key(spans, key, self.replies[call_id].used)
            self._drop(call_id)
        for client, spans in touched.items():
            self._keep_marks(client, spans)

    def _drop(self, call_id: CallId) -> None:
        self.bytes -= len(self.replies.pop(call_id).body)
        self._delete(_reply_key(call_id))

    def _keep_marks(self, client: str, spans: tuple[Span, ...]) -> None:
        old = self.marks.get(client, ())
        kept = tuple(span for span in spans if self.now - span.used < KEEP_S)
        if kept == old:
            return
        self.spans += len(kept) - len(old)
        name = _MARK + client
        if kept:
            self.marks[client] = kept
            self._put(name, _encode(kept))
        else:
            self.marks.pop(client, None)
            self._delete(name)

    def _put(self, name: str, data: bytes) -> None:
        self.deletes.pop(name, None)
        self.puts[name] = data

    def _delete(self, name: str) -> None:
        self.puts.pop(name, None)
        self.deletes[name] = None

    def turn(self) -> Turn:
        """What is to be written, and the book as of then."""
        self.forget()
        self.boxes.forget(self.now)
        self.puts[CLOCK] = _encode(self.now)
        self.planned = self.planned if self.ended is None else NEVER
        of_signals, of_steps = self.boxes.boxes(), self.journal.journal()
        wake = _wanted(self.planned, of_signals, of_steps) if self.ended is None else AT_ONCE
        if wake != self._book.wake:
            self.puts[WAKE] = _encode(wake)
        book = Book(
            clock=self.now,
            replies=self.replies or _no_replies,
            reply_bytes=self.bytes,
            marks=self.marks or _no_marks,
            spans=self.spans,
            boxes=of_signals,
            journal=of_steps,
            planned=self.planned,
            wake=wake,
            ended=self.ended,
        )
        return Turn(book, self.puts, tuple(self.deletes))


def _wanted(planned: Wake, of_signals: Boxes, of_steps: Journal) -> Wake:
    """When the agent must be awake. At once, if something of it is under way that nobody but itself goes on with: its
    next holder may have heard that it sleeps [wake_owing].
    """
    owed = of_steps.owed
    if of_signals.out or (of_steps.inbox if owed is None else owed.waiting is None):
        return AT_ONCE
    if owed is None:
        return planned
    ends = [owed.until]
    if owed.waiting is not None and owed.waiting.until:
        ends.append(owed.waiting.until)
    if planned.cluster is not None:
        ends.append(planned.cluster)
    return Wake(min(ends), planned.wall)


def _reply_key(call_id: CallId) -> str:
    return f"{_REPLY}{call_id[0]}/{call_id[1]}"


def _covered(spans: tuple[Span, ...], key: int) -> bool:
    at = bisect_right(spans, key, key=lambda span: span.low)
    return at > 0 and key <= spans[at - 1].high


def _with_key(spans: tuple[Span, ...], key: int, used: float) -> tuple[Span, ...]:
    """Add one key, joining the spans that it touches."""
    if _covered(spans, key):
        return spans
    at = bisect_right(spans, key, key=lambda span: span.low)
    before, after = spans[:at], spans[at:]
    new = Span(key, key, used)
    if before and before[-1].high + 1 == key:
        new = Span(before[-1].low, key, max(used, before[-1].used))
        before = before[:-1]
    if after and after[0].low == key + 1:
        new = Span(new.low, after[0].high, max(new.used, after[0].used))
        after = after[1:]
    return (*before, new, *after)
