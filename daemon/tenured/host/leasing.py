"""Registration and heartbeats: how this incarnation gets its lease and keeps it (protocol 1, host). The rules are
`core.lease`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from tenure_proto.v1.hostlink_pb2 import HeartbeatAck, HostFrame, RegisterHost, ReleaseHost
from tenured.clocks import boot_ns
from tenured.core.clustertime import ClusterClock
from tenured.core.lease import Ack, HostLease
from tenured.host.locks import DeadLocks
from tenured.host.reports import FIRST_PAUSE_S, LONGEST_PAUSE_S, ask_leader
from tenured.transport.errors import TransportError
from tenured.transport.serverlinks import ServerLinks

log = logging.getLogger("tenured.host.lease")

DYING_LIMIT_S = 1.5
"""How long a registration waits for workers of an earlier daemon to end (they do within 1 s of losing their socket)."""
POLL_LOCKS_S = 0.01


class Lease:
    """This incarnation's lease, with those who wait for it. `on_renewed` hears each new end, `on_gone` that it never
    comes back.
    """

    def __init__(self, lease: HostLease, on_renewed: Callable[[int], None], on_gone: Callable[[], None]) -> None:
        self._lease = lease
        self._on_renewed = on_renewed
        self._on_gone = on_gone
        self._renewed = asyncio.Event()
        self._clock = ClusterClock()

    @property
    def held(self) -> bool:
        """Ask after the read or the commit and before the release of its result (protocol 1, host 2)."""
        return self._lease.held(boot_ns())

    @property
    def cluster_time(self) -> float:
        """Cluster seconds as last read from an ack; never extrapolated, for marks are judged by it (protocol additions
        12).
        """
        return self._clock.read

    @property
    def cluster_now(self) -> float:
        """Cluster seconds, extrapolated by the boot clock while the lease holds: timers go by it (protocol 1)."""
        return self._clock.at(min(boot_ns(), self._lease.until_ns))

    @property
    def gone(self) -> bool:
        """The incarnation has ended."""
        return self._lease.gone

    @property
    def remaining_s(self) -> float:
        """Seconds left; negative once it lapsed."""
        return (self._lease.until_ns - boot_ns()) / 1e9

    def ack(self, ack: HeartbeatAck) -> None:
        """An acknowledgement from whichever server leads."""
        self._clock.heard(ack.cluster_time, boot_ns())
        if self._lease.ack(Ack(ack.incarnation, ack.sent_at_ns, ack.index, ack.gone)):
            self._on_renewed(self._lease.until_ns)
            self._renewed.set()
        elif self._lease.gone:
            self._on_gone()

    async def wait(self) -> None:
        """Until the lease is held."""
        while not self.held:
            self._renewed.clear()
            await self._renewed.wait()


async def register(links: ServerLinks, request: RegisterHost, locks: DeadLocks, beat: Callable[[], None]) -> None:
    """Registers this incarnation, with proof of the death of earlier ones; then removes what proved it. Repeats until
    it is done.

    The proof is a lock that only the last process of an incarnation gives up (protocol additions 1): an incarnation
    whose lock could not be taken is never named; its lease ends by time.
    """
    await _wait_for_the_dying(locks)
    pause = FIRST_PAUSE_S
    while True:
        locks.poll()
        named = locks.dead
        request.ClearField("dead_incarnations")
        request.dead_incarnations.extend(named)
        # The leader counts silence from its own first commit for a host that it never heard of (protocol 1, leader 4):
        # a heartbeat goes first on the same stream, or a new incarnation would be expired as soon as it is registered.
        beat()
        try:
            if await ask_leader(links, HostFrame(register=request)):
                break
        except TransportError as error:
            log.debug("not registered yet: %s", error)
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_S)
    log.info("registered incarnation %s%s", request.incarnation, f"; proven dead: {', '.join(named)}" if named else "")
    locks.forget(named)


async def release(links: ServerLinks, incarnation: str, lease_s: float) -> None:
    """Ends this incarnation by its own word (rule R, a), so that nobody waits for its lease to end. Asked again while
    servers are there and cannot decide, for as long as that lease would last.

    Raises TimeoutError then.
    """
    pause = FIRST_PAUSE_S
    async with asyncio.timeout(lease_s):
        while links.connected:
            with contextlib.suppress(TransportError):
                if await ask_leader(links, HostFrame(release_host=ReleaseHost(incarnation=incarnation))):
                    return
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)


async def lapsed(lease: Lease, for_s: float) -> None:
    """Until the lease has been over for `for_s` seconds, and those have passed from now on."""
    left = for_s
    while left > 0:
        await asyncio.sleep(left)
        left = lease.remaining_s + for_s


async def bury_late(links: ServerLinks, request: RegisterHost, locks: DeadLocks, beat: Callable[[], None]) -> None:
    """Names incarnations whose last process died after our registration."""
    while locks.waiting:
        await asyncio.sleep(DYING_LIMIT_S / 5)
        locks.poll()
        if locks.dead:
            await register(links, request, locks, beat)


async def _wait_for_the_dying(locks: DeadLocks) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DYING_LIMIT_S
    while not locks.poll() and loop.time() < deadline:  # noqa: ASYNC110 - a lock of the kernel has no event
        await asyncio.sleep(POLL_LOCKS_S)


class FirstBeats:
    """A heartbeat to a leader as soon as it can be reached, and not up to a tick later: until it has heard of this host
    it places nothing here, so agents that are made in the first moments of a cluster would all go to one host.
    """

    def __init__(self, links: ServerLinks, beat: Callable[[], None]) -> None:
        self._links = links
        self._beat = beat
        self._reached: str | None = None

    def look(self) -> None:
        """A link, or who leads, may have changed."""
        leader = self._links.leader if self._links.leader in self._links.connected else None
        if leader != self._reached:
            self._reached = leader
            if leader is not None:
                self._beat()


async def keep_beating(beat: Callable[[], None], tick_s: float) -> None:
    """A heartbeat each tick of the profile. Runs until cancelled."""
    while True:
        beat()
        await asyncio.sleep(tick_s)
