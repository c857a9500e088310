"""Who is served next: tenants in turn, each its share of bytes; inside a tenant the higher priority first.

Deficit round robin with debts: a tenant is served while it has credit, pays what it took afterwards, and gets one
quantum each time its turn comes. So tenants with large and with small messages get the same bytes, and nobody has to
say beforehand how much he will take. Debts are kept while the tenant has nothing waiting, until they are paid.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

QUANTUM = 32 * 1024
"""Bytes of a tenant's turn: some hundred small signals."""


class _Tenant(Generic[T]):
    __slots__ = ("credit", "levels", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.credit = 0
        self.levels: dict[int, deque[T]] = {}
        """Priority -> first come, first served."""


class FairQueue(Generic[T]):
    """See the module. After each `pop`, `charge` what was taken."""

    def __init__(self, quantum: int = QUANTUM) -> None:
        self._quantum = quantum
        self._tenants: dict[str, _Tenant[T]] = {}
        self._round: deque[_Tenant[T]] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, tenant: str, priority: int, item: T) -> None:
        """Add at the end of its tenant's priority."""
        found = self._tenants.get(tenant)
        if found is None:
            found = self._tenants[tenant] = _Tenant(tenant)
            self._round.append(found)
        level = found.levels.get(priority)
        if level is None:
            level = found.levels[priority] = deque()
        level.append(item)
        self._count += 1

    def pop(self) -> T | None:
        """The next one; None: nothing waits."""
        if not self._count:
            return None
        while True:
            tenant = self._round[0]
            if tenant.levels and tenant.credit > 0:
                return self._take(tenant)
            self._turn_ends(tenant)

    def charge(self, tenant: str, size: int) -> bool:
        """Let a tenant pay for what was popped, `size` in bytes; False: its turn is over."""
        found = self._tenants.get(tenant)
        if found is None:
            return True
        found.credit -= size
        return found.credit > 0

    def _take(self, tenant: _Tenant[T]) -> T:
        levels = tenant.levels
        priority = max(levels) if len(levels) > 1 else next(iter(levels))
        level = levels[priority]
        item = level.popleft()
        if not level:
            del levels[priority]
        self._count -= 1
        return item

    def _turn_ends(self, tenant: _Tenant[T]) -> None:
        """To the end of the round with its next quantum; out of it, when it wants nothing and owes nothing."""
        tenant.credit = min(tenant.credit, 0) + self._quantum
        if not tenant.levels and tenant.credit >= self._quantum:
            del self._tenants[tenant.name]
            self._round.popleft()
        else:
            self._round.rotate(-1)
