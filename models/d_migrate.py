"""Model D, migration and failover (protocol 4) of one agent between three hosts, with a caller that keeps sending.

The registry is a list of committed entries; each host and the caller has read a prefix of it. Leases are model A
reduced to its theorem: a host can be expired only while it holds none. The store is model B reduced to a sealed cell.
The assignment entry is (epoch, host); a plan moves it from the live holder to a prepared target.

`blast`: the leader's blast-radius guard. When so many hosts are silent at once, it expires nobody until it has
confirmed that they, and not its own links, are gone. It only holds entries back: it can delay a failover, no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from models.explore import Model, Step, put

Plan = tuple[int, int, int]


class Reg(NamedTuple):
    """The row of the agent, and the hosts that expired."""

    epoch: int = 1
    host: int = 0
    plan: Plan | None = None  # (plan id, epoch, target): at most one for each agent
    plans: int = 0
    gone: frozenset[int] = frozenset()  # expired hosts


class Host(NamedTuple):
    """One host."""

    up: bool = True
    lease: bool = True
    seen: int = 0  # index into the registry's history
    role: str = ""  # "", seal, serve, quiet, stopped
    epoch: int = 0
    mem: int = 0  # signals applied, as it knows it
    draft: bool = False
    plan: int = 0  # the plan that it gave its release to


class World(NamedTuple):
    """A state of the whole."""

    log: tuple[Reg, ...] = (Reg(),)
    hosts: tuple[Host, ...] = (Host(role="serve", epoch=1), Host(), Host())
    sealed: int = 1
    cell: int = 0
    acked: int = 0  # signals that the caller knows to be applied
    ready: frozenset[int] = frozenset()  # plans whose target said "prepared"
    released: frozenset[Plan] = frozenset()  # (plan, epoch): release messages, deliverable for ever
    crashes: int = 0
    lapses: int = 0
    confirmed: bool = False  # the leader has confirmed that the silent hosts are gone
    bad: str | None = None


class Migration(Model[World]):
    """See the module."""

    signals, crashes, lapses, plans, epochs, blast = 1, 1, 1, 1, 6, 0
    live = True
    FAST = ({"crashes": 0, "lapses": 0},)
    SMALL = (
        {},
        {"crashes": 2, "lapses": 0},
        {"crashes": 2, "lapses": 0, "plans": 0, "blast": 2},
        {"plans": 2, "crashes": 0, "lapses": 0},
        {"signals": 2, "lapses": 0},
    )
    BIG = {"signals": 4, "crashes": 2, "lapses": 6, "plans": 4, "epochs": 12, "blast": 2}
    _QUIET = {"crashes": 0, "lapses": 0}
    GUARDS = {
        "quiet": _QUIET,
        "release": _QUIET,
        "plan_id": _QUIET | {"plans": 2},
        "cancel_first": _QUIET,
        "cas": _QUIET,
        "lease": {"crashes": 0, "plans": 0},
        "lease_wait": {"crashes": 0},
        "seal_assigned": _QUIET,
        "cancel_dead": {"lapses": 0, "epochs": 3},
        "fence": {"crashes": 0, "plans": 0},
        "ack_committed": _QUIET,
        "blast_confirm": {"crashes": 2, "lapses": 0, "plans": 0, "blast": 2},
        "blast": {"crashes": 2, "lapses": 0, "plans": 0, "blast": 2},
        "prepared": _QUIET,
        "last_turn": _QUIET,
    }
    SPARE = frozenset({"prepared", "last_turn", "blast"})

    def init(self) -> World:
        """Host 0 serves epoch 1."""
        return World()

    def serving(self, h: Host) -> bool:
        """Whether a host answers for the agent."""
        return h.up and h.role == "serve" and (h.lease or not self.on("lease"))

    def check(self, s: World) -> str | None:
        """One holder at most; what was acknowledged is kept."""
        if sum(self.serving(h) for h in s.hosts) > 1:
            return "two hosts serve the agent"
        if s.acked > s.cell:
            return "an acknowledged signal is not in the state"
        return s.bad

    def goal(self, s: World) -> bool:
        """Every signal is acknowledged, and the holder of the newest epoch serves."""
        return s.acked == self.signals and any(self.serving(h) and h.epoch == s.log[-1].epoch for h in s.hosts)

    def steps(self, s: World) -> Iterator[Step[World]]:
        """Each successor, without the entries that everybody has read."""
        for label, n in self.raw(s):
            cut = min(h.seen for h in n.hosts if h.up)
            hosts = tuple(h._replace(seen=max(h.seen - cut, 0)) for h in n.hosts)
            yield label, n._replace(log=n.log[cut:], hosts=hosts)

    def raw(self, s: World) -> Iterator[Step[World]]:
        """The leader, the hosts, crashes, lapses."""
        yield from self.leader(s, s.log[-1])
        for i, h in enumerate(s.hosts):

            def host(new: Host, i: int = i, **rest: Any) -> World:
                return s._replace(hosts=put(s.hosts, i, new), **rest)

            if h.up:
                yield from self.host(s, i, h, host)
                if s.crashes < self.crashes:
                    yield f"!host {i} dies", host(Host(up=False, lease=h.lease), crashes=s.crashes + 1)
            if h.lease and (not h.up or s.lapses < self.lapses):
                mark, lapses = ("", s.lapses) if not h.up else ("!", s.lapses + 1)
                yield f"{mark}lease of host {i} lapses", host(h._replace(lease=False), lapses=lapses)
            if not h.lease and h.up and i not in s.log[-1].gone:
                yield f"host {i} gets a lease again", host(h._replace(lease=True))

    def leader(self, s: World, r: Reg) -> Iterator[Step[World]]:
        """Entries that any leader may commit, at once or from a request that was delayed."""

        def commit(new: Reg) -> World:
            return s._replace(log=(*s.log, new))

        def assign(host: int, epoch: int = r.epoch) -> Reg:
            return r._replace(epoch=epoch + 1, host=host, plan=None)

        if self.blast and self.silent(s) >= self.blast and not s.confirmed and self.on("blast_confirm"):
            yield "the leader confirms that they are gone", s._replace(confirmed=True)
        for i, h in enumerate(s.hosts):
            held_back = self.blast and self.silent(s) >= self.blast and not s.confirmed and self.on("blast")
            if i not in r.gone and (not h.lease or not self.on("lease_wait")) and len(r.gone) < 2 and not held_back:
                yield f"{'' if not h.up else '!'}host {i} expired", commit(r._replace(gone=r.gone | {i}))
            free = r.host in r.gone or not self.on("release")
            if i != r.host and i not in r.gone and r.epoch < self.epochs and free and h.up:
                yield f"failover to host {i}, epoch {r.epoch + 1}", commit(assign(i))
            if i != r.host and i not in r.gone and not r.plan and r.plans < self.plans and r.epoch < self.epochs:
                planned = r._replace(plan=(r.plans + 1, r.epoch, i), plans=r.plans + 1)
                yield f"plan {planned.plans}: move to host {i}", commit(planned)
        if r.plan:
            _, _, target = r.plan
            if self.on("cancel_dead") or target not in r.gone:
                yield f"plan {r.plan[0]} cancelled", commit(r._replace(plan=None))
        for plan, epoch, target in s.released:
            same = r.plan == (plan, epoch, target)
            same = same or (not self.on("plan_id") and r.plan is not None and r.plan[1:] == (epoch, target))
            same = same or (not self.on("cancel_first") and epoch == r.epoch) or not self.on("cas")
            if same and target not in r.gone and r.epoch < self.epochs and (r.epoch == epoch or not self.on("cas")):
                yield (
                    f"flip of plan {plan} to host {target}",
                    commit(assign(target, epoch if not self.on("cas") else r.epoch)),
                )

    def silent(self, s: World) -> int:
        """Hosts that no heartbeat comes from."""
        return sum(not h.up for h in s.hosts)

    def host(self, s: World, i: int, h: Host, host: Callable[..., World]) -> Iterator[Step[World]]:
        """What one host does."""
        if h.seen < len(s.log) - 1:
            yield f"host {i} reads the registry", host(self.follow(s, i, h._replace(seen=h.seen + 1)))
        seen, lease = s.log[h.seen], h.lease or not self.on("lease")
        plan = seen.plan
        if plan and plan[2] == i and not self.on("seal_assigned") and not h.role and s.sealed <= plan[1]:
            yield f"host {i} seals before it is assigned", host(h, sealed=plan[1] + 1)
        if plan and plan[2] == i and plan[0] not in s.ready:
            yield f"host {i} is prepared", host(h, ready=s.ready | {plan[0]})
        if h.role == "seal" and lease and h.epoch >= s.sealed:
            yield f"host {i} seals {h.epoch}, ready", host(h._replace(role="serve", mem=s.cell), sealed=h.epoch)
        if h.role == "serve" and lease and not h.draft and h.mem < self.signals:
            yield f"host {i} runs turn {h.mem + 1}", host(h._replace(draft=True))
        if h.draft and (h.epoch >= s.sealed or not self.on("fence")):
            if s.cell != h.mem:
                yield (
                    f"host {i} commits on an old state",
                    host(h, bad="a turn was committed on a state that is not the last"),
                )
            else:
                yield f"host {i} commits turn {h.mem + 1}", host(h._replace(draft=False, mem=h.mem + 1), cell=h.mem + 1)
        known = h.mem + (1 if h.draft and not self.on("ack_committed") else 0)
        if self.serving(h) and known > s.acked:
            yield f"host {i} acks {known}", host(h, acked=known)
        idle = not h.draft or not self.on("last_turn")
        if (
            plan
            and h.role == "serve"
            and plan[1] == h.epoch
            and idle
            and (plan[0] in s.ready or not self.on("prepared"))
        ):
            new = h._replace(role="quiet" if self.on("quiet") else "serve", plan=plan[0])
            yield f"host {i} goes quiet and releases to plan {plan[0]}", host(new, released=s.released | {plan})

    def follow(self, s: World, i: int, h: Host) -> Host:
        """Level-triggered: what the registry says now decides the role."""
        r = s.log[h.seen]
        if i in r.gone:
            return h._replace(role="stopped", draft=False)
        if r.host == i and r.epoch > h.epoch:
            return h._replace(role="seal", epoch=r.epoch, draft=False)
        if r.host != i and h.role in ("serve", "quiet", "seal"):
            return h._replace(role="", draft=False)
        if h.role == "quiet" and r.host == i and r.epoch == h.epoch and (not r.plan or r.plan[0] != h.plan):
            return h._replace(role="serve")
        return h
