"""Model E, coordination sessions in the registry (protocol 5): a barrier, a vote and a lock, for members that may die.

The registry is one state machine; a request may be delayed, repeated and answered late or never, so every request
stays deliverable for ever. A member follows the registry (it polls the session's present state). A lock guards a
resource that takes writes with the holder's token.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from models.explore import Model, Step, put

Request = tuple[int, int, str, int, int]


class Session(NamedTuple):
    """Of any kind: who takes part, what each did, and the outcome (decided once, at one log index)."""

    gen: int = 0
    here: tuple[Any, ...] = ()  # barrier: arrived; vote: (member, choice); lock: waiters in order
    outcome: str = ""  # barrier, vote
    holder: int | None = None  # lock
    token: int = 0
    done: tuple[int, ...] = ()  # last operation number of each member (for duplicates)
    gone: frozenset[int] = frozenset()  # members whose lease was expired by an entry
    ticks: int = 0


class Member(NamedTuple):
    """One member."""

    up: bool = True
    idle: bool = False  # alive, but will not take part
    op: int = 0  # the number of its last operation
    want: str = ""  # "", arrive, vote, acquire, leave
    got: tuple[tuple[int, str], ...] = ()  # what it learned
    token: int = 0  # lock: held, as it believes


class World(NamedTuple):
    """A state of the whole."""

    session: Session
    members: tuple[Member, ...]
    requests: frozenset[Request] = frozenset()  # (member, op, what, argument, generation)
    highest: int = 0  # the resource: the highest token seen
    outcomes: tuple[str, ...] = ()  # for the checker: decided outcome of each generation
    bad: str | None = None


class Sessions(Model[World]):
    """See the module."""

    kind, members, deadline, rounds, deaths = "lock", 2, 2, 2, 1
    live = True
    FAST = ({"kind": "barrier"}, {"kind": "vote", "members": 2, "rounds": 1}, {"kind": "lock", "rounds": 1})
    SMALL = (
        {"kind": "lock"},
        {"kind": "lock", "members": 3, "rounds": 1},
        {"kind": "barrier", "members": 3, "rounds": 1},
        {"kind": "vote", "members": 3, "rounds": 1},
    )
    BIG = {"kind": "lock", "members": 4, "rounds": 4, "deaths": 2}
    GUARDS = {
        "op_ids": {"rounds": 1},
        "token_resource": {},
        "expire_frees": {"rounds": 1},
        "expire_waiters": {"rounds": 1},
        "refuse_gone": {"rounds": 1},
        "deadline": {"kind": "vote", "rounds": 1},
        "generation": {"kind": "barrier"},
        "once": {"kind": "vote", "members": 3, "rounds": 1},
        "outcome_kept": {"kind": "barrier"},
        "fixed_electorate": {"kind": "vote", "rounds": 1},
        "death_decides": {"kind": "barrier"},
        "unique_arrivals": {"kind": "barrier"},
    }
    SPARE = frozenset({"death_decides", "fixed_electorate", "unique_arrivals"})

    def init(self) -> World:
        """Return an open session and idle members."""
        return World(Session(done=(0,) * self.members), (Member(),) * self.members)

    def check(self, s: World) -> str | None:
        """Equal outcomes; no lock with a dead or unaware holder."""
        if s.bad:
            return s.bad
        if (holder := s.session.holder) is not None:
            if holder in s.session.gone:
                return "the lock is held by an expired member"
            m = s.members[holder]
            if m.up and not m.want and m.token != s.session.token:
                return "the lock is held by a member that does not know it"
        if self.kind != "lock":
            for gen in range(self.rounds):
                seen = {v for m in s.members for g, v in m.got if g == gen}
                if len(seen) > 1:
                    return f"members saw different outcomes of generation {gen}: {seen}"
        return None

    def goal(self, s: World) -> bool:
        """Everybody who lives has an answer to what he asked."""
        return all(not m.up or i in s.session.gone or not m.want for i, m in enumerate(s.members))

    def steps(self, s: World) -> Iterator[Step[World]]:
        """Ticks, deaths, members, entries."""
        se = s.session
        if self.kind != "lock" and se.ticks < self.deadline and not se.outcome:
            ticked = se._replace(ticks=se.ticks + 1)
            if ticked.ticks == self.deadline and self.on("deadline"):
                yield "tick: the deadline has come", self.decide(s, ticked, "timeout" if self.kind == "barrier" else "")
            else:
                yield "tick", s._replace(session=ticked)
        for i, m in enumerate(s.members):
            if m.up and sum(not x.up for x in s.members) < self.deaths:
                yield f"!member {i} dies or is paused", s._replace(members=put(s.members, i, m._replace(up=False)))
                if not m.op and not m.idle:
                    yield (
                        f"!member {i} will not take part",
                        s._replace(members=put(s.members, i, m._replace(idle=True))),
                    )
            if not m.up and i not in se.gone:
                yield f"member {i} expired", self.expire(s, i)
            if m.up or m.token:
                yield from self.member(s, i, m)
        for request in s.requests:
            n = self.apply(s, *request)
            if n != s:
                yield f"entry {request}", n

    def member(self, s: World, i: int, m: Member) -> Iterator[Step[World]]:
        """What one member does."""
        se = s.session

        def me(new: Member, **rest: Any) -> World:
            return s._replace(members=put(s.members, i, new), **rest)

        if m.token and m.want != "leave":  # even paused: the write may leave late
            late = m.token < s.highest
            bad = "a write of an old holder was taken" if late and not self.on("token_resource") else None
            if not late or bad:
                yield f"member {i} writes with token {m.token}", me(m, highest=max(s.highest, m.token), bad=bad)
        if not m.up or m.idle:
            return
        if not m.want and m.op < self.rounds * (2 if self.kind == "lock" else 1):
            if self.kind == "lock":
                what, args = ("leave", [0]) if m.token else ("acquire", [0])
            else:
                what, args = ("arrive", [0]) if self.kind == "barrier" else ("vote", [0, 1])
            for arg in args:
                request = (i, m.op + 1, what, arg, m.op)
                yield (
                    f"member {i} asks {request[1:4]}",
                    me(m._replace(op=m.op + 1, want=what), requests=s.requests | {request}),
                )
            if self.kind == "vote" and not self.on("once"):
                both = {(i, m.op + 1 + a, what, a, m.op) for a in args}
                yield f"member {i} votes twice", me(m._replace(op=m.op + 1, want=what), requests=s.requests | both)
        if m.want == "acquire" and se.holder == i:
            yield f"member {i} holds the lock, token {se.token}", me(m._replace(want="", token=se.token))
        if m.want == "acquire" and m.op < self.rounds * 2:
            request = (i, m.op + 1, "leave", 0, m.op)
            yield (
                f"member {i} gives up waiting",
                me(m._replace(op=m.op + 1, want="leave"), requests=s.requests | {request}),
            )
        if m.want == "leave" and se.done[i] >= m.op:
            yield f"member {i} knows that it left", me(m._replace(want="", token=0))
        if self.kind != "lock" and m.want:
            gen = m.op - 1
            if gen < len(s.outcomes) and (self.on("outcome_kept") or gen == len(s.outcomes) - 1):
                yield (
                    f"member {i} reads {s.outcomes[gen]}",
                    me(m._replace(want="", got=(*m.got, (gen, s.outcomes[gen])))),
                )

    def apply(self, s: World, i: int, op: int, what: str, arg: int, gen: int) -> World:
        """One committed entry."""
        se = s.session
        if (i in se.gone and self.on("refuse_gone")) or (op <= se.done[i] and self.on("op_ids")):
            return s
        se = se._replace(done=put(se.done, i, max(op, se.done[i])))
        if what == "acquire":
            if i in se.here or se.holder == i:
                return s
            return s._replace(session=self.grant(se._replace(here=(*se.here, i))))
        if what == "leave":  # a release, or the end of waiting
            se = se._replace(here=tuple(w for w in se.here if w != i))
            return s._replace(session=self.grant(se._replace(holder=None) if se.holder == i else se))
        if se.outcome or (gen != se.gen and self.on("generation")):
            return s._replace(session=se) if gen < se.gen else s
        entry = i if what == "arrive" else (i, arg)
        if what == "arrive" and i in se.here and self.on("unique_arrivals"):
            return s
        if what == "vote" and i in [v[0] for v in se.here] and self.on("once"):
            return s
        se = se._replace(here=(*se.here, entry))
        if len(se.here) >= self.members:
            return self.decide(s, se, "released" if what == "arrive" else "")
        return s._replace(session=se)

    def grant(self, se: Session) -> Session:
        """The first waiter gets a free lock, with the next token."""
        if se.holder is None and se.here:
            return se._replace(holder=se.here[0], here=se.here[1:], token=se.token + 1)
        return se

    def decide(self, s: World, se: Session, outcome: str) -> World:
        """The outcome of a generation, fixed by one entry; then the next generation opens."""
        bad = None
        if self.kind == "vote":
            votes = [v[1] for v in se.here]
            electorate = self.members if self.on("fixed_electorate") else self.members - len(se.gone)
            outcome = next((f"choice {c}" for c in (0, 1) if 2 * votes.count(c) > electorate), "no majority")
            if len({v[0] for v in se.here}) < len(se.here):
                bad = "a member's vote counted twice"
        elif outcome == "released" and (len(set(se.here)) < self.members):
            bad = "the barrier opened before all had arrived"
        nxt = se._replace(gen=se.gen + 1, here=(), ticks=0)
        if nxt.gen >= self.rounds:
            nxt = nxt._replace(outcome=outcome)
        if outcome == "released" and any(m.op <= se.gen for m in s.members):
            bad = "a late entry of an older generation was counted"
        return s._replace(session=nxt, outcomes=(*s.outcomes, outcome), bad=bad)

    def expire(self, s: World, i: int) -> World:
        """The committed end of a member."""
        se = s.session._replace(gone=s.session.gone | {i})
        if self.kind == "lock":
            if self.on("expire_waiters"):
                se = se._replace(here=tuple(w for w in se.here if w != i))
            if se.holder == i and self.on("expire_frees"):
                se = self.grant(se._replace(holder=None))
        elif self.kind == "barrier" and not se.outcome and self.on("death_decides"):
            return self.decide(s, se, f"broken by {i}")
        return s._replace(session=se)
