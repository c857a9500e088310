"""What the leader proposes next: expiries first, then classes of hosts, then marks and assignments, then why others
wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import TypeVar

from tenure_api.reasons import Reason
from tenured.core.commands import (
    ApplyAgents,
    Assign,
    Assignment,
    ClassifyHosts,
    Command,
    ExpireHost,
    ForgetHosts,
    FreeAgents,
    MarkAvailable,
    MarkUnavailable,
    SetWaiting,
    WaitingItem,
)
from tenured.core.failover.classes import Classes
from tenured.core.failover.guard import DEFAULT_SHARE, NOTHING_HELD, Held, grace_ns, hosts_seen, look, waiting
from tenured.core.failover.marks import takes_agents, to_free, to_mark
from tenured.core.failover.newcomers import Newcomers
from tenured.core.failover.pacing import free_places
from tenured.core.failover.queue import HELD_BACK_NS, Queue
from tenured.core.lease import LeaderLeases
from tenured.core.model import Agent
from tenured.core.placement import Placement, place
from tenured.core.profile import NS
from tenured.core.registry import Registry

T = TypeVar("T")

BATCH = 1000
"""Items of one entry at most."""
ASLEEP = BATCH
"""Agents that sleep and are placed at a time."""
UNSETTLED_NS = 5 * NS
"""After so long a command whose fate nobody told counts as settled."""
HOST_ROWS_KEPT_NS = 600 * NS
"""Cluster time for which the row of an ended incarnation is shown."""


class Planner:
    """Of one leadership. One batch of assignments is under way at a time, so that capacity is never counted twice."""

    def __init__(self, seed: int = 0, *, share: float = DEFAULT_SHARE) -> None:
        self.seed = seed
        """Of the tie-break; any number."""
        self.held: Held = NOTHING_HELD
        """What the guard holds back."""
        self.waits_for_places = False
        """Whether agents wait until hosts have finished others: plan again whenever an agent becomes Ready."""
        self._share = share
        self._classes = Classes()
        self._queue = Queue()
        self._newcomers = Newcomers()
        self._leaving: dict[str, list[str]] = {}
        """Incarnation that has ended -> agents that it held then; the last one is the first to be taken from it."""
        self._open: dict[int, tuple[Command, int]] = {}
        self._seen: object = None
        self._told_at = 0
        self._marked_at = 0

    def reset(self) -> None:
        """Forget what was under way; at each election."""
        self._open.clear()
        self._classes.reset()
        self._queue.clear()
        self._newcomers.clear()
        self._leaving.clear()
        self.held = NOTHING_HELD
        self.waits_for_places = False
        self._seen = None

    def plan(self, registry: Registry, leases: LeaderLeases, now: int, wall: float) -> list[Command]:
        """Return what to propose now, in order. Cheap when nothing changed: call it at each tick and after each entry.

        Every returned command is to be settled (`settled`) when its outcome is known, whatever it is. `now` is the
        leader's boot clock in ns, `wall` its wall clock in seconds.
        """
        if not leases.leading:
            return []
        for command, proposed in list(self._open.values()):
            if now - proposed >= UNSETTLED_NS:
                self.settled(command)
        self.held = look(self.held, hosts_seen(registry, leases, now), now, share=self._share)
        held = waiting(self.held, now, grace_ns(leases.profile))
        new = self._expiries(registry, leases, held, now, wall)
        new += self._classified(registry, leases, held, now, wall)
        if not self._under_way(Assign, SetWaiting, MarkUnavailable, MarkAvailable):
            new += self._placements(registry, leases, now, wall)
            new += self._freed(registry, wall)
        for command in new:
            self._open[id(command)] = (command, now)
        return new

    def complete(self, registry: Registry, leases: LeaderLeases, command: ApplyAgents, now: int) -> ApplyAgents:
        """Return the command as this leader puts it into the log: rows that it creates get their places with it.

        Not while agents of a lost host wait their turn, or assignments are under way: new rows wait behind them.
        """
        if not leases.leading or command.places or self._under_way(Assign) or self._queue.lost(registry):
            return command
        loads = {incarnation: load.cpu for incarnation, load in leases.loads().items()}
        avoid = leases.suspects(now, registry)
        return self._newcomers.placed(registry, command, now, avoid=avoid, loads=loads, seed=self.seed)

    def settled(self, command: Command) -> None:
        """Note that the fate of a proposed command is known (applied, not applied, or unknown)."""
        self._open.pop(id(command), None)
        if isinstance(command, Assign | SetWaiting | MarkUnavailable | MarkAvailable):
            self._seen = None  # what was not applied is computed again

    # --- inside -----------------------------------------------------------------------------------------------

    def _under_way(self, *kinds: type[Command]) -> bool:
        return any(isinstance(command, kinds) for command, _ in self._open.values())

    def _expiries(
        self, registry: Registry, leases: LeaderLeases, held: AbstractSet[str], now: int, wall: float
    ) -> list[Command]:
        proposed = {command.incarnation for command, _ in self._open.values() if isinstance(command, ExpireHost)}
        new: list[Command] = [
            ExpireHost(
                incarnation=silence.incarnation,
                last_heard_wall=wall - (now - silence.last_heard_ns) / NS,
                wall=wall,
            )
            for silence in leases.expirable(now, registry)
            if silence.incarnation not in proposed and registry.hosts[silence.incarnation].name not in held
        ]
        oldest = registry.cluster_ns - HOST_ROWS_KEPT_NS
        ended = tuple(
            host.incarnation
            for host in registry.hosts.values()
            if not host.alive and host.ended_ns < oldest and host.incarnation not in registry.held_by
        )
        if ended and not self._under_way(ForgetHosts):
            new.append(ForgetHosts(incarnations=ended, wall=wall))
        return new

    def _freed(self, registry: Registry, wall: float) -> list[Command]:
        """The next agents of incarnations that held too many for the entry that ended them, in the order in which they
        are placed; while few wait to be placed.
        """
        ended = [incarnation for incarnation in registry.held_by if registry.ended(incarnation)]
        if not ended or self._under_way(FreeAgents) or len(list(islice(self._queue.waiting(registry), BATCH))) >= BATCH:
            return []
        incarnation = min(ended)
        leaving = self._leaving.get(incarnation)
        if leaving is None:
            order = sorted(registry.held_by[incarnation], key=int, reverse=True)
            critical = [uid for uid in order if registry.agents[uid].spec.critical]
            leaving = [uid for uid in order if not registry.agents[uid].spec.critical] + critical
            self._leaving = {incarnation: leaving}
        while leaving and leaving[-1] not in registry.held_by[incarnation]:
            leaving.pop()
        return [FreeAgents(incarnation=incarnation, uids=tuple(reversed(leaving[-BATCH:])), wall=wall)]

    def _classified(
        self, registry: Registry, leases: LeaderLeases, held: AbstractSet[str], now: int, wall: float
    ) -> list[Command]:
        if self._under_way(ClassifyHosts):
            return []
        items = self._classes.plan(registry, leases, held, now, wall)
        return [ClassifyHosts(items=items, wall=wall)] if items else []

    def _placements(self, registry: Registry, leases: LeaderLeases, now: int, wall: float) -> list[Command]:
        if not registry.unheld:
            self._queue.clear()
            self.waits_for_places = False
            return []
        avoid = leases.suspects(now, registry)
        # A new leader has heard of nobody yet: what it cannot place then is no news for users.
        since = leases.since_ns
        informed = since is not None and now - since > leases.detector.first_limit_ns
        hosts = [host for host in registry.hosts.values() if takes_agents(host, avoid)]
        nodes = {(host.pool, host.node) for host in hosts}
        standing = (registry.placement_version, avoid, informed)
        new: list[Command] = []
        if self._queue.refresh(registry, standing, nodes, now) or now - self._marked_at >= HELD_BACK_NS:
            self._marked_at = now
            new = self._marked(registry, avoid, now, wall) if informed else []
        return new or self._assigned(registry, leases, avoid, now, wall, informed=informed)

    def _marked(self, registry: Registry, avoid: AbstractSet[str], now: int, wall: float) -> list[Command]:
        new: list[Command] = [
            MarkUnavailable(items=tuple(part), wall=wall) for part in _parts(to_mark(registry, self._queue, avoid, now))
        ]
        new += [MarkAvailable(uids=tuple(part), wall=wall) for part in _parts(to_free(registry, avoid))]
        return new

    def _assigned(
        self,
        registry: Registry,
        leases: LeaderLeases,
        avoid: AbstractSet[str],
        now: int,
        wall: float,
        *,
        informed: bool,
    ) -> list[Command]:
        queue = self._queue
        lost = queue.lost(registry)
        free = free_places(registry, leases.loads(), avoid) if lost else None
        seen = (registry.placement_version, avoid, informed, free)
        if seen == self._seen:
            return self._told(registry, [], now, wall)
        self._seen = seen
        most = sum(free.values()) if free is not None else len(registry.unheld)
        batch, more = queue.first(registry, most, asleep=False)
        asleep = not batch
        if asleep:  # those that are left asleep take no places, and wait for nobody who does
            batch, others = queue.first(registry, ASLEEP, asleep=True)
            more, free = more or others, None
        full: frozenset[str] = frozenset(name for name, places in (free or {}).items() if not places)
        loads = {incarnation: load.cpu for incarnation, load in leases.loads().items()}
        placed = place(registry, batch, avoid=avoid, seed=self.seed, loads=loads, busy=full)
        chosen = _within(placed, free)
        pools = {registry.hosts[name].pool for name in full}
        failed = [found for found in placed if not found.incarnation]
        # With a host left out because it is busy, nobody knows yet whether the agent fits nowhere.
        failed = [found for found in failed if registry.agents[found.uid].spec.pool not in pools]
        self.waits_for_places = lost and (more or len(chosen) + len(failed) < len(batch))
        items = [_assignment(registry, found) for found in chosen]
        new: list[Command] = [Assign(items=tuple(part), wall=wall) for part in _parts(items)]
        if not informed:
            return new
        queue.stuck.update(found.uid for found in failed)
        said = [_waiting(found) for found in failed if _is_news(registry, found)]
        new += [SetWaiting(items=tuple(part), wall=wall) for part in _parts(said)]
        return new + self._told(registry, items, now, wall)

    def _told(self, registry: Registry, items: Sequence[Assignment], now: int, wall: float) -> list[Command]:
        """Say to those that wait for their turn how many are before them, now and then."""
        if not self.waits_for_places or now - self._told_at < HELD_BACK_NS:
            return []
        queue, taken = self._queue, {item.uid for item in items}
        held_back = [agent for agent in queue.waiting(registry) if agent.uid not in taken]
        ahead = sum(registry.starting.values()) + len(items)
        told: list[WaitingItem] = []
        for place_in_line, agent in enumerate(held_back):
            if len(told) < BATCH and queue.to_tell(agent, now):
                told.append(_held_back(agent, ahead + place_in_line))
        self._told_at = now
        return [SetWaiting(items=tuple(told), wall=wall)] if told else []


def _within(placed: Iterable[Placement], free: dict[str, int] | None) -> list[Placement]:
    """The placements for which the host has a place now; the others wait for their turn."""
    taken: Counter[str] = Counter()
    chosen: list[Placement] = []
    for found in placed:
        if found.incarnation and (free is None or taken[found.incarnation] < free[found.incarnation]):
            taken[found.incarnation] += 1
            chosen.append(found)
    return chosen


def _assignment(registry: Registry, found: Placement) -> Assignment:
    return Assignment(
        uid=found.uid,
        epoch=found.epoch,
        incarnation=found.incarnation,
        reason=registry.agents[found.uid].unheld_reason,
        explanation=found.explanation,
    )


def _waiting(found: Placement) -> WaitingItem:
    return WaitingItem(
        uid=found.uid,
        epoch=found.epoch,
        reason=found.reason,
        message=found.message,
        next_action=found.next_action,
    )


def _held_back(agent: Agent, ahead: int) -> WaitingItem:
    reason = Reason.FAILOVER_PACED
    message = f"Waiting: failing over, {ahead} ahead of it"
    return WaitingItem(uid=agent.uid, epoch=agent.epoch, reason=reason, message=message, next_action=reason.next_step)


def _is_news(registry: Registry, found: Placement) -> bool:
    """Tell whether the row does not say it yet. What is marked says it already."""
    agent = registry.agents[found.uid]
    waiting = agent.waiting
    return not agent.unavailable and (
        waiting is None or (waiting.reason, waiting.message) != (found.reason, found.message)
    )


def _parts(items: Sequence[T]) -> Iterable[Sequence[T]]:
    return (items[at : at + BATCH] for at in range(0, len(items), BATCH))
