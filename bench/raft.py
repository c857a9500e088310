"""What a committed write of the registry costs, beside Debian's etcd in the same run.

    python -m bench.raft [--json] [--runs 5] [--only write,many,rows,kill] [--no-peer]

Ours: three `tenured server` processes (mTLS, fdatasync), profile Balanced. etcd: three members, default settings, TLS
with client certificates. Both sides take turns within each round, on the same disk. How each side is driven:

* sequential: one client process, one write at a time at the leader. Ours: one row of 256 bytes, changed, on a `Changes`
  stream of framed TLS (asyncio on uvloop); beside it on one of gRPC, and by a unary call. etcd: Put of 256 bytes,
  synchronous stub (the fastest form in Python).
* 64 in flight: the same writes from one client process with one connection. Ours: on one stream. etcd has no streamed
  put: 64 unary calls of asyncio.
* rows: entries of 50 assignments each, proposed at the leader by the leader, as placement does (see bench/rows.py).
* leader kill: kill -9 to the first accepted write at any survivor; two threads knock every 5 ms, deadline 60 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import grpc
import uvloop
from grpc import aio

from bench import etcd
from bench.harness import Line, emit, percentile, say
from bench.servers import Servers, running
from bench.writers import Changes, Framed, each, one_by_one, our_unary, their_unary, their_write
from tenure_api import identity

WRITES = 400
WARM = 50
IN_FLIGHT = 64
BURST_S = 3.0
KNOCK_S = 0.005
DEADLINE_S = 0.06
KILL_LIMIT_S = 20.0
ROWS_S = 120.0
KILL_SETTLE_S = 60.0


# --- sequential -----------------------------------------------------------------------------------------------------


async def sequential(servers: Servers, peer: etcd.Members | None, rounds: int) -> list[Line]:
    """p50 and p99, in rounds that take turns."""
    links: list[list[float]] = []
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    unary: list[list[float]] = []
    leader = await servers.leader()
    other = None
    if peer is not None:
        other = their_unary(peer.channel(await peer.leader()))
        await asyncio.to_thread(one_by_one, other, WARM)
    with servers.channel(leader) as plain:
        call = our_unary(plain)
        async with servers.aio_channel(leader) as channel:
            stream = Changes(channel)
            await each(stream.write, WARM)
            # A loop of its own: gRPC's asyncio may run on one loop only, and uvloop forks, which gRPC's threads forbid.
            runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
            framed = await asyncio.to_thread(runner.run, Framed.open(servers, leader))
            await asyncio.to_thread(runner.run, each(framed.write, WARM))
            await asyncio.to_thread(one_by_one, call, WARM)
            for _ in range(rounds):
                links.append(await asyncio.to_thread(runner.run, each(framed.write, WRITES)))
                ours.append(await each(stream.write, WRITES))
                if other is not None:
                    theirs.append(await asyncio.to_thread(one_by_one, other, WRITES))
                unary.append(await asyncio.to_thread(one_by_one, call, WRITES // 2))
            await stream.close()
            await asyncio.to_thread(runner.run, framed.close())
            await asyncio.to_thread(runner.close)
    name = "committed write, sequential"
    return [
        compare(f"{name}, {how}, p{share}", times, theirs, share / 100)
        for how, times in (("framed stream", links), ("gRPC stream", ours), ("unary call", unary))
        for share in (50, 99)
    ]


def compare(name: str, ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], share: float) -> Line:
    """A line of percentiles: of all calls, with those of each round as runs."""
    pooled = percentile([value for one in ours for value in one], share)
    other = percentile([value for one in theirs for value in one], share) if theirs else None
    return Line(name, pooled, "ms", [percentile(one, share) for one in ours], "etcd put", other)


# --- many in flight -------------------------------------------------------------------------------------------------


async def keep_busy(write: Callable[[], Awaitable[None]]) -> float:
    """Writes a second with IN_FLIGHT under way for BURST_S."""
    done = 0
    begin = time.perf_counter()
    end = begin + BURST_S

    async def worker() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await write()
            done += 1

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return done / (time.perf_counter() - begin)


async def our_many(servers: Servers) -> float:
    """On one stream."""
    async with servers.aio_channel(await servers.leader()) as channel:
        stream = Changes(channel)
        rate = await keep_busy(stream.write)
        await stream.close()
        return rate


async def their_many(peer: etcd.Members) -> float:
    """By unary calls on one channel."""
    async with peer.aio_channel(await peer.leader()) as channel:
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(etcd.PUT)

        async def write() -> None:
            await call(their_write(), timeout=10)

        return await keep_busy(write)


async def in_flight(servers: Servers, peer: etcd.Members | None, rounds: int) -> list[Line]:
    """Writes a second."""
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds):
        ours.append(await our_many(servers))
        if peer is not None:
            theirs.append(await their_many(peer))
    other = percentile(theirs, 0.5) if theirs else None
    return [
        Line(f"committed writes a second, {IN_FLIGHT} in flight", percentile(ours, 0.5), "1/s", ours, "etcd", other)
    ]


# --- rows -----------------------------------------------------------------------------------------------------------


async def rows(directory: Path, rounds: int) -> list[Line]:
    """Assignments a second, in entries of 50, at three processes that are the Raft part of a server (bench/rows.py)."""
    rates = [await one_placement(directory / f"rows-{number}") for number in range(rounds)]
    return [Line("assignment rows a second, in entries of 50", percentile(rates, 0.5), "1/s", rates)]


async def one_placement(directory: Path) -> float:
    """New logs, one leader, one figure."""
    names = ("a", "b", "c")
    ports = dict(zip(names, etcd.free_ports(3), strict=True))
    authority = identity.make_authority("bench.bench")
    processes: list[asyncio.subprocess.Process] = []
    for name in names:
        tls = directory / name / "tls"
        tls.mkdir(parents=True)
        issued = identity.issue_with_key(authority, identity.Role.SERVER, name)
        (tls / "ca.crt").write_bytes(authority.certificate_pem)
        (tls / "tls.crt").write_bytes(issued.certificate_pem)
        (tls / "tls.key").write_bytes(issued.key_pem)
        command = [sys.executable, "-m", "bench.rows", "--name", name, "--tls", str(tls), "--port", str(ports[name])]
        command += ["--data", str(directory / name / "data")]
        for other, port in ports.items():
            command += ["--peer", f"{other}=127.0.0.1:{port}"]
        processes.append(await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE))

    async def told(process: asyncio.subprocess.Process) -> str:
        return (await process.stdout.readline()).decode() if process.stdout is not None else ""

    reading = [asyncio.create_task(told(process)) for process in processes]
    try:
        done, _ = await asyncio.wait(reading, timeout=ROWS_S, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise SystemExit(f"no figure of rows within {ROWS_S:g} s")
        return float(done.pop().result())
    finally:
        for task in reading:
            task.cancel()
        for process in processes:
            with contextlib.suppress(ProcessLookupError):  # one of them may have ended by itself
                process.kill()
            await process.wait()


# --- a leader dies --------------------------------------------------------------------------------------------------


def first_accepted(writes: Sequence[Callable[[], None]], strike: Callable[[], None]) -> float:
    """Milliseconds from the strike to the first write that any of the survivors accepts; each is knocked at by its own
    thread.
    """
    done = threading.Event()
    times: list[float] = []

    def knock(write: Callable[[], None]) -> None:
        while not done.is_set() and time.perf_counter() < begin + KILL_LIMIT_S:
            try:
                write()
            except (grpc.RpcError, SystemExit):
                time.sleep(KNOCK_S)
            else:
                times.append((time.perf_counter() - begin) * 1000)
                done.set()

    begin = time.perf_counter()
    strike()
    threads = [threading.Thread(target=knock, args=(write,)) for write in writes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return min(times, default=KILL_LIMIT_S * 1000)


async def kill_ours(servers: Servers) -> float:
    """One kill; leaves a whole cluster."""
    leader = await servers.leader()
    survivors = [name for name in servers.names if name != leader]
    channels = [servers.channel(name) for name in survivors]
    for channel in channels:  # connected, and both accept before the strike
        our_unary(channel)()
    writes = [our_unary(channel, DEADLINE_S) for channel in channels]
    process = servers.cluster.process(leader)  # started again after a while by the cluster itself
    took = await asyncio.to_thread(first_accepted, writes, lambda: process.signal(signal.SIGKILL))
    for channel in channels:
        channel.close()
    await servers.leader(KILL_SETTLE_S)
    return took


async def kill_theirs(peer: etcd.Members) -> float:
    """The same at etcd."""
    leader = await peer.leader()
    channels = [peer.channel(name) for name in peer.names if name != leader]
    for channel in channels:
        their_unary(channel)()
    writes = [their_unary(channel, DEADLINE_S) for channel in channels]
    took = await asyncio.to_thread(first_accepted, writes, lambda: peer.kill(leader))
    for channel in channels:
        channel.close()
    peer.start(leader)
    await peer.leader()
    await asyncio.sleep(1)
    return took


async def leader_kills(servers: Servers, peer: etcd.Members | None, count: int) -> list[Line]:
    """p50 and worst."""
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(count):
        ours.append(await kill_ours(servers))
        if peer is not None:
            theirs.append(await kill_theirs(peer))
        say(f"leader kill {number + 1} of {count}: {ours[-1]:.0f} ms, etcd {theirs[-1] if theirs else 0:.0f} ms")
    name = "leader kill -9 to the next accepted write"
    middle = percentile(theirs, 0.5) if theirs else None
    return [
        Line(f"{name}, p50", percentile(ours, 0.5), "ms", ours, "etcd", middle),
        Line(f"{name}, worst of {count}", max(ours), "ms", ours, "etcd", max(theirs) if theirs else None),
    ]


# --- all of it ------------------------------------------------------------------------------------------------------


async def measure(given: argparse.Namespace, directory: Path) -> list[Line]:
    """All lines that were asked for."""
    lines: list[Line] = []
    async with running(directory / "ours", log=given.log) as servers:
        peer = None if given.no_peer else await etcd.Members(directory / "etcd").__aenter__()
        try:
            if "write" in given.only:
                lines += await sequential(servers, peer, given.runs)
            if "many" in given.only:
                lines += await in_flight(servers, peer, given.runs)
            if "rows" in given.only:
                lines += await rows(directory, min(3, given.runs))
            if "kill" in given.only:
                lines += await leader_kills(servers, peer, given.kills)
        finally:
            if peer is not None:
                await peer.__aexit__()
    return lines


def main() -> None:
    """`python -m bench.raft`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--runs", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--kills", type=int, default=30, help="leader kills (default: 30)")
    parser.add_argument("--only", default="write,many,rows,kill", type=lambda text: text.split(","))
    parser.add_argument("--no-peer", action="store_true", help="ours alone")
    parser.add_argument("--log", action="store_true", help="print the processes' logs to standard error")
    given = parser.parse_args()
    if not given.no_peer and etcd.installed() is None:
        raise SystemExit("etcd and etcdctl are not installed (apt-get install etcd-server etcd-client); or --no-peer")
    with tempfile.TemporaryDirectory(prefix="tenure-bench-raft-") as directory:
        emit(asyncio.run(measure(given, Path(directory))), as_json=given.json)


if __name__ == "__main__":
    main()
