"""Whether hosts have found this server since it started: readiness waits for it.

Whoever replaces servers one after the other (the operator's roll, `kubectl drain` under a PodDisruptionBudget) takes
the next one when this one is Ready. A pod that begins anew has another address, of which the other servers hear from
itself, and hosts by the cluster's DNS, later: a host that did not reach it yet would be left with one server of three,
and write nothing.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from tenured.core.model import Host
from tenured.core.profile import NS

WAIT_NS = 10 * NS
"""For all of them together: twice the time for which CoreDNS usually names an address that is no more. A host that
cannot reach this server at all must not keep it out of service.
"""


class Reached:
    """Of one start of a server. Times are nanoseconds of the boot clock."""

    def __init__(self) -> None:
        self._since: int | None = None
        self._done = False

    def missing(self, now: int, hosts: Iterable[Host], linked: Container[str]) -> list[str]:
        """Name the hosts in service that have no link here yet, sorted; none any more once all had one, or time is up.

        Ask when the registry is known. `linked`: names of hosts with a link.
        """
        if self._done:
            return []
        self._since = now if self._since is None else self._since
        names = {host.name for host in hosts if host.alive and host.ready and not host.suspect}
        waiting = sorted(name for name in names if name not in linked)
        self._done = not waiting or now - self._since >= WAIT_NS
        return [] if self._done else waiting
