"""Signals from one host process to another, one way, into the receivers' mailboxes: the courier of the daemon.

    python -m bench.signals [--json] [--runs 5]

Two processes on uvloop, mTLS between them, 64 senders and 64 receivers, bodies of 200 bytes. Each sender keeps 64
signals unsettled: once a turn of its loop it forgets what was settled and releases as many, as commits in batches do.
The receiving side takes each signal into its agent's mailbox and answers it in the next turn of the loop. Only what was
settled counts. Beside it, in turns, the floor: framed TLS alone, 64 signals in each frame, encoded and decoded, and
nothing else. Lines: signals a second, processor time of both sides for one, and how long one signal alone takes until
it is settled.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench import far
from bench.harness import Line, emit, percentile
from tenure_api.identity import Identity, Role
from tenure_frames import FrameStream
from tenure_proto.v1.registry_pb2 import AgentRow, AgentSpec, HostRow, WatchBatch
from tenured.core import signalframes
from tenured.core.signalframes import Batch
from tenured.core.signals import Answer, Settled, Signal, Verdict
from tenured.host.courier import Courier, Outbound
from tenured.host.metrics import SignalMetrics
from tenured.host.mirror import Mirror
from tenured.transport.framed import FrameListener, dial
from tenured.transport.signals import FramedWires
from tenured.transport.tls import TlsFiles

CLUSTER = "bench.bench"
NEAR, FAR = "near.1", "far.1"
AGENTS = 64
UNSETTLED = 64
BODY = b"x" * 200
BURST_S = 2.0
SINGLE = 1000
APPLIED = Settled(Verdict.APPLIED)


@dataclass(frozen=True)
class Entry:
    """Of an outbox."""

    n: int
    receiver: str
    born: float = 1.0
    body: bytes = BODY
    void: bool = False
    priority: int = 0


def courier(own: str, files: TlsFiles, port: int) -> tuple[Courier, Mirror]:
    """A host's courier, whose registry says that the receivers are at the far host."""
    mirror = Mirror(own)
    made = Courier(own, mirror, FramedWires(CLUSTER, files, "127.0.0.1", 0), SignalMetrics(), random.random)
    batch = WatchBatch(snapshot=True, synced=True, revision=1000)
    batch.hosts.add().CopyFrom(HostRow(name="far", incarnation=FAR, signals_address=f"127.0.0.1:{port}"))
    for number in range(AGENTS):
        spec = AgentSpec(id=f"bench/r-{number}")
        batch.agents.add().CopyFrom(AgentRow(uid=str(500 + number), epoch=1, incarnation=FAR, host="far", spec=spec))
    mirror.apply(batch)
    return made, mirror


# --- the far side ---------------------------------------------------------------------------------------------------


class Mailboxes:
    """Takes signals; what came in one turn of the loop is answered in the next."""

    def __init__(self) -> None:
        self.taken: dict[str, deque[Signal]] = {}
        self._open: list[asyncio.Future[Answer]] = []
        self._loop = asyncio.get_running_loop()

    def deliver(self, signal: Signal) -> asyncio.Future[Answer]:
        """Into its agent's mailbox."""
        box = self.taken.get(signal.receiver)
        if box is None:
            box = self.taken[signal.receiver] = deque(maxlen=128)
        box.append(signal)
        future: asyncio.Future[Answer] = self._loop.create_future()
        if not self._open:
            self._loop.call_soon(self._commit)
        self._open.append(future)
        return future

    def _commit(self) -> None:
        answered, self._open = self._open, []
        for future in answered:
            future.set_result(APPLIED)


async def serve(kind: str, files: TlsFiles) -> None:
    """Until standard input ends. Prints the port, and processor seconds and signals whenever a line comes in."""
    count = 0
    if kind == "courier":
        made, _ = courier(FAR, files, 0)
        made.bind(Mailboxes().deliver)
        await made.start()
        port = made.port
    else:

        def opened(stream: FrameStream) -> None:
            def took(frame: bytes) -> None:
                nonlocal count
                batch = signalframes.decode_to_receiver(frame)
                assert isinstance(batch, Batch)
                count += len(batch.signals)
                stream.send(b"x")

            stream.on_frame = took

        listener = FrameListener(files, FrameStream, opened)
        await listener.start("127.0.0.1", 0)
        port = listener.port
    await far.tell(port)


# --- the near side --------------------------------------------------------------------------------------------------


class Sender:
    """One agent's outbox: what was settled in a turn is forgotten, and as much released anew."""

    def __init__(self, made: Courier, number: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.out: Outbound = made.open(str(number), f"bench/s-{number}", f"tenant-{number % 4}", self._settled)
        self._receiver = str(500 + number % AGENTS)
        self._done: list[int] = []
        self._n = 0
        self.count = 0
        self.goes_on = True

    def send(self, number: int) -> None:
        """Commit so many more."""
        self.out.release([Entry(self._n + each + 1, self._receiver) for each in range(number)])
        self._n += number

    def _settled(self, n: int, _: Settled) -> None:
        if not self._done:
            self._loop.call_soon(self._commit)
        self._done.append(n)

    def _commit(self) -> None:
        done, self._done = self._done, []
        self.count += len(done)
        self.out.forget(done)
        if self.goes_on:
            self.send(len(done))


Begun = tuple[list[float], Callable[[], int], Callable[[], Awaitable[None]]]
"""(microseconds of single signals, the count of settled ones, which grows from now on, and what ends it)"""


async def by_courier(port: int, files: TlsFiles) -> Begun:
    """The daemon's own."""
    made, _ = courier(NEAR, files, port)
    made.bind(Mailboxes().deliver)
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[None]

    def settled(_n: int, _answer: Settled) -> None:
        answered.set_result(None)

    single, times = made.open("1", "bench/one", "bench", settled), list[float]()
    for n in range(1, SINGLE + 1):
        answered, begin = loop.create_future(), time.perf_counter()
        single.release([Entry(n, "500")])
        await answered
        times.append((time.perf_counter() - begin) * 1e6)
        single.forget([n])
    senders = [Sender(made, 10 + number) for number in range(AGENTS)]
    for sender in senders:
        sender.send(UNSETTLED)
    return times[10:], lambda: sum(sender.count for sender in senders), made.stop


async def by_frames(port: int, files: TlsFiles) -> Begun:
    """The floor: the same signals in frames, nothing decided."""
    count = 0

    def frame() -> bytes:
        return signalframes.encode(
            Batch(1, [Signal("10", "500", each, each - 1, 1.0, BODY, source="bench/s-10") for each in range(64)])
        )

    stream = await dial(f"127.0.0.1:{port}", Identity(CLUSTER, Role.HOST, "far").dns_name, files, FrameStream)
    back: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    stream.on_frame = lambda _: back.set_result(None)
    times: list[float] = []
    for _ in range(SINGLE):
        back, begin = asyncio.get_running_loop().create_future(), time.perf_counter()
        stream.send(signalframes.encode(Batch(1, [Signal("10", "500", 1, 0, 1.0, BODY, source="bench/s-10")])))
        await back
        times.append((time.perf_counter() - begin) * 1e6)

    def again(_: bytes) -> None:
        nonlocal count
        count += 64
        stream.send(frame())

    stream.on_frame = again
    for _ in range(AGENTS):
        stream.send(frame())

    async def end() -> None:
        stream.cut()

    return times[10:], lambda: count, end


async def one_round(kind: str, directory: Path) -> tuple[list[float], float, float]:
    """(us of single signals, signals a second, processor us a signal), in a far process of its own."""
    begin_kind = by_courier if kind == "courier" else by_frames
    async with far.running("bench.signals", kind, directory) as side:
        singles, settled, end = await begin_kind(side.port, TlsFiles(directory / "near"))
        await asyncio.sleep(0.3)  # until the windows are full
        before, first, begin = await side.both_cpu(), settled(), time.perf_counter()
        await asyncio.sleep(BURST_S)
        number = settled() - first
        rate = number / (time.perf_counter() - begin)
        used = await side.both_cpu() - before
        await end()
    return singles, rate, used / number * 1e6


def near(kind: str, directory: Path) -> None:
    """One round, in a process of its own. Prints its figures."""
    singles, rate, used = uvloop.run(one_round(kind, directory))
    print(percentile(singles, 0.5), percentile(singles, 0.99), rate, used, flush=True)


async def measure(rounds: int, directory: Path) -> list[Line]:
    """All lines."""
    far.write_identities(directory, CLUSTER, Role.HOST)
    found: dict[str, list[list[float]]] = {"courier": [], "frames": []}
    for _ in range(rounds):
        for kind, values in found.items():
            command = [sys.executable, "-m", "bench.signals", "--near", kind, "--tls", str(directory)]
            ran = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            printed, _ = await ran.communicate()
            values.append([float(word) for word in printed.split()])

    def line(name: str, unit: str, column: int) -> Line:
        ours, theirs = ([one[column] for one in found[kind]] for kind in found)
        return Line(name, percentile(ours, 0.5), unit, ours, "frames alone", percentile(theirs, 0.5))

    return [
        line("signals a second between two hosts, settled", "1/s", 2),
        line("processor time of both sides for one of these", "us", 3),
        line("one signal alone until it is settled, p50", "us", 0),
        line("one signal alone until it is settled, p99", "us", 1),
    ]


def main() -> None:
    """`python -m bench.signals`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--runs", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--serve", choices=("courier", "frames"), help=argparse.SUPPRESS)
    parser.add_argument("--near", choices=("courier", "frames"), help=argparse.SUPPRESS)
    parser.add_argument("--tls", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if given.serve:
        uvloop.run(serve(given.serve, TlsFiles(given.tls)))
        return
    if given.near:
        near(given.near, given.tls)
        return
    with tempfile.TemporaryDirectory(prefix="tenure-bench-signals-") as directory:
        emit(asyncio.run(measure(given.runs, Path(directory))), as_json=given.json)


if __name__ == "__main__":
    main()
