"""What one committed command costs: three servers in one process, their real logs on disk, streams in memory.

    python -m bench.raft [--json] [--count N] [--size BYTES] [--directory DIR]

Prints p50 and p99 of `propose` in milliseconds, one after the other on the leader and on a follower, commands a second
with 200 under way, the longest delay of the event loop, and what one fdatasync of that size takes here.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path

from tenured.raft import Applied, Consensus, RaftConfig

NAMES = ("a", "b", "c")
UNDER_WAY = 200
TIMEOUT_S = 30.0


class Counter:
    """A state machine that does nothing."""

    def apply(self, index: int, _command: bytes) -> bytes:
        return str(index).encode()

    def snapshot(self) -> bytes:
        return b""

    def restore(self, data: bytes) -> None:
        """There is no state."""


class Memory:
    """PeerLink: a frame arrives in the next turn of the loop."""

    def __init__(self, servers: dict[str, Consensus], name: str) -> None:
        self.servers, self.name = servers, name

    def send(self, peer: str, frame: bytes) -> bool:
        asyncio.get_running_loop().call_soon(self.servers[peer].received, self.name, frame)
        return True


class Watch:
    """The longest time that the loop did not come round."""

    def __init__(self) -> None:
        self.worst_ms = 0.0
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._look()

    def _look(self) -> None:
        now = self._loop.time()
        self.worst_ms = max(self.worst_ms, (now - self._last) * 1000)
        self._last = now + 0.001
        self._loop.call_later(0.001, self._look)


async def start(directory: Path) -> dict[str, Consensus]:
    """Three servers that have elected a leader."""
    servers: dict[str, Consensus] = {}
    changed = asyncio.Event()
    for name in NAMES:
        others = tuple(n for n in NAMES if n != name)
        config = RaftConfig(name, others, directory / name, election_min_s=0.3, election_max_s=0.6)
        servers[name] = Consensus(config, Counter(), Memory(servers, name))
        servers[name].on_role = lambda _: changed.set()
    for server in servers.values():
        await server.start()
    for name, server in servers.items():
        for other in NAMES:
            if other != name:
                server.connected(other)
    while not all(server.role().ready for server in servers.values()):
        changed.clear()
        await changed.wait()
    return servers


async def one_by_one(server: Consensus, count: int, command: bytes) -> list[float]:
    """Milliseconds of each call, sorted."""
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        outcome = await server.propose(command, TIMEOUT_S)
        times.append((time.perf_counter() - begin) * 1000)
        if not isinstance(outcome, Applied):
            raise SystemExit(f"a proposal ended as {outcome}")
    return sorted(times)


async def many(server: Consensus, count: int, command: bytes) -> float:
    """Commands per second with UNDER_WAY at a time."""
    gate = asyncio.Semaphore(UNDER_WAY)

    async def one() -> None:
        async with gate:
            outcome = await server.propose(command, TIMEOUT_S)
            if not isinstance(outcome, Applied):
                raise SystemExit(f"a proposal ended as {outcome}")

    begin = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    return count / (time.perf_counter() - begin)


def syncs(directory: Path, count: int, size: int) -> list[float]:
    """Milliseconds of an append with fdatasync, sorted."""
    times = []
    fd = os.open(directory / "probe", os.O_WRONLY | os.O_CREAT)
    for _ in range(count):
        begin = time.perf_counter()
        os.write(fd, b"x" * size)
        os.fdatasync(fd)
        times.append((time.perf_counter() - begin) * 1000)
    os.close(fd)
    return sorted(times)


def quantile(times: list[float], q: float) -> float:
    return round(times[min(len(times) - 1, int(len(times) * q))], 3)


async def measure(directory: Path, count: int, size: int) -> dict[str, float]:
    """All figures."""
    command = b"x" * size
    probe = await asyncio.to_thread(syncs, directory, count, size)
    servers = await start(directory)
    leader = next(s for s in servers.values() if s.role().is_leader)
    follower = next(s for s in servers.values() if not s.role().is_leader)
    watch = Watch()
    on_leader = await one_by_one(leader, count, command)
    on_follower = await one_by_one(follower, count, command)
    rate = await many(leader, count * 10, command)
    worst = watch.worst_ms
    for server in servers.values():
        await server.stop()
    return {
        "fdatasync_p50_ms": quantile(probe, 0.5),
        "leader_p50_ms": quantile(on_leader, 0.5),
        "leader_p99_ms": quantile(on_leader, 0.99),
        "follower_p50_ms": quantile(on_follower, 0.5),
        "follower_p99_ms": quantile(on_follower, 0.99),
        "commands_per_s": round(rate),
        "longest_loop_delay_ms": round(worst, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Latency and throughput of consensus on this disk.")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--count", type=int, default=500, help="sequential calls")
    parser.add_argument("--size", type=int, default=300, help="bytes of a command")
    parser.add_argument("--directory", type=Path, default=None, help="where the logs go (a temporary one)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.directory) as directory:
        result = asyncio.run(measure(Path(directory), args.count, args.size))
    if args.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:24} {value}")


if __name__ == "__main__":
    main()
