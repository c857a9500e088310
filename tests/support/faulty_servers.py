"""Servers on disks that forget what was not synced, and the faults that crash tests and `tools.soak` make."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from local_servers import ROOT, ROOTS, LocalServers, until
from registry_history import Load

from tools import powercut
from tools.judge import Verdict, judge


def powered(disk: Path, shadow: Path) -> dict[str, str]:
    """The whole environment of a process of ours on such a disk."""
    paths = os.pathsep.join(str(ROOT / part) for part in ROOTS)
    return {**os.environ, "PYTHONPATH": paths, **powercut.environment(disk, shadow)}


@dataclass
class ForgetfulServers(LocalServers):
    """LocalServers whose volumes lose what was not synced when `power_off` kills them."""

    program: tuple[str, ...] = (str(Path(__file__).with_name("small_log_server.py")),)
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    losses: Counter[str] = field(default_factory=Counter[str])

    def disk(self, name: str) -> Path:
        return self.servers[name].directory / "data"

    def shadow(self, name: str) -> Path:
        return self.servers[name].directory / "shadow"

    def environment(self, name: str) -> dict[str, str]:
        return powercut.environment(self.disk(name), self.shadow(name))

    async def start(self, name: str) -> None:
        if not self.shadow(name).exists():
            powercut.fresh(self.disk(name), self.shadow(name))
        await super().start(name)

    async def power_off(self, *names: str) -> None:
        """All of these at once, and what each disk had not synced is gone, or parts of it."""
        for name in names:
            self._process(name).kill()
        for name in names:
            await self._process(name).wait()
            loss = await asyncio.to_thread(powercut.cut, self.disk(name), self.shadow(name), self.rng)
            self.losses += Counter(cuts=1, pages=loss.pages, names=loss.names)

    def fill_disk(self, name: str) -> None:
        """Its next writes fail, the first of them in the middle."""
        (self.shadow(name) / "was-full").unlink(missing_ok=True)
        (self.shadow(name) / "full").touch()

    def empty_disk(self, name: str) -> None:
        """There is room again."""
        (self.shadow(name) / "full").unlink()

    def break_disk(self, name: str) -> None:
        """Its next syncs fail."""
        (self.shadow(name) / "broken").touch()

    def lie(self, name: str) -> None:
        """Its syncs say yes and do nothing: the one disk that nobody can live with."""
        (self.shadow(name) / "lies").touch()

    def mend_disk(self, name: str) -> None:
        (self.shadow(name) / "broken").unlink()


PATIENCE_S = 120.0
"""For a server to start, and for a write to be accepted: on a machine that is loaded many times over."""

Fault = Callable[["Rounds"], Awaitable[None]]


@dataclass
class Rounds:
    """Faults under load, one after the other; each ends with everybody ready. `settle` judges what clients saw."""

    servers: ForgetfulServers
    seed: int = 1
    counts: Counter[str] = field(default_factory=Counter[str])
    recovery_s: list[float] = field(default_factory=list[float])
    found: list[str] = field(default_factory=list[str])
    verdicts: list[Verdict] = field(default_factory=list[Verdict])

    async def prepare(self) -> None:
        """After the servers were started."""
        await self.servers.ready(within_s=PATIENCE_S)
        await self.servers.declare("default")
        self.begin()

    def begin(self) -> None:
        """New clients on new names."""
        self.seed += 1
        self.load = Load(self.servers, seed=self.seed, prefix=f"shop/row{self.seed}")
        self.load.start()

    async def again(self, *names: str) -> None:
        """Start these and wait until they are ready."""
        for name in names:
            await self.servers.start(name)
        await self.servers.ready(*names, within_s=PATIENCE_S)

    async def accepted(self) -> None:
        """Until a write is accepted that began after this, and note how long it took."""
        begun = time.monotonic()
        await self.load.progress(within_s=PATIENCE_S)
        self.recovery_s.append(time.monotonic() - begun)

    async def settle(self) -> None:
        """End the load, read everything everywhere, and judge."""
        await self.load.stop()
        differences = await self.load.look()
        verdict = await asyncio.to_thread(judge, self.load.history)
        self.verdicts.append(verdict)
        self.counts["acknowledged"] += sum(o.outcome not in ("unknown", "absent", "present") for o in self.load.history)
        self.counts["unknown"] += verdict.unknown
        self.found += [f"servers differ: {line}" for line in differences]
        self.found += [f"not linearizable: {key}: {self._history(key)}" for key in verdict.bad]
        self.found += self.load.surprises
        if not verdict.decided:
            self.found.append("the judge ran out of time")

    def _history(self, key: str) -> str:
        return "; ".join(map(str, sorted((o for o in self.load.history if o.key == key), key=lambda o: o.call)))

    # ---- faults --------------------------------------------------------------------------------------------------

    async def kill_leader(self) -> None:
        leader = await self.servers.leader(PATIENCE_S)
        await self.servers.kill(leader)
        await self.accepted()
        await self.again(leader)

    async def kill_follower(self) -> None:
        leader = await self.servers.leader(PATIENCE_S)
        follower = self.servers.rng.choice([name for name in self.servers.servers if name != leader])
        await self.servers.kill(follower)
        await self.accepted()
        await self.again(follower)

    async def kill_all(self) -> None:
        await asyncio.gather(*(self.servers.kill(name) for name in self.servers.servers))
        await self.again(*self.servers.servers)
        await self.accepted()

    async def follower_needs_a_snapshot(self) -> None:
        """A follower is away until the log no longer reaches back to where it was."""
        leader = await self.servers.leader(PATIENCE_S)
        follower = self.servers.rng.choice([name for name in self.servers.servers if name != leader])
        await self.servers.kill(follower)
        newest = self.snapshots(leader)
        for _ in range(4):  # the log is kept back to the older of two
            newest = await self._newer_snapshot(leader, newest)
        await self.accepted()
        await self.again(follower)

    def snapshots(self, name: str) -> list[str]:
        """Names of a server's snapshots, newest first."""
        return sorted((path.name for path in (self.servers.disk(name) / "raft").glob("snapshot-*")), reverse=True)

    async def _newer_snapshot(self, name: str, known: list[str]) -> list[str]:
        async def newer() -> bool:
            return self.snapshots(name)[:1] > known[:1]

        await until(newer, PATIENCE_S, lambda: f"{name} wrote no snapshot after {known}")
        return self.snapshots(name)

    async def freeze_leader(self) -> None:
        """SIGSTOP until somebody else leads; it wakes up in the belief that it does."""
        leader = await self.servers.leader(PATIENCE_S)
        self.servers.freeze(leader)
        await self.accepted()
        self.servers.thaw(leader)
        await self.accepted()
        await self.servers.ready(leader, within_s=PATIENCE_S)

    async def power_off_leader(self) -> None:
        leader = await self.servers.leader(PATIENCE_S)
        await self.servers.power_off(leader)
        await self.accepted()
        await self.again(leader)

    async def power_off_all(self) -> None:
        await self.servers.power_off(*self.servers.servers)
        await self.again(*self.servers.servers)
        await self.accepted()

    async def kill_all_then_power_off_all(self) -> None:
        """What a killed process wrote and did not sync, the next one reads from memory: and must not believe."""
        await asyncio.gather(*(self.servers.kill(name) for name in self.servers.servers))
        await self.again(*self.servers.servers)
        await self.accepted()
        await self.power_off_all()

    async def fill_leaders_disk(self) -> None:
        """It stops with a sentence; the others go on; with room again it comes back."""
        leader = await self.servers.leader(PATIENCE_S)
        self.servers.fill_disk(leader)
        await self._gone(leader)
        await self.accepted()
        self.servers.empty_disk(leader)
        await self.again(leader)

    async def break_leaders_disk(self) -> None:
        """A sync fails: the same."""
        leader = await self.servers.leader(PATIENCE_S)
        self.servers.break_disk(leader)
        await self._gone(leader)
        await self.accepted()
        self.servers.mend_disk(leader)
        await self.again(leader)

    async def break_leaders_disk_then_power_off_all(self) -> None:
        """What a failed sync was to cover is in memory still, where the next process reads it, and on no disk."""
        await self.break_leaders_disk()
        await self.power_off_all()

    async def _gone(self, name: str) -> None:
        process = self.servers.servers[name].process
        assert process is not None
        async with asyncio.timeout(PATIENCE_S):
            status = await process.wait()
        assert status == 1, f"{name} ended with {status}:\n{self.servers.servers[name].log[-2000:]}"


FAULTS: tuple[Fault, ...] = (
    Rounds.kill_leader,
    Rounds.kill_follower,
    Rounds.kill_all,
    Rounds.follower_needs_a_snapshot,
    Rounds.freeze_leader,
    Rounds.power_off_leader,
    Rounds.power_off_all,
    Rounds.kill_all_then_power_off_all,
    Rounds.fill_leaders_disk,
    Rounds.break_leaders_disk,
)
