"""Model C, turns and signals (protocol 3): one sender, one or more receivers, each an activation per epoch over a
sealed cell.

The store is model B reduced to what it guarantees: a draft of the newest epoch may land (once), a draft of an older
epoch never does; its owner learns of it later or never. Messages stay deliverable for ever, in any order, until a fault
loses them all. A token names one attempted turn, so that two turns can never be confused by the checker.

`finals`: turns that fail for the last time; each is undone to the draft before it, and the run goes on behind its dead
letter. `late`: signals for a receiver that the sender's host has not heard of yet; found, they get new numbers.

Additions: `batch` (9, several turns on successive drafts, one write), `pause` (13), `reverts` (14), `ahead` (12, a host
that reads cluster time ahead of the true one, as extrapolation would).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from models.explore import Model, Step, put


class Sender(NamedTuple):
    """The sender's record."""

    n: int = 0  # the last number given to a signal
    box: tuple[
        tuple[int, int, str, int, int], ...
    ] = ()  # outbox: (receiver, n, "live" | "void" | "unheard", token, born)
    dead: frozenset[tuple[int, int, int, str]] = frozenset()  # (receiver, n, token, pending | not applied | unknown)
    made: tuple[tuple[int, int], ...] = ()  # for the checker: (receiver, token) of every committed signal


class Receiver(NamedTuple):
    """A receiver's record."""

    last: int | None = 0  # the mark of the sender: the last number settled here (None: forgotten)
    used: int = 0  # cluster time of its last use
    clock: int = 0  # the latest cluster time that this state has seen
    voided: frozenset[int] = frozenset()  # numbers at or below `last` that were not applied
    hist: tuple[int, ...] = ()  # user state: the tokens applied
    undone: frozenset[int] = frozenset()  # for the checker: applied, then reverted
    held: int | None = None  # the failed signal of a paused agent
    dead: frozenset[int] = frozenset()  # dead letters at the receiver: turns that failed for the last time


class Act(NamedTuple):
    """One activation."""

    mem: Any  # the state known to be committed
    draft: Any = None
    size: int = 0  # turns in the draft
    sent: bool = False  # the write has left
    landed: bool = False


class Agent(NamedTuple):
    """A cell, and its activations."""

    cell: Any
    acts: tuple[Act, ...]


class World(NamedTuple):
    """A state of the whole."""

    agents: tuple[Agent, ...]  # the sender, then the receivers
    net: frozenset[tuple[int, int, int, str, int, int]] = frozenset()  # (receiver, n, prev, kind, token, born)
    acks: frozenset[tuple[int, int, str]] = frozenset()  # (receiver, n, verdict)
    tries: int = 0
    voids: int = 0
    losses: int = 0
    fails: int = 0
    reverts: int = 0
    now: int = 0
    finals: int = 0
    lates: int = 0


Turn = Callable[..., World]


class Turns(Model[World]):
    """See the module."""

    receivers, turns, epochs, voids, losses, limit, horizon, keep, lag = 1, 2, (2, 2), 0, 1, 2, 0, 2, 0
    batch, fails, pause, reverts, ahead, finals, late = 1, 0, False, 0, 0, 0, 0
    live = True
    FAST = (
        {"epochs": (1, 2)},
        {"batch": 2, "fails": 1, "epochs": (1, 2), "losses": 0},
        {"pause": True, "fails": 1, "epochs": (1, 2), "losses": 0},
        {"batch": 2, "finals": 1, "epochs": (1, 2), "losses": 0},
        {"late": 1, "epochs": (2, 1), "losses": 0},
    )
    SMALL = (
        {},
        {"voids": 1, "epochs": (1, 2)},
        {"receivers": 2, "epochs": (2, 1)},
        {"horizon": 3, "lag": 1, "epochs": (1, 1), "losses": 0},
        {"turns": 1, "horizon": 3, "lag": 1, "voids": 1},
        {"batch": 2, "fails": 1},
        {"pause": True, "fails": 1, "voids": 1, "epochs": (1, 2)},
        {"reverts": 1},
        {"batch": 2, "finals": 1},
        {"late": 2},
    )
    BIG = {
        "receivers": 2,
        "turns": 8,
        "epochs": (4, 4),
        "voids": 3,
        "losses": 4,
        "limit": 3,
        "horizon": 9,
        "keep": 3,
        "lag": 1,
        "batch": 3,
        "fails": 3,
        "reverts": 2,
        "finals": 2,
        "late": 3,
    }
    _TIME = {"turns": 1, "horizon": 3, "lag": 1, "epochs": (1, 1)}
    GUARDS = {
        "commit_first": {"losses": 0},
        "fence": {},
        "box_in_commit": {},
        "keep_box": {},
        "numbers_in_state": {"epochs": (2, 1)},
        "mark_in_commit": {},
        "ack_committed": {},
        "prev": {"epochs": (1, 1)},
        "limit": {"turns": 3, "epochs": (1, 1)},
        "void": {"voids": 1, "epochs": (1, 1)},
        "void_memory": {"voids": 1, "epochs": (1, 1)},
        "age": {"turns": 1, "horizon": 3, "epochs": (1, 1)},
        "used_born": _TIME,
        "state_clock": _TIME | {"epochs": (1, 2)},
        "batch_release": {"batch": 2, "epochs": (1, 2)},
        "batch_whole": {"batch": 2, "epochs": (1, 1)},
        "batch_restart": {"batch": 2, "fails": 1, "epochs": (1, 1)},
        "batch_undo": {"batch": 2, "finals": 1, "epochs": (1, 1)},
        "late_behind": {"late": 1, "epochs": (1, 1)},
        "late_number": {"late": 2, "epochs": (2, 1)},
        "pause_mark": {"pause": True, "fails": 1, "epochs": (1, 1)},
        "pause_refuse": {"pause": True, "fails": 1, "epochs": (1, 1)},
        "revert_marks": {"reverts": 1, "epochs": (1, 1)},
        "revert_n": {"reverts": 1, "epochs": (1, 1)},
        "revert_box": {"reverts": 1, "epochs": (1, 1)},
        "time_read": _TIME | {"ahead": 1, "epochs": (1, 2)},
    }
    SPARE = frozenset({"time_read", "late_number"})

    def init(self) -> World:
        """Empty records, one activation each."""
        cells = (Sender(), *((Receiver(last=None if self.horizon else 0),) * self.receivers))
        return World(tuple(Agent(c, (Act(c),)) for c in cells))

    def check(self, s: World) -> str | None:
        """No signal twice, out of order, lost, or of a turn that never was; dead letters tell the truth."""
        sender: Sender = s.agents[0].cell
        if len(sender.box) > self.limit:
            return "the outbox grows without bound"
        for r, agent in enumerate(s.agents[1:], 1):
            made, hist, undone = [t for to, t in sender.made if to == r], agent.cell.hist, agent.cell.undone
            if len(set(hist)) < len(hist) or set(hist) & undone:
                return "a signal was applied twice"
            if not set(hist) <= set(made):
                return "a signal of a turn that was never committed was applied"
            if list(hist) != [t for t in made if t in hist]:
                return "signals of one sender were applied out of order"
            kept = {e[3] for e in sender.box if e[0] == r} | {agent.cell.held} | agent.cell.dead
            if agent.cell.dead & {*hist, *undone}:
                return "a dead letter said to be not applied was applied"
            dead = {t: v for to, _, t, v in sender.dead if to == r}
            if lost := set(made) - set(hist) - undone - kept - set(dead):
                return f"signal {lost} was lost"
            if any(v == "not applied" and t in {*hist, *undone} for t, v in dead.items()):
                return "a dead letter said to be not applied was applied"
        return None

    def goal(self, s: World) -> bool:
        """The outbox is empty, nothing is held, everybody knows his state."""
        held = any(agent.cell.held is not None for agent in s.agents[1:])
        return not s.agents[0].cell.box and not held and all(a.acts[-1] == Act(a.cell) for a in s.agents)

    def steps(self, s: World) -> Iterator[Step[World]]:
        """Time, losses, take-overs, and what each activation does."""
        if s.now < self.horizon:
            yield "time", s._replace(now=s.now + 1)
        if s.losses < self.losses and (s.net or s.acks):
            yield "!all messages lost", s._replace(net=frozenset(), acks=frozenset(), losses=s.losses + 1)
        for a, agent in enumerate(s.agents):
            who = f"receiver {a}" if a else "sender"
            if len(agent.acts) < self.epochs[a > 0]:
                cell = agent.cell
                if a == 0 and not self.on("numbers_in_state"):
                    cell = cell._replace(n=0)
                acts = (*agent.acts, Act(cell))
                yield f"!{who} taken over", s._replace(agents=put(s.agents, a, Agent(agent.cell, acts)))
            for e in range(len(agent.acts)):
                yield from self.activation(s, a, e, f"{who}.{e}")

    def activation(self, s: World, a: int, e: int, who: str) -> Iterator[Step[World]]:
        """One activation: its write, its turns."""
        agent = s.agents[a]
        act = agent.acts[e]

        def turn(new: Act, cell: Any = agent.cell, **rest: Any) -> World:
            return s._replace(agents=put(s.agents, a, Agent(cell, put(agent.acts, e, new))), **rest)

        if act.draft and not act.sent:
            yield f"{who} sends its write", turn(act._replace(sent=True))
        if act.sent and not act.landed and (e == len(agent.acts) - 1 or not self.on("fence")):
            yield f"{who} commit lands", turn(act._replace(landed=True), self.landing(a, act, agent.cell))
        if act.landed:
            yield f"{who} learns of its commit", turn(Act(act.draft))
        yield from (self.receive if a else self.send)(s, a, act, turn, who)

    def landing(self, a: int, act: Act, cell: Any) -> Any:
        """What is stored: the draft, unless a guard on the commit is left out."""
        new = act.draft
        if a and not self.on("mark_in_commit"):
            new = new._replace(last=cell.last)
        if a and not self.on("batch_whole") and act.size > 1:
            new = new._replace(hist=new.hist[: len(cell.hist) + 1])
        if not a and not self.on("box_in_commit"):
            new = new._replace(box=cell.box)
        return new

    def views(self, s: World, least: int = 0) -> range:
        """Cluster time as a host may see it: up to `lag` behind, never behind what the state has seen."""
        least = least if self.on("state_clock") else 0
        top = s.now + (0 if self.on("time_read") else self.ahead)
        return range(max(s.now - self.lag, least, 0), max(top, least) + 1)

    def full(self, act: Act) -> bool:
        """Whether a draft takes no further turn."""
        return act.draft is not None and (act.sent or act.size >= self.batch)

    # --- the sender -------------------------------------------------------------------------------------------------

    def send(self, s: World, _: int, act: Act, turn: Turn, who: str) -> Iterator[Step[World]]:
        """Release the box; emit, give up, settle."""
        me: Sender = act.mem
        source = act.draft if act.draft and not self.on("commit_first") else me
        net, before = set(s.net), dict[int, int]()
        for r, n, kind, token, born in source.box:
            if kind == "unheard":
                continue
            net.add((r, n, before.get(r, 0), kind, token, born))
            before[r] = n
        if not net <= s.net:
            new = act if self.on("keep_box") else act._replace(mem=me._replace(box=()))
            yield f"{who} releases its outbox", turn(new, net=frozenset(net))
        if act.draft:
            return
        if s.tries < self.turns and (len(me.box) < self.limit or not self.on("limit")):
            for r in range(1, self.receivers + 1):
                yield from self.emit(s, r, act, turn, who)
        yield from self.find(act, turn, who)
        for i in range(len(me.box)):
            yield from self.settle(s, i, act, turn, who)
        if s.reverts < self.reverts and me.n:
            n = me.n if self.on("revert_n") else 0
            box = me.box if self.on("revert_box") else ()
            yield f"{who} is reverted", turn(self.begun(act, me._replace(n=n, box=box)), reverts=s.reverts + 1)

    def emit(self, s: World, r: int, act: Act, turn: Turn, who: str) -> Iterator[Step[World]]:
        """A turn emits to r, of which its host has heard or not; behind one that waits, others wait too."""
        me: Sender = act.mem
        behind = any(to == r and kind == "unheard" for to, _, kind, _, _ in me.box)
        kinds = ["unheard"] if behind and self.on("late_behind") else ["live"]
        if s.lates < self.late and "unheard" not in kinds:
            kinds.append("unheard")
        for kind in kinds:
            for born in self.views(s):
                box, made = (*me.box, (r, me.n + 1, kind, s.tries, born)), (*me.made, (r, s.tries))
                draft = me._replace(n=me.n + 1, box=box, made=made)
                yield (
                    f"{who} turn {s.tries} emits {me.n + 1} to {r}, {kind}",
                    turn(self.begun(act, draft), tries=s.tries + 1, lates=s.lates + (kind == "unheard")),
                )

    def find(self, act: Act, turn: Turn, who: str) -> Iterator[Step[World]]:
        """The host hears of a receiver: what waited for it gets new numbers, in its order."""
        me: Sender = act.mem
        for r in sorted({entry[0] for entry in me.box if entry[2] == "unheard"}):
            n, box = me.n, list[tuple[int, int, str, int, int]]()
            late = list[tuple[int, int, str, int, int]]()
            for entry in me.box:
                if entry[0] != r or entry[2] != "unheard":
                    box.append(entry)
                elif self.on("late_number"):
                    n += 1
                    late.append((r, n, "live", *entry[3:]))
                else:
                    box.append((r, entry[1], "live", *entry[3:]))
            yield f"{who} hears of {r}", turn(self.begun(act, me._replace(n=n, box=(*box, *late))))

    def begun(self, act: Act, draft: Any) -> Act:
        """A draft with one turn more; a write of one turn leaves at once."""
        return act._replace(draft=draft, size=act.size + 1, sent=self.batch == 1)

    def settle(self, s: World, i: int, act: Act, turn: Turn, who: str) -> Iterator[Step[World]]:
        """Entry i of the box: given up, or answered."""
        me: Sender = act.mem
        r, n, kind, token, born = me.box[i]
        if kind == "unheard":
            return
        rest, letter = me.box[:i] + me.box[i + 1 :], (r, n, token, "pending")
        if kind == "live" and s.voids < self.voids:
            box = put(me.box, i, (r, n, "void", token, born)) if self.on("void") else rest
            dead = me.dead | {letter if self.on("void") else (r, n, token, "not applied")}
            yield f"{who} gives up {n}", turn(self.begun(act, me._replace(box=box, dead=dead)), voids=s.voids + 1)
        for verdict in ("applied", "not applied", "unknown"):
            overdue = verdict == "unknown" and self.horizon and s.now - born >= self.keep
            if (r, n, verdict) in s.acks or overdue:
                dead = me.dead - {letter}
                dead = dead if verdict == "applied" else dead | {(r, n, token, verdict)}
                yield f"{who} settles {n}: {verdict}", turn(self.begun(act, me._replace(box=rest, dead=dead)))

    # --- a receiver -------------------------------------------------------------------------------------------------

    def receive(self, s: World, a: int, act: Act, turn: Turn, who: str) -> Iterator[Step[World]]:
        """Take signals, in order; forget, revert, resume."""
        leaky = not self.on("ack_committed") or (self.batch > 1 and not self.on("batch_release"))
        known: Receiver = act.draft if act.draft and leaky else act.mem
        me: Receiver = act.draft if act.draft and not act.sent else act.mem
        for signal in s.net:
            n, prev = signal[1:3]
            if signal[0] != a:
                continue
            if known.last is not None and n <= known.last:
                verdict = "not applied" if n in known.voided and self.on("void_memory") else "applied"
                if (a, n, verdict) not in s.acks:
                    yield f"{who} acks {n}: {verdict}", turn(act, acks=s.acks | {(a, n, verdict)})
            elif (
                self.full(act) or (self.on("prev") and prev > (me.last or 0)) or (me.last is not None and n <= me.last)
            ):
                continue
            elif me.held is None or not self.on("pause_refuse"):
                yield from self.take(s, signal, me, act, turn, who)
        if act.draft:
            return
        for now in self.views(s, me.clock) if me.last is not None and self.horizon else ():
            if now - me.used >= self.keep:
                new = me._replace(last=None, clock=max(now, me.clock), voided=frozenset())
                yield f"{who} forgets the sender at {now}", turn(self.begun(act, new))
        if me.held is not None:
            yield f"{who} is resumed", turn(self.begun(act, me._replace(held=None, hist=(*me.hist, me.held))))
        if s.reverts < self.reverts and me.hist:
            last = me.last if self.on("revert_marks") else 0
            new = me._replace(hist=me.hist[:-1], undone=me.undone | {me.hist[-1]}, last=last)
            yield f"{who} is reverted", turn(self.begun(act, new), reverts=s.reverts + 1)

    def take(self, s: World, signal: Any, me: Receiver, act: Act, turn: Turn, who: str) -> Iterator[Step[World]]:
        """One signal that is new and in order: a turn on the draft, or too old."""
        a, n, _, kind, token, born = signal
        for now in self.views(s, me.clock):
            if me.last is None and now - born >= self.keep and self.on("age"):
                if (a, n, "unknown") not in s.acks:
                    yield f"{who} refuses {n}: too old", turn(act, acks=s.acks | {(a, n, "unknown")})
                continue
            stamp = max(now, born) if self.on("used_born") else now
            new = me._replace(last=n, used=stamp, clock=max(stamp, me.clock))
            if kind == "live":
                yield f"{who} applies {n} at {now}", turn(self.begun(act, new._replace(hist=(*me.hist, token))))
            else:
                yield f"{who} voids {n}", turn(self.begun(act, new._replace(voided=me.voided | {n})))
            if s.finals < self.finals and kind == "live":
                gone = new._replace(dead=new.dead | {token})
                gone = gone if self.on("batch_undo") else gone._replace(hist=(*me.hist, token))
                yield f"{who} fails at {n} for the last time", turn(self.begun(act, gone), finals=s.finals + 1)
            if s.fails < self.fails and kind == "live":
                yield from self.fail(s, new, me, act, turn, who, token)

    def fail(
        self, s: World, new: Receiver, me: Receiver, act: Act, turn: Turn, who: str, token: int
    ) -> Iterator[Step[World]]:
        """The turn fails: the run starts again from the last committed bytes; or the agent pauses."""
        if self.pause:
            held = new._replace(held=token) if self.on("pause_mark") else me._replace(held=token)
            yield f"{who} fails at {new.last}, pauses", turn(self.begun(act, held), fails=s.fails + 1)
        elif self.on("batch_restart"):
            yield f"{who} fails at {new.last}", turn(Act(act.mem), fails=s.fails + 1)
        else:  # the failed turn had changed the draft already
            half = me._replace(hist=(*me.hist, token))
            yield f"{who} fails at {new.last}, goes on with its draft", turn(self.begun(act, half), fails=s.fails + 1)
