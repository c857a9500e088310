"""What an agent sends, from its turns to the courier and back (protocol 3, sender).

Whom a signal is for is found when its turn is committed; one for an agent that this host has not heard of waits in the
outbox until it has, or until that is hopeless. An entry leaves the outbox only by a committed settlement [keep_box];
settlements wait a little for a write that leaves anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet

import msgspec

import tenure_link
from tenured.clocks import wall_s
from tenured.core import turns
from tenured.core.boxes import Boxes, Entry, Letter, Side
from tenured.core.signals import Settled, Verdict
from tenured.host.courier import Outbound
from tenured.host.policy import Policy
from tenured.host.rows import Row
from tenured.host.signaljobs import PROBE
from tenured.host.site import Site
from tenured.host.telling import Telling

_work = msgspec.msgpack.Decoder(tenure_link.Work).decode
_encode = msgspec.msgpack.Encoder().encode

SETTLE_S = 0.05
"""How long a settlement waits for another write."""
LOOK_S = 1.0
"""Between two looks for what is to be given up."""
UNHEARD_S = 5.0
"""Cluster time after which an agent that nobody has heard of does not exist."""


class Release(msgspec.Struct, frozen=True):
    """A committed entry, as the courier takes it."""

    n: int
    receiver: str
    born: float
    body: bytes
    void: bool
    priority: int


class Outgoing:
    """Of one activation."""

    def __init__(self, site: Site, row: Row, telling: Telling, policy: Policy) -> None:
        self.on_due: Callable[[], None] = lambda: None
        """Called when something is to be settled, and no write may be under way."""
        self._site = site
        self._row = row
        self._telling = telling
        self._policy = policy
        self._namespace = row.kind.namespace
        self._way: Outbound | None = None
        self._settled: dict[int, Verdict] = {}
        self._released: dict[int, bool] = {}
        """Numbers that the courier has, and whether as a void."""
        self._unheard: set[int] = set()
        """Committed numbers whose receivers nobody here has heard of."""
        self._looked_s = 0.0
        """When all that waits was looked at last, by the loop's clock."""
        self._in_write: dict[int, Verdict] = {}
        """Settlements of the write that is made, or under way."""
        self._boxes = Boxes()
        self._timer: asyncio.TimerHandle | None = None
        self._ripe = self._closed = False

    def adopt(self, found: Boxes) -> None:
        """Resend all of it: a new holder knows what is in the record, and nothing else."""
        if found.out:
            self.release(found, found.out)

    def close(self) -> None:
        """Send nothing more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._way is not None:
            self._way.close()
            self._way = None

    # --- in a turn's commit ---------------------------------------------------------------------------------------

    def entries_of(self, sends: Sequence[tenure_link.Outgoing], draft: turns.Draft, *, reply: str = "") -> list[Entry]:
        """What a turn sends, resolved to receivers (protocol 3, outbox entry). Empty when nobody listens.

        `reply`: the turn waits for the reply of that name.
        """
        entries: list[Entry] = []
        # Behind one that waits for the same agent to be heard of, others wait too: they must not overtake it.
        behind = self._unresolved(draft) if sends else set[str]()
        for one in sends:
            body = one.work
            if reply:
                body = _encode(msgspec.structs.replace(_work(one.work), reply=reply))
            for receiver, to in self._receivers(one, behind):
                entries.append(
                    Entry(
                        receiver=receiver,
                        to=to,
                        born=draft.now,
                        body=body,
                        type=one.type,
                        priority=one.priority,
                        reply=reply,
                    )
                )
        return entries

    def _unresolved(self, draft: turns.Draft) -> set[str]:
        out = draft.boxes.out
        found = (out.get(n) for n in self._unheard | draft.boxes.touched)
        return {entry.to for entry in found if entry is not None and not entry.receiver}

    def _receivers(self, one: tenure_link.Outgoing, behind: AbstractSet[str]) -> list[tuple[str, str]]:
        mirror, namespace = self._site.mirror, self._namespace
        kind, _, name = one.to.partition(":")
        if not one.to:
            rows = mirror.subscribers(one.type, namespace)
        elif kind == "capability":
            rows = mirror.capable(name, namespace)
        elif kind == "group":
            rows = mirror.group(name, namespace)
        elif kind == "all":
            rows = [row for row in mirror.everyone(namespace) if row.uid != self._row.uid]
        else:
            row = self._site.mirror.agent(one.to)
            return [("" if row is None or one.to in behind else row.uid, one.to)]
        return [("" if row.id in behind else row.uid, row.id) for row in rows]

    @property
    def ripe(self) -> bool:
        """There is something to settle, and it waits for no other write any more."""
        return self._ripe

    def settle_into(self, draft: turns.Draft, *, writing: bool) -> bool:
        """Everything that has been settled, given up or found since the last write. False: nothing to write for.

        `writing`: a write leaves in any case.
        """
        ripe, self._ripe = self._ripe, False
        if not (ripe or writing) or not draft.boxes.out:
            return False
        settled, self._settled = self._settled, {}
        for n, verdict in settled.items():
            entry = draft.boxes.out.get(n)
            if entry is not None:
                self._settle(draft, n, verdict, entry, _why(verdict, entry))
        self._in_write = settled
        changed = bool(settled)
        if ripe:  # not at each write
            for n in self._to_look_at(draft.boxes.out):
                entry = draft.boxes.out.get(n)
                changed |= entry is not None and self._look_at(draft, n, entry)
        return changed

    def _to_look_at(self, out: Iterable[int]) -> list[int]:
        """Those that nobody had heard of, and once in a while all: settlements come much more often."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_s < LOOK_S:
            return sorted(self._unheard)
        self._looked_s = now
        return list(out)

    def not_sent(self) -> None:
        """The write that was made last has not left: its settlements go with another."""
        self._settled = self._in_write | self._settled
        self._in_write = {}

    def _look_at(self, draft: turns.Draft, n: int, entry: Entry) -> bool:
        """Give it up, or find its receiver. True: something changed."""
        old = draft.now - entry.born >= self._policy.ttl_s
        if entry.receiver:
            if not old or entry.void or self._is_kept(draft, entry):
                return False
            text = f"it was not taken within {self._policy.ttl_s:g} s"
            draft.boxes.give_up(n, self._telling.name(), self._letter(entry, "pending", ("Expired", text)))
            return True
        row = self._site.mirror.agent(entry.to)
        if row is not None:
            draft.boxes.resolve(n, row.uid)
            return True
        if draft.now - entry.born < UNHEARD_S or not self._site.mirror.synced:
            return False
        self._settle(draft, n, Verdict.NOT_APPLIED, entry, ("NotFound", f"there is no agent {entry.to}"))
        return True

    def _is_kept(self, draft: turns.Draft, entry: Entry) -> bool:
        """Somebody waits, with a deadline of his own: a turn here for the reply to it [keep_request]; or for it, which
        is a reply, one that may be away for longer than signals live [reply_settled].
        """
        if entry.reply:
            return draft.journal.journal().awaits("", entry.reply)
        return bool(_work(entry.body).answer)

    def _settle(self, draft: turns.Draft, n: int, verdict: Verdict, entry: Entry, why: tuple[str, str]) -> None:
        """What ends otherwise than applied is a dead letter, or told to the turn that waits for its reply."""
        if verdict is Verdict.APPLIED:
            draft.boxes.settle(n, verdict)
            return
        awaited = bool(entry.reply) and draft.journal.journal().awaits("", entry.reply)
        letter = None if awaited else self._letter(entry, str(verdict), why)
        draft.boxes.settle(n, verdict, self._telling.name(), letter)
        if awaited:
            draft.journal.wake(_encode({"fault": [*why, ""]}))

    def _letter(self, entry: Entry, verdict: str, why: tuple[str, str]) -> Letter | None:
        """What is left of it; None: it was a probe, which another one follows."""
        if entry.type == PROBE:
            return None
        code, message = why
        return Letter(
            at=wall_s(),
            side=Side.SENDER,
            verdict=verdict,
            what=entry.type or "an action",
            source=self._row.id,
            to=entry.to,
            code=code,
            message=message,
            body=entry.body,
            born=entry.born,
        )

    # --- after a commit ---------------------------------------------------------------------------------------------

    def release(self, committed: Boxes, touched: Iterable[int]) -> None:
        """Hand the courier what is new in the outbox [commit_first], and what is settled. `touched`: what differs from
        the outbox before; it may hold thousands more.
        """
        self._boxes = committed
        settled, self._in_write = self._in_write, {}
        fresh: list[Release] = []
        gone = [*settled]
        for n in sorted(touched):
            entry = committed.out.get(n)
            if entry is None:
                self._unheard.discard(n)
                if n in self._released and n not in settled:
                    gone.append(n)
            elif not entry.receiver:
                self._unheard.add(n)
            elif self._released.get(n) is not entry.void:
                fresh.append(Release(n, entry.receiver, entry.born, entry.body, entry.void, entry.priority))
        self._hand_on(fresh, gone)
        if committed.out:
            self._look_later(SETTLE_S if self._unheard else LOOK_S)

    def _hand_on(self, fresh: list[Release], gone: list[int]) -> None:
        for n in gone:
            self._released.pop(n, None)
        if gone:
            self._open().forget(gone)
        if fresh:
            self._released |= {one.n: one.void for one in fresh}
            self._open().release(fresh)

    def _open(self) -> Outbound:
        if self._way is None:
            epoch = 0 if self._policy.durable else self._telling.epoch
            self._way = self._site.courier.open(
                self._row.uid, self._row.id, self._namespace, self._on_settled, epoch=epoch
            )
        return self._way

    def _on_settled(self, n: int, answer: Settled) -> None:
        self._settled[n] = answer.verdict
        self._look_later(SETTLE_S)

    def _look_later(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + seconds:
                return
            self._timer.cancel()
        self._timer = loop.call_later(seconds, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._closed:
            return
        self._ripe = True
        self.on_due()
        if self._boxes.out:
            self._look_later(LOOK_S)


def _why(verdict: Verdict, entry: Entry) -> tuple[str, str]:
    if verdict is Verdict.UNKNOWN:
        return "Unknown", "its receiver was deleted, or has forgotten whether it was applied"
    if not entry.void:
        return "NotFound", f"{entry.to} has ended"  # else it would have been taken, or was taken before
    return "Expired", "it was given up before it was applied"
