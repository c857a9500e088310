"""Cutting a host of a local cluster off, as a failed switch or a power cut does: nothing that it sends arrives.

Every host runs in a control group of its own; a rule of the kernel drops what sockets of that group send (so also the
acknowledgements of TCP: to the others the host is gone), and, for both ways, what is sent to its ports. Needs root,
iptables and cgroup v2.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

GROUPS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
RULES_PER_PORTS = 15
"""Ports that one rule can name."""


class CannotCut(Exception):
    """This machine does not allow it; the message says why."""


def why_not() -> str:
    """Empty when hosts can be cut off here."""
    if os.geteuid() != 0:
        return "cutting hosts off needs root"
    if shutil.which("iptables") is None:
        return "cutting hosts off needs iptables"
    return "" if _root() is not None else "cutting hosts off needs cgroup v2"


def _root() -> Path | None:
    return next((path for path in GROUPS if (path / "cgroup.procs").exists()), None)


class Cage:
    """One host's control group. Sockets belong to the group in which they were made: put the process in before."""

    def __init__(self, name: str) -> None:
        root = _root()
        if root is None:
            raise CannotCut(why_not())
        self._name = f"tenure-bench-{os.getpid()}-{name}"
        self._path = root / self._name
        self._path.mkdir(exist_ok=True)
        self._rules: list[list[str]] = []

    def take(self, pid: int) -> None:
        """Move one process in; what it starts from now on is in as well."""
        (self._path / "cgroup.procs").write_text(str(pid))

    def pids(self) -> list[int]:
        """Everything that runs in it."""
        return [int(word) for word in (self._path / "cgroup.procs").read_text().split()]

    def cut(self, *, both_ways: bool = True) -> None:
        """Drop what it sends; with `both_ways` also what is sent to it. Raises CannotCut."""
        self._add(["OUTPUT", "-m", "cgroup", "--path", self._name, "-j", "DROP"])
        if not both_ways:
            return
        ports = sorted({port for pid in self.pids() for port in _ports(pid)})
        for at in range(0, len(ports), RULES_PER_PORTS):
            some = ",".join(map(str, ports[at : at + RULES_PER_PORTS]))
            self._add(["INPUT", "-p", "tcp", "-m", "multiport", "--dports", some, "-j", "DROP"])

    def heal(self) -> None:
        """Let everything through again."""
        while self._rules:
            _iptables(["-D", *self._rules.pop()])

    def close(self) -> None:
        """Heal, and remove the group if nothing runs in it."""
        self.heal()
        with contextlib.suppress(OSError):
            self._path.rmdir()

    def _add(self, rule: list[str]) -> None:
        _iptables(["-I", *rule])
        self._rules.append(rule)


def _iptables(words: Sequence[str]) -> None:
    done = subprocess.run(["iptables", "-w", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotCut(f"iptables {' '.join(words)}: {done.stderr.strip()}")


def _ports(pid: int) -> Iterator[int]:
    """Local TCP ports of one process (proc_pid_fd(5), proc_net(5))."""
    inodes: set[str] = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                target = str(link.readlink())
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[9] in inodes:
                yield int(words[1].rpartition(":")[2], 16)
