"""Model O, requests and replies (protocol 9, rule 11): a turn of one agent asks another one, and waits for its reply.

The turn asks `asks` times, one after the other; each wait has a key of its own, and may end by its time. Requests and
replies are signals: in the outbox of their sender until they are settled, taken in their order, marked where they are
taken. A commit is one step here; that an old holder's is refused is model C's business. What a holder has in memory
only is lost when the agent is taken over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from models.explore import Model, Step

LATE, FAULT = 0, -1
Entry = tuple[int, int, bool]
"""Number in its stream, key, and of a request: whether it was given up; of a reply: whether it is a fault."""


class Asker(NamedTuple):
    """The record of the agent that asks, and what its holder has in memory."""

    waits: int = 0  # the key that its turn waits for
    got: tuple[int, ...] = ()  # ends of its waits: the key of the reply, FAULT or LATE
    out: tuple[Entry, ...] = ()
    sent: int = 0
    last: int = 0  # mark of the replies
    asked: bool = (
        False  # in memory: the request is sent, and its wait is not committed, with [wait_with_request] left out
    )
    heard: int | None = None  # in memory: the end of the wait, with [wake_in_commit] left out


class Answerer(NamedTuple):
    """The record of the agent that is asked, and what its holder has in memory."""

    last: int = 0  # mark of the requests
    did: tuple[int, ...] = ()  # its effects, by key
    out: tuple[Entry, ...] = ()
    sent: int = 0
    owes: tuple[Entry, ...] = ()  # in memory: replies that are in no outbox, with [reply_in_commit] left out


class World(NamedTuple):
    """A state of the whole."""

    a: Asker = Asker()
    b: Answerer = Answerer()
    taken_over: int = 0
    lates: int = 0


class Replies(Model[World]):
    """See the module."""

    asks, epochs, timeouts = 2, 2, 1
    live = True
    FAST = ({}, {"timeouts": 0})
    SMALL = ({"epochs": 4}, {"asks": 3, "timeouts": 2})
    BIG = {"asks": 5, "epochs": 9, "timeouts": 4}
    GUARDS = {
        "wait_with_request": {"asks": 1, "timeouts": 0},
        "reply_in_commit": {"asks": 1, "timeouts": 0},
        "reply_to_all": {"asks": 1, "timeouts": 0},
        "reply_key": {},
        "reply_settled": {},
        "keep_request": {"asks": 1, "timeouts": 0},
        "wake_in_commit": {"asks": 1, "timeouts": 0},
    }

    def init(self) -> World:
        """Nothing is asked."""
        return World()

    def check(self, s: World) -> str | None:
        """Each wait ends with its own reply or by its time; nothing is done twice; who replied has done it."""
        for number, end in enumerate(s.a.got, start=1):
            if end not in (number, FAULT, LATE):
                return "a wait ended with the reply to another request"
            if end == number and number not in s.b.did:
                return "a reply came of what was not done"
        return "a request was done twice" if len(set(s.b.did)) < len(s.b.did) else None

    def goal(self, s: World) -> bool:
        """Every wait has ended, and nothing is under way."""
        return len(s.a.got) == self.asks and not (s.a.out or s.b.out or s.b.owes)

    def steps(self, s: World) -> Iterator[Step[World]]:
        """The two agents, and the loss of their holders."""
        yield from self.asker(s)
        yield from self.answerer(s)
        if s.taken_over < self.epochs:
            count = s.taken_over + 1
            yield "!the asker is taken over", s._replace(a=s.a._replace(asked=False, heard=None), taken_over=count)
            yield "!the answerer is taken over", s._replace(b=s.b._replace(owes=()), taken_over=count)

    def asker(self, s: World) -> Iterator[Step[World]]:
        """Asks, hears, gives up."""
        a = s.a
        key = len(a.got) + 1
        if a.heard is not None:
            yield "the asker commits what it heard", s._replace(a=self.ended(a, a.heard)._replace(heard=None))
        elif not a.waits and key <= self.asks:
            request = a._replace(out=(*a.out, (a.sent + 1, key, False)), sent=a.sent + 1)
            if self.on("wait_with_request"):
                yield f"the asker asks {key}, and waits", s._replace(a=request._replace(waits=key))
            elif not a.asked:
                yield f"the asker asks {key}", s._replace(a=request._replace(asked=True))
            else:
                yield f"the asker waits for {key}", s._replace(a=a._replace(asked=False, waits=key))
        for n, _, _ in a.out:
            if n <= s.b.last:
                yield f"request {n} is settled", s._replace(a=a._replace(out=tuple(e for e in a.out if e[0] != n)))
        for n, asked, given_up in a.out:
            if not given_up and n > s.b.last and (asked != a.waits or not self.on("keep_request")):
                out = tuple((e[0], e[1], e[2] or e[0] == n) for e in a.out)
                yield f"!request {n} is given up", s._replace(a=a._replace(out=out))
        if a.waits and s.lates < self.timeouts:
            yield "!the wait ends by its time", s._replace(a=self.ended(a, LATE), lates=s.lates + 1)
        for n, answered, fault in (*s.b.out, *s.b.owes):
            if n == a.last + 1:
                yield self.hears(s, n, answered, FAULT if fault else answered)

    def hears(self, s: World, n: int, answered: int, what: int) -> Step[World]:
        """A reply is taken: it ends the wait for it, or nothing."""
        a = s.a._replace(last=n)
        if not a.waits or (answered != a.waits and self.on("reply_key")):
            return f"reply {n} comes too late", s._replace(a=a)
        if self.on("wake_in_commit"):
            return f"reply {n} ends the wait", s._replace(a=self.ended(a, what))
        return f"reply {n} is taken, and kept in memory", s._replace(a=a._replace(heard=what))

    def ended(self, a: Asker, what: int) -> Asker:
        """The wait is over."""
        return a._replace(waits=0, got=(*a.got, what))

    def answerer(self, s: World) -> Iterator[Step[World]]:
        """Does what it is asked for, once, and says how it ended."""
        b = s.b
        for n, key, given_up in s.a.out:
            if n != b.last + 1:
                continue
            marked = b._replace(last=n)
            if given_up:
                yield f"request {n} is void", s._replace(b=marked)
                continue
            done = marked._replace(did=(*b.did, key))
            yield f"request {n} is done", s._replace(b=self.reply(done, key, fault=False))
            failed = self.reply(marked, key, fault=True) if self.on("reply_to_all") else marked
            yield f"request {n} fails for the last time", s._replace(b=failed)
        if not self.on("reply_settled") and b.out:
            yield "!a reply is forgotten before it is settled", s._replace(b=b._replace(out=b.out[1:]))
        for n, _, _ in (*b.out, *b.owes):
            if n <= s.a.last:
                left, owes = (tuple(e for e in entries if e[0] != n) for entries in (b.out, b.owes))
                yield f"reply {n} is settled", s._replace(b=b._replace(out=left, owes=owes))

    def reply(self, b: Answerer, key: int, *, fault: bool) -> Answerer:
        """In the commit of the turn, or from memory after it."""
        entry = (b.sent + 1, key, fault)
        if self.on("reply_in_commit"):
            return b._replace(out=(*b.out, entry), sent=b.sent + 1)
        return b._replace(owes=(*b.owes, entry), sent=b.sent + 1)
