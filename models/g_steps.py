"""Model G, steps and suspension (protocol 9): one turn of three steps, whose agent may be taken over at any point.

The turn asks a model ("A", any result), waits for an approval ("W"), and pays ("B", with A's result) at a service that
takes an idempotency key. The sender's signals are 1 (that turn), 2 (anything else) and 3 (the approval), in order, so
that the approval stands behind 2 in its stream. Signals are resent until they are settled. The store is a sealed cell,
as in model C. `rollout`: new code asks for its steps in another order. `interleave`: the turn is declared so, and other
signals are served while it is suspended. `pauses`: how often the turn fails for the last time and pauses its agent,
until somebody resumes it or skips the turn. `lates`: how often the first run ends by its caller's deadline while the
acceptance is being written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from models.explore import Model, Step, put

Entry = tuple[str, int]
PROGRAMS = (("A", "W", "B"), ("W", "A", "B"))
APPROVAL = 3


class Record(NamedTuple):
    """The agent's record."""

    last: int = 0  # the sender's mark
    voided: bool = False  # signal 1 was settled as a void
    turn: bool = False  # signal 1 is accepted: its turn is owed
    journal: tuple[Entry, ...] = ()
    inbox: tuple[int, ...] = ()  # accepted during the turn, to be run after it
    hist: tuple[int, ...] = ()  # user state: ended turns
    draft: tuple[int, ...] = ()  # user state as the turn saw it before its suspension, with [fresh_state] left out
    failed: bool = False  # the turn ended as a dead letter at the receiver, with both lists of steps
    held: bool = False  # the agent is paused at the turn


class Act(NamedTuple):
    """One activation."""

    mem: Record
    draft: Record | None = None
    landed: bool = False
    run: tuple[Entry, ...] | None = None  # results that it has in memory only
    effect: Entry | None = None  # an outside effect whose result is not journalled yet
    late: bool = False  # the run that was to be accepted has ended: its caller's time was over
    stuck: bool = False  # nobody runs what is owed, with [accept_runs] left out


class World(NamedTuple):
    """A state of the whole."""

    cell: Record = Record()
    acts: tuple[Act, ...] = (Act(Record()),)
    box: tuple[int, ...] = (1, 2, 3)  # what the sender has not settled
    void: bool = False  # the sender gave signal 1 up
    dead: bool = False  # its dead letter says "not applied"
    paid: frozenset[tuple[int, int]] = frozenset()  # what the service did: (key, amount)
    asked: bool = False  # the model was asked
    code: int = 0
    pauses: int = 0
    lates: int = 0
    bad: str | None = None


class Steps(Model[World]):
    """See the module."""

    epochs, voids, rollout, interleave, signals, pauses, lates = 2, False, False, False, 3, 0, 0
    live = True
    FAST = ({}, {"voids": True, "signals": 1}, {"rollout": True}, {"interleave": True}, {"pauses": 1}, {"lates": 1})
    SMALL = ({"epochs": 3}, {"epochs": 3, "voids": True, "rollout": True})
    BIG = {"epochs": 5, "voids": True, "rollout": True}
    GUARDS = {
        "accept_first": {"voids": True, "signals": 1},
        "accept_runs": {"lates": 1, "signals": 1},
        "journal_first": {"signals": 1},
        "stable_key": {},
        "same_steps": {"rollout": True},
        "wake_in_commit": {},
        "inbox": {},
        "inbox_seen": {},
        "inbox_in_commit": {},
        "inbox_order": {"pauses": 1},
        "end_in_commit": {},
        "fresh_state": {"interleave": True},
        "fence": {},
        "pause_journal": {"pauses": 1, "signals": 1},
    }

    def init(self) -> World:
        """Return an empty record, and the signals in the sender's box."""
        return World(box=(1, 2, 3) if self.signals == APPROVAL else (1,))

    def check(self, s: World) -> str | None:
        """Paid once, with one amount; nothing run twice; dead letters tell the truth."""
        if len({key for key, _ in s.paid}) > 1:
            return "the payment was made twice"
        if len(s.paid) > 1:
            return "the payment was asked for twice, with two amounts"
        if s.dead and (s.asked or s.paid or 1 in s.cell.hist):
            return "a dead letter said to be not applied had an effect"
        if len(set(s.cell.hist)) < len(s.cell.hist):
            return "a turn ended twice"
        if APPROVAL in s.cell.hist and 2 in s.cell.hist and s.cell.hist.index(APPROVAL) < s.cell.hist.index(2):
            return "a later signal overtook the inbox"
        if s.cell.last > 1 and 2 not in {*s.cell.hist, *s.cell.inbox}:
            return "what a settled signal did is gone"
        return s.bad

    def goal(self, s: World) -> bool:
        """Everything is settled and ended, and the holder knows it."""
        over = not s.cell.turn and not s.cell.inbox and not s.box
        return over and s.acts[-1] == Act(s.cell)

    def steps(self, s: World) -> Iterator[Step[World]]:
        """Take-overs, new code, the sender, the activations."""
        if len(s.acts) < self.epochs:
            yield "!taken over", s._replace(acts=(*s.acts, Act(s.cell)))
            if self.rollout and not s.code:
                yield "!taken over, with new code", s._replace(acts=(*s.acts, Act(s.cell)), code=1)
        if self.voids and not s.void and 1 in s.box:
            yield "the sender gives 1 up", s._replace(void=True)
        for e, act in enumerate(s.acts):
            yield from self.activation(s, e, act)

    def activation(self, s: World, e: int, act: Act) -> Iterator[Step[World]]:
        """One activation: its write, acknowledgements, signals, steps."""

        def turn(new: Act, **rest: Any) -> World:
            return s._replace(acts=put(s.acts, e, new), **rest)

        newest = e == len(s.acts) - 1
        me = act.mem
        if act.draft and not act.landed and (newest or not self.on("fence")):
            yield f"host.{e} commit lands", turn(act._replace(landed=True), cell=act.draft)
        if act.draft and act.draft.turn and not (me.turn or act.late) and s.lates < self.lates:
            yield f"!host.{e} the caller's time is over", turn(act._replace(late=True), lates=s.lates + 1)
        if act.landed and act.draft:
            stuck = act.late and not self.on("accept_runs")
            yield f"host.{e} learns of its commit", turn(Act(act.draft, run=act.run, stuck=stuck))
        for n in s.box:
            if n <= me.last:
                told = "not applied" if n == 1 and me.voided else "applied"
                rest = tuple(m for m in s.box if m != n)
                yield f"host.{e} acks {n}: {told}", s._replace(box=rest, dead=s.dead or told != "applied")
        if act.draft:
            return

        def write(label: str, new: Record, **rest: Any) -> Step[World]:
            return f"host.{e} {label}", turn(act._replace(draft=new, effect=None, **rest))

        if me.held:
            yield write("is resumed", me._replace(held=False))
            yield write("skips 1", me._replace(held=False, turn=False, journal=(), failed=True))
            return
        yield from self.take(s, act, turn, write)
        if act.stuck:
            return
        if me.turn or act.run is not None:
            yield from self.run(s, e, act, turn, write)
        elif me.inbox:
            yield write(f"runs {me.inbox[0]}", me._replace(hist=(*me.hist, me.inbox[0]), inbox=me.inbox[1:]))

    def take(
        self, s: World, act: Act, turn: Callable[..., World], write: Callable[..., Step[World]]
    ) -> Iterator[Step[World]]:
        """The next signal of the stream."""
        me = act.mem
        n = me.last + 1
        if n > self.signals:
            return
        new = me._replace(last=n)
        if n == 1:
            if s.void:
                yield write("voids 1", new._replace(voided=True))
            if self.on("accept_first"):
                yield write("accepts 1", new._replace(turn=True))
            elif act.run is None:
                yield "starts 1 without a commit", turn(act._replace(run=()))
        elif not me.turn and not (me.inbox and self.on("inbox_order")):
            yield write(f"runs {n}", new._replace(hist=(*me.hist, n), inbox=me.inbox))
        elif n == APPROVAL and self.waits(s, me):
            if self.on("wake_in_commit"):
                yield write("is approved", new._replace(journal=(*me.journal, ("W", 1))))
            else:
                yield write("is approved, in memory", new, run=(*me.journal, ("W", 1)))
        elif self.interleave and self.waits(s, me):
            yield write(f"runs {n} while the turn is suspended", new._replace(hist=(*me.hist, n)))
        elif not self.on("inbox_in_commit"):
            yield write(f"takes {n} for later, in memory", new)
        elif self.on("inbox"):
            yield write(f"accepts {n} for later", new._replace(inbox=(*me.inbox, n)))

    def waits(self, s: World, me: Record) -> bool:
        """Whether the turn is suspended."""
        at = len(me.journal)
        return at < len(PROGRAMS[s.code]) and PROGRAMS[s.code][at] == "W" and self.fits(s, me.journal)

    def fits(self, s: World, journal: tuple[Entry, ...]) -> bool:
        """Whether the code asks for the steps that the journal holds."""
        return all(name == entry[0] for name, entry in zip(PROGRAMS[s.code], journal, strict=False))

    def run(
        self, s: World, e: int, act: Act, turn: Callable[..., World], write: Callable[..., Step[World]]
    ) -> Iterator[Step[World]]:
        """The next step of the turn; those in the journal return what they returned."""
        me = act.mem
        done = me.journal if act.run is None else act.run
        began = me._replace(turn=True, last=max(me.last, 1))
        if not self.fits(s, done):
            if self.on("same_steps"):
                error = began._replace(turn=False, journal=(), failed=True)
                yield write("finds other steps than its journal holds", error)
            else:
                yield "a step takes another's result", s._replace(bad="a step got the result of another step")
            return
        if s.pauses < self.pauses and me.turn and act.run is None:
            kept = me.journal if self.on("pause_journal") else ()
            label, paused = write("fails for the last time, and pauses", me._replace(held=True, journal=kept))
            yield label, paused._replace(pauses=s.pauses + 1)
        if len(done) == len(PROGRAMS[s.code]):
            state = me.hist if self.on("fresh_state") else me.draft
            end = began._replace(turn=False, journal=(), hist=(*state, 1), draft=())
            if self.on("end_in_commit") or (not me.journal and act.run is not None):
                yield write("ends 1", end, run=None)
            else:
                yield write("drops the journal before the end", began._replace(journal=()), run=done)
            return
        name = PROGRAMS[s.code][len(done)]

        def journal(label: str, entry: Entry, **rest: Any) -> Iterator[Step[World]]:
            if self.on("journal_first"):
                label, new = write(label, began._replace(journal=(*done, entry)), run=None)
                yield label, new._replace(**rest)
            else:
                yield f"host.{e} {label}, in memory", turn(act._replace(run=(*done, entry), effect=None), **rest)

        if name == "A":
            began = began if self.on("fresh_state") else began._replace(draft=me.hist)
            for result in (0, 1):
                yield from journal(f"asks the model: {result}", ("A", result), asked=True)
        elif name == "W" and APPROVAL in me.inbox and self.on("inbox_seen"):
            inbox = tuple(n for n in me.inbox if n != APPROVAL)
            yield write(
                "finds the approval in the inbox", began._replace(journal=(*done, ("W", 1)), inbox=inbox), run=None
            )
        elif name == "W" and self.signals < APPROVAL:
            yield from journal("waits no more: its time is over", ("W", 0))
        elif name == "B" and act.effect is None:
            amount = dict(done)["A"]
            key = 0 if self.on("stable_key") else e
            yield f"host.{e} pays {amount}", turn(act._replace(effect=("B", amount)), paid=s.paid | {(key, amount)})
        elif name == "B" and act.effect is not None:
            yield from journal("notes the payment", act.effect)
