"""Model H, time (protocol 1, cluster time; protocol 3, timers and cron): ticks of successive leaders, timers and cron
that fire once.

True time is `t`. A tick carries the step of its leader's clock since that leader's own previous tick, and the step of a
leader that stood still is capped. A timer fires on cluster time, which its host may extrapolate; cron fires on the
wall clock, which may step back. The store is a sealed cell, as in model C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from models.explore import Model, Step, put

CAP = 2


class Record(NamedTuple):
    """The agent's record."""

    timer: int | None = 2  # when it is due, in cluster time
    next: int = 1  # cron: the next wall instant, of every second one (1, 3, 5 ...)
    fired: tuple[str, ...] = ()  # user state: what has fired


class Act(NamedTuple):
    """One activation."""

    mem: Record
    draft: Record | None = None
    landed: bool = False
    cron: int = 1  # its own idea of the next instant, with [cron_instant] left out


class World(NamedTuple):
    """A state of the whole."""

    t: int = 0
    cluster: int = 0  # as applied
    wall: int = 0
    back: int = 0  # how often the wall clock was set back
    ticked: tuple[int, ...] = (0,)  # per leader: its clock at its previous tick
    cell: Record = Record()
    acts: tuple[Act, ...] = (Act(Record()),)
    bad: str | None = None


class Time(Model[World]):
    """See the module."""

    horizon, leaders, epochs, sets_back = 4, 2, 2, 1
    live = True
    FAST = ({"horizon": 3},)
    SMALL = (
        {},
        {"horizon": 5, "leaders": 3, "sets_back": 2},
    )
    BIG = {"horizon": 8, "leaders": 4, "epochs": 4, "sets_back": 3}
    GUARDS = {
        "first_zero": {"epochs": 1, "sets_back": 0},
        "step_cap": {"leaders": 1, "epochs": 1, "sets_back": 0},
        "timer_in_commit": {"leaders": 1},
        "cron_in_commit": {"leaders": 1, "sets_back": 0},
        "cron_next": {"leaders": 1, "epochs": 1},
        "cron_instant": {"leaders": 1, "horizon": 3},
        "fence": {"leaders": 1, "sets_back": 0},
    }

    def init(self) -> World:
        """Time 0, one leader, one activation."""
        return World()

    def check(self, s: World) -> str | None:
        """Cluster time never runs ahead, never jumps; nothing fires twice, no instant is passed over."""
        if s.cluster > s.t:
            return "cluster time runs ahead of the true time"
        if len(set(s.cell.fired)) < len(s.cell.fired):
            return "fired twice"
        if any(f"cron {n}" not in s.cell.fired for n in range(1, s.cell.next, 2)):
            return "an instant was passed over"
        return s.bad

    def goal(self, s: World) -> bool:
        """The newest holder knows its state."""
        return s.acts[-1].mem == s.cell and not s.acts[-1].draft

    def steps(self, s: World) -> Iterator[Step[World]]:
        """Time, leaders, the wall clock, activations."""
        if s.t < self.horizon:
            yield "time", s._replace(t=s.t + 1, wall=s.wall + 1)
        if s.back < self.sets_back and s.wall:
            yield "!the wall clock is set back", s._replace(wall=s.wall - 1, back=s.back + 1)
        if len(s.ticked) < self.leaders:
            new = s._replace(ticked=(*s.ticked, s.t if self.on("first_zero") else 0))
            yield f"!leader {len(s.ticked) + 1} elected, ticks", self.tick(new)
        if s.ticked[-1] < s.t:
            yield "tick", self.tick(s)
        if len(s.acts) < self.epochs:
            yield "!taken over", s._replace(acts=(*s.acts, Act(s.cell, cron=1 + s.wall // 2 * 2)))
        for e, act in enumerate(s.acts):
            yield from self.activation(s, e, act)

    def tick(self, s: World) -> World:
        """The newest leader's tick is applied; those of deposed leaders are bound to their terms and never are."""
        step = s.t - s.ticked[-1]
        if self.on("step_cap"):
            step = min(step, CAP)
        bad = "cluster time jumped over a time that nobody could see" if step > CAP else None
        return s._replace(cluster=s.cluster + step, ticked=(*s.ticked[:-1], s.t), bad=bad)

    def activation(self, s: World, e: int, act: Act) -> Iterator[Step[World]]:
        """Fire what is due; each firing is a turn."""

        def turn(new: Act, **rest: Any) -> World:
            return s._replace(acts=put(s.acts, e, new), **rest)

        newest = e == len(s.acts) - 1
        if act.draft and not act.landed and (newest or not self.on("fence")):
            yield f"host.{e} commit lands", turn(act._replace(landed=True), cell=act.draft)
        if act.landed and act.draft:
            yield f"host.{e} learns of its commit", turn(act._replace(mem=act.draft, draft=None, landed=False))
        if not act.draft:
            yield from self.timers(s, e, act, turn)
            yield from self.cron(s, e, act, turn)

    def timers(self, s: World, e: int, act: Act, turn: Callable[..., World]) -> Iterator[Step[World]]:
        """A timer is due by cluster time, or by what the host makes of it (at most one step more)."""
        me = act.mem
        if me.timer is not None and s.cluster + 1 >= me.timer:
            left = None if self.on("timer_in_commit") else me.timer
            draft = me._replace(timer=left, fired=(*me.fired, "timer"))
            yield f"host.{e} fires the timer", turn(act._replace(draft=draft))

    def cron(self, s: World, e: int, act: Act, turn: Callable[..., World]) -> Iterator[Step[World]]:
        """An instant is due by the wall clock; the next one is counted from it, not from the clock."""
        me = act.mem
        due = me.next if self.on("cron_instant") else act.cron
        if s.wall >= due and due < self.horizon:
            after = due + 2 if self.on("cron_next") else s.wall + 1 + s.wall % 2
            stored = after if self.on("cron_in_commit") else me.next
            draft = me._replace(next=stored, fired=(*me.fired, f"cron {due}"))
            yield f"host.{e} fires cron {due}", turn(act._replace(draft=draft, cron=due + 2))
