"""What a simulated cluster is, as far as stories and `simulate` need it (the daemon's `tenured.simulation.story`)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol


class Faults(Protocol):
    """What a story does to its cluster. Hosts are "h0", "h1", …, servers "s0", "s1", …; times in seconds of the story.

    What is not said to end lasts until `heal`. Each raises ValueError for a name that there is not.
    """

    def kill_host(self, host: str, *, back_after: float | None = None) -> None:
        """Cut the power of a host: its daemon and its workers are gone, and nobody says so."""

    def start_host(self, host: str) -> None:
        """Give a host its power back: an empty pod starts there."""

    def kill_daemon(self, host: str) -> None:
        """SIGKILL to a host's daemon; its supervisor starts another one."""

    def kill_worker(self, host: str) -> None:
        """SIGKILL to the process that runs the agents; another one is started."""

    def drain(self, host: str) -> None:
        """SIGTERM to a host's daemon: it hands its agents over, and a new one starts."""

    def kill_server(self, server: str, *, power: bool = False, back_after: float | None = 1.0) -> None:
        """Kill a server; with `power`, what its disk had not synced is gone, too."""

    def start_server(self, server: str) -> None:
        """Start a server again."""

    def slow_disk(self, server: str, *, sync: float = 0.05, lasts: float | None = None) -> None:
        """Let each sync of a server's disk take up to so long."""

    def full_disk(self, server: str, *, lasts: float = 1.0) -> None:
        """Let a server's writes fail."""

    def freeze(self, name: str, lasts: float) -> None:
        """Let everything on a host or a server stand still, and go on then as if nothing had been."""

    def step_clock(self, name: str, seconds: float) -> None:
        """Set the wall clock of a host or a server forward, or back."""

    def partition(self, names: Sequence[str], others: Sequence[str] = (), *, lasts: float | None = None) -> None:
        """Let nothing pass between these hosts and servers and `others`; none: everybody else, the story included."""

    def slow_link(self, source: str, target: str, *, factor: float = 50.0, lasts: float | None = None) -> None:
        """Let messages from one machine to another take so many times as long."""

    def heal(self) -> None:
        """Mend everything (networks, disks), start what is down, and let nothing go wrong by chance any more."""


class Row(Protocol):
    """An agent as the cluster has it on record."""

    @property
    def uid(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def ready(self) -> bool: ...
    @property
    def hibernation(self) -> object | None: ...


class World(Protocol):
    """`tenured.simulation.story.World`, as far as it is needed here."""

    @property
    def faults(self) -> Faults: ...
    @property
    def now_s(self) -> float: ...
    @property
    def server_names(self) -> list[str]: ...
    @property
    def hosts(self) -> Mapping[str, object]: ...
    @property
    def trace(self) -> int: ...
    def play(self, story: Callable[[], Coroutine[Any, Any, None]], limit_s: float) -> None: ...
    def note(self, who: str, what: str) -> None: ...
    def transcript(self) -> list[str]: ...
    def channel(self, machine: str) -> Any: ...
    def row(self, agent: str) -> Row | None: ...
    def leader(self) -> str | None: ...
    def unsettled(self) -> str: ...
    def committed(self, agent: str) -> tuple[list[str], bytes] | None: ...
    def acknowledged_before(self, agent: str) -> tuple[str, list[str]]: ...
    def answered(self, reply: bytes, epoch: int, before: tuple[str, list[str]]) -> tuple[bytes, bool]: ...
    def refused(self, call: str) -> None: ...
