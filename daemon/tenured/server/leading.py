"""What only the leader does: ticks, acknowledgements of heartbeats, expiries, placement (protocol 1; DESIGN.md
section 5).

Everything it proposes is bound to its term: an entry that waited in a deposed leader's queue must not reach the log
of its successor, where a tick would confirm a heartbeat that the successor never saw, and an expiry would ignore its
leases.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Protocol

from tenured.clocks import boot_ns, wall_s
from tenured.core import commands
from tenured.core.changes import Delta
from tenured.core.commands import Command
from tenured.core.failover import DEFAULT_SHARE, Planner
from tenured.core.lease import Ack, LeaderLeases, Load
from tenured.core.profile import NS, Profile
from tenured.raft import Applied, Outcome, Role
from tenured.server.replica import Replica

_log = logging.getLogger(__name__)

_STALL_TICKS = 2
"""Of the own loop; after that heartbeats may lie unread (protocol 1, leader 6)."""
_FORGET_TICKS = 256
_AFTER_END_S = 0.001
"""The loop's clock is another one, and of milliseconds."""


class Proposer(Protocol):
    """The part of Consensus that is used here."""

    async def propose(self, command: bytes, timeout_s: float, *, term: int | None = None) -> Outcome:
        """Place one entry."""
        ...


class Leader:
    """Call `role_changed` at every change of role; it leads while this server does. Hears of changes as a replica's
    listener."""

    def __init__(
        self,
        profile: Profile,
        replica: Replica,
        proposer: Proposer,
        send_ack: Callable[[Ack], None],
        *,
        clock: Callable[[], int] = boot_ns,
        wall: Callable[[], float] = wall_s,
        guard_share: float = DEFAULT_SHARE,
    ) -> None:
        self.leases = LeaderLeases(profile)
        self._profile = profile
        self._replica = replica
        self._proposer = proposer
        self._send_ack = send_ack
        self._clock = clock
        self._wall = wall
        self._planner = Planner(share=guard_share)
        self._term: int | None = None
        self._last_tick_ns = 0
        self._ticks = 0
        self._ticker: asyncio.TimerHandle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._planning = False
        self._planned_version = -1
        self._known: set[str] = set()
        """Incarnations that have a row; in this leadership."""
        self._tasks: set[asyncio.Task[None]] = set()
        # An entry is given up after a lease: by then its outcome does not matter to any host.
        self._timeout_s = profile.ttl_ns / NS

    @property
    def leading(self) -> bool:
        """Whether this server leads and has committed an entry of its own term."""
        return self._term is not None and self.leases.leading

    def role_changed(self, role: Role) -> None:
        """Begin or end leading."""
        if not role.is_leader:
            self.stop()
        elif role.term != self._term:
            self.stop()
            self._begin(role.term)

    def stop(self) -> None:
        """Propose nothing more. Entries under way keep their fate."""
        if self._term is not None:
            _log.info("no longer leads term %d", self._term)
        self._term = None
        for timer in (self._ticker, self._alarm):
            if timer is not None:
                timer.cancel()
        self._ticker = self._alarm = None

    def heartbeat(self, incarnation: str, sent_at_ns: int, load: Load) -> None:
        """A heartbeat arrived (leader 1). Only while leading: a follower says nothing [no_relay_ack]."""
        if self._term is not None:
            self.leases.heartbeat(self._clock(), incarnation, sent_at_ns, load)

    def changed(self, delta: Delta, /) -> None:
        """The registry changed: plan soon, once for all entries of this turn of the loop."""
        if self._term is not None:
            for key in delta.changed:
                # Only a new row: the silence of one that was there before counts from the first commit (leader 4).
                if key.kind == "host" and key.name not in self._known and self._replica.registry.alive(key.name):
                    self._known.add(key.name)
                    self.leases.registered(self._clock(), key.name)
        if self._replica.registry.placement_version != self._planned_version or self._planner.waits_for_places:
            self._plan_soon()

    def replaced(self) -> None:
        """The registry was replaced."""
        self._plan_soon()

    def complete(self, entry: bytes) -> bytes:
        """Return what consensus is to append, as the leader, in place of an entry: new rows with their places.

        So that a new agent costs one commit, not one for its row and one for its assignment.
        """
        hosts = self._replica.registry.hosts
        if not hosts or not self.leading or not commands.applies_agents(entry):
            return entry
        command = commands.decode(entry)
        if not isinstance(command, commands.ApplyAgents):
            return entry
        completed = self._planner.complete(self._replica.registry, self.leases, command, self._clock())
        return entry if completed is command else commands.encode(completed)

    # --- the loop ---------------------------------------------------------------------------------------------------

    def _begin(self, term: int) -> None:
        _log.info("leads term %d", term)
        self._term = term
        self.leases.elected()
        self._planner.reset()
        self._known = set(self._replica.registry.hosts)
        self._last_tick_ns = self._clock()
        self._spawn(self._first(term))

    async def _first(self, term: int) -> None:
        """The first entry of the own term; the wait of a new leader begins at its commit (leader 4 [wait_new])."""
        while self._term == term:
            outcome = await self._propose(commands.Tick(step_ns=0, wall=self._wall()), term)
            if isinstance(outcome, Applied) and self._term == term:
                self.leases.first_commit(self._clock())
                self._last_tick_ns = self._clock()
                self._schedule()
                self._plan_soon()
                return
            # A log that is being stopped refuses at once: asking again without a pause would hold the loop for ever.
            await asyncio.sleep(self._profile.tick_ns / NS)

    def _schedule(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        self._ticker = asyncio.get_running_loop().call_later(self._profile.tick_ns / NS, self.tick)

    def tick(self) -> None:
        """Propose a tick that covers the heartbeats that wait now (leader 2). Calls itself again after `tick_ns`."""
        term = self._term
        if term is None:
            return
        self._schedule()
        now = self._clock()
        self._notice_stall(now)
        # Cluster time never jumps: what passed while this server stood still passed for nobody (protocol 1).
        step = min(now - self._last_tick_ns, _STALL_TICKS * self._profile.tick_ns)
        self._last_tick_ns = now
        self._ticks += 1
        if self._ticks % _FORGET_TICKS == 0:
            self.leases.forget(self._replica.registry)
            self._known &= self._replica.registry.hosts.keys()
        token = self.leases.tick_proposed()
        self._spawn(self._commit_tick(term, token, step))
        self._plan_soon()

    def _notice_stall(self, now: int) -> None:
        if now - self._last_tick_ns > _STALL_TICKS * self._profile.tick_ns:
            _log.warning("this server stood still for %.0f ms: leases begin anew", (now - self._last_tick_ns) / 1e6)
            self.leases.stalled(now)

    async def _commit_tick(self, term: int, token: int, step_ns: int) -> None:
        outcome = await self._propose(commands.Tick(step_ns=step_ns, wall=self._wall()), term)
        if not isinstance(outcome, Applied):
            self.leases.tick_lost(token)
            return
        for ack in self.leases.tick_committed(token, outcome.index, self._replica.registry):
            self._send_ack(ack)

    def _plan_soon(self) -> None:
        if not self._planning and self.leading:
            self._planning = True
            asyncio.get_running_loop().call_soon(self._plan)

    def _plan(self) -> None:
        self._planning = False
        term = self._term
        if term is None or not self.leading:
            return
        now = self._clock()
        self._notice_stall(now)  # before any expiry: heartbeats may lie unread
        self._planned_version = self._replica.registry.placement_version
        self._set_alarm(now)
        for command in self._planner.plan(self._replica.registry, self.leases, now, self._wall()):
            self._say(command)
            self._spawn(self._carry_out(command, term))

    def _set_alarm(self, now: int) -> None:
        """Plan at the moment at which a lease ends, and not up to a tick later."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        end = self.leases.next_end_ns(now, self._replica.registry)
        if end is not None and end - now < self._profile.tick_ns:
            wait_s = (end - now) / NS + _AFTER_END_S
            self._alarm = asyncio.get_running_loop().call_later(wait_s, self._plan_soon)

    async def _carry_out(self, command: Command, term: int) -> None:
        try:
            outcome = await self._propose(command, term)
        finally:
            self._planner.settled(command)
        if not isinstance(outcome, Applied):
            _log.warning("%s was not decided: %s", type(command).__name__, outcome.reason)
        self._plan_soon()

    async def _propose(self, command: Command, term: int) -> Outcome:
        return await self._proposer.propose(commands.encode(command), self._timeout_s, term=term)

    def _say(self, command: Command) -> None:
        if isinstance(command, commands.ExpireHost):
            host = self._replica.registry.hosts.get(command.incarnation)
            name = host.name if host is not None else command.incarnation
            _log.warning("host %s is expired: its lease has ended (%s)", name, command.reason)
        elif isinstance(command, commands.Assign):
            _log.info("assigns %d agents", len(command.items))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
