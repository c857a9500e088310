"""Which workers should live: decisions of the supervisor, without processes or clocks. Times: CLOCK_BOOTTIME, ns."""

from __future__ import annotations

MS = 1_000_000
QUICK_NS = 1_000 * MS
"""A worker that ended sooner than this counts as a quick death."""
FIRST_DELAY_NS = 50 * MS
LONGEST_DELAY_NS = 2_000 * MS


class Fleet:
    """Workers wanted, starting and alive.

    A worker may live only while the daemon is connected and the lease has not passed (protocol additions 4). Before
    the first lease of a connection no turn can come, so workers may start and warm up.
    """

    def __init__(self) -> None:
        self.connected = False
        self.importable = False
        self.wanted = 0
        self.kept: frozenset[int] = frozenset()
        """PIDs that are never one too many: the daemon tries suspects in them."""
        self.lease_until: int | None = None
        self.starting = 0
        self.alive: dict[int, int] = {}
        """PID -> when it started."""
        self._dying: set[int] = set()
        self._delay = 0
        self._not_before = 0

    def allowed(self, now: int) -> bool:
        """True while workers may live."""
        return self.connected and not self.lapsed(now)

    def lapsed(self, now: int) -> bool:
        """True when the lease has passed."""
        return self.lease_until is not None and now >= self.lease_until

    def renew(self, until: int) -> None:
        """A lease came. One that ends earlier than the last is old and changes nothing."""
        self.lease_until = max(until, self.lease_until or 0)

    def connect(self, wanted: int) -> None:
        """A daemon welcomed us. Its lease is another one than that of the daemon before."""
        self.connected, self.wanted, self.lease_until = True, wanted, None

    def disconnect(self) -> None:
        """The daemon is gone, and with it what its workers were for."""
        self.connected = False

    def missing(self, now: int) -> int:
        """How many workers to start now."""
        if not self.allowed(now) or not self.importable or now < self._not_before:
            return 0
        return max(0, self.wanted - len(self.alive) - self.starting)

    def surplus(self, now: int) -> list[int]:
        """Which workers to kill now: all when they may not live, else the youngest beyond what is wanted. Those that
        are being killed are neither counted nor named.
        """
        living = [pid for pid in self.alive if pid not in self._dying]
        if not self.allowed(now):
            return living
        many = max(0, len(living) - self.wanted)
        spare = [pid for pid in living if pid not in self.kept]
        return sorted(spare, key=lambda pid: self.alive[pid], reverse=True)[:many]

    def started(self, pid: int, now: int) -> None:
        """A worker that was asked for exists."""
        self.starting = max(0, self.starting - 1)
        self.alive[pid] = now

    def killed(self, pid: int) -> None:
        """It was sent SIGKILL, and is not reaped yet."""
        self._dying.add(pid)

    def ended(self, pid: int, now: int, *, by_us: bool) -> bool:
        """A process ended; True if it was a worker. One that ends by itself right after its start delays the next."""
        self._dying.discard(pid)
        born = self.alive.pop(pid, None)
        if born is None:
            return False
        if by_us or now - born >= QUICK_NS:
            self._delay = 0
        else:
            self._delay = min(LONGEST_DELAY_NS, self._delay * 2 or FIRST_DELAY_NS)
        self._not_before = now + self._delay
        return True

    def wake_at(self, now: int) -> int | None:
        """When something is to be done without an event; None: never."""
        times: list[int] = []
        if self.alive and self.lease_until is not None and now < self.lease_until:
            times.append(self.lease_until)
        if self._not_before > now and self.allowed(now) and self.importable:
            times.append(self._not_before)
        return min(times, default=None)
