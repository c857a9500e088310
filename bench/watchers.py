"""How soon a change is seen by all watchers.

    python -m bench.watchers [--json] [--runs 3] [--watchers 100] [--rate 200] [--seconds 5]

One row is changed 200 times a second through one server, while 100 watchers, each on a connection of its own, follow
all rows, a third of them at each of three servers. A change counts from its sending to the moment when the last
watcher has it: its commit is in it. etcd (three members, default settings, TLS) has the same done to it in the same
run, by the same program; its watchers follow all keys. All watchers live in this process, which shares the machine's
two cores with the servers.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from grpc import aio

from bench import etcd, servers
from bench.harness import Line, emit, parser, percentile, say
from tenure_proto.v1 import registry_pb2
from tenure_proto.v1.registry_pb2_grpc import RegistryStub

WATCH = "/tenure.v1.Registry/Watch"
ETCD_WATCH = "/etcdserverpb.Watch/Watch"
CATCH_UP_S = 30.0
CONNECT_S = 0.02
"""Between two watchers: a hundred TLS handshakes at once would time out on a busy machine."""
ANSWER_S = 10.0
ROWS = 64
"""Rows, or keys, that change in turn."""

Change = Callable[[int], Awaitable[int]]
"""Makes the change of that number, and returns its revision."""
Watch = Callable[[int], AsyncIterator[bytes]]
"""The messages of one watcher."""


@dataclass(frozen=True)
class Side:
    """One of the two that are measured."""

    change: Change
    watch: Watch
    revision: Callable[[bytes], int]
    """Of a message: the watcher has seen everything up to there."""


# --- measuring --------------------------------------------------------------------------------------------------------


async def measure(side: Side, watchers: int, rate: int, seconds: float) -> list[float]:
    """Milliseconds from sending each change to its arrival at the last watcher."""
    seen: list[list[tuple[float, bytes]]] = [[] for _ in range(watchers)]
    tasks: list[asyncio.Task[None]] = []
    try:
        for number in range(watchers):
            tasks.append(asyncio.create_task(_follow(side.watch(number), seen[number])))
            await asyncio.sleep(CONNECT_S)
        await _reached(side, await side.change(0), seen, tasks)
        sent = await _drive(side.change, rate, seconds)
        await _reached(side, max(sent), seen, tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    arrivals = [_arrivals([(at, side.revision(data)) for at, data in messages], sorted(sent)) for messages in seen]
    return [(max(one[revision] for one in arrivals) - at) * 1000 for revision, at in sent.items()]


async def _follow(messages: AsyncIterator[bytes], seen: list[tuple[float, bytes]]) -> None:
    async for data in messages:
        seen.append((time.monotonic(), data))  # noqa: PERF401 - others read the list meanwhile


async def _reached(
    side: Side, revision: int, seen: Sequence[list[tuple[float, bytes]]], tasks: Sequence[asyncio.Task[None]]
) -> None:
    """Wait until every watcher has that revision. Raises SystemExit when one ended, or it takes too long."""
    end = time.monotonic() + CATCH_UP_S
    for messages, task in zip(seen, tasks, strict=True):
        while not messages or side.revision(messages[-1][1]) < revision:
            if task.done() or time.monotonic() > end:
                raise SystemExit(f"a watcher has not seen revision {revision}: {task}")
            await asyncio.sleep(0.05)


async def _drive(change: Change, rate: int, seconds: float) -> dict[int, float]:
    """Changes at an even pace, whether or not those before are answered; revision -> when it was sent."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    sent: dict[int, float] = {}

    async def one(number: int) -> None:
        at = time.monotonic()
        sent[await change(number)] = at

    tasks: list[asyncio.Task[None]] = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, begun + number / rate - loop.time()))
        tasks.append(asyncio.create_task(one(number)))
    await asyncio.gather(*tasks)
    return sent


def _arrivals(messages: Sequence[tuple[float, int]], revisions: Sequence[int]) -> dict[int, float]:
    """When a watcher first had each revision. Raises SystemExit when it never did."""
    found: dict[int, float] = {}
    left = iter(revisions)
    wanted = next(left, None)
    for at, revision in messages:
        while wanted is not None and wanted <= revision:
            found[wanted] = at
            wanted = next(left, None)
    if wanted is not None:
        raise SystemExit(f"a watcher never saw revision {wanted}")
    return found


# --- the two sides ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def ours(directory: Path, watchers: int) -> AsyncGenerator[Side]:
    """Three servers."""
    async with servers.running(directory) as running:
        leader = await running.leader()
        writer = running.aio_channel(leader)
        stub = RegistryStub(writer)
        channels = [running.aio_channel(running.names[number % 3]) for number in range(watchers)]

        async def change(number: int) -> int:
            answer = await stub.ApplyAgents(
                servers.apply_request(number % ROWS, number + 1), timeout=ANSWER_S, wait_for_ready=True
            )
            return int(answer.revision)

        def watch(number: int) -> AsyncIterator[bytes]:
            method: aio.UnaryStreamMultiCallable[registry_pb2.WatchRequest, bytes] = channels[number].unary_stream(
                WATCH, registry_pb2.WatchRequest.SerializeToString, None
            )
            return method(registry_pb2.WatchRequest(), wait_for_ready=True).__aiter__()

        yield Side(change, watch, lambda data: int(registry_pb2.WatchBatch.FromString(data).revision))
        await asyncio.gather(writer.close(), *(channel.close() for channel in channels))


@asynccontextmanager
async def theirs(directory: Path, watchers: int) -> AsyncGenerator[Side]:
    """Three members of etcd."""
    async with etcd.Members(directory) as members:
        writer = members.aio_channel(await members.leader())
        put: aio.UnaryUnaryMultiCallable[bytes, bytes] = writer.unary_unary(etcd.PUT, None, None)
        channels = [members.aio_channel(members.names[number % 3]) for number in range(watchers)]

        async def change(number: int) -> int:
            key = f"agent-{number % ROWS}".encode()
            request = etcd.put_request(key, number.to_bytes(256, "big"))
            return header_revision(await put(request, timeout=ANSWER_S, wait_for_ready=True))

        def watch(number: int) -> AsyncIterator[bytes]:
            method: aio.StreamStreamMultiCallable[bytes, bytes] = channels[number].stream_stream(ETCD_WATCH, None, None)
            return method(_asking(), wait_for_ready=True).__aiter__()

        yield Side(change, watch, header_revision)
        await asyncio.gather(writer.close(), *(channel.close() for channel in channels))


async def _asking() -> AsyncIterator[bytes]:
    """WatchRequest{create_request = 1: {key = 1: "\\0", range_end = 2: "\\0"}}: all keys. The stream stays open."""
    yield b"\x0a\x06\x0a\x01\x00\x12\x01\x00"
    await asyncio.Event().wait()


def header_revision(message: bytes) -> int:
    """The revision in the header (field 1, there field 3) of what etcd answers."""
    header = _fields(message).get(1, b"")
    revision = _fields(header if isinstance(header, bytes) else b"").get(3, 0)
    return revision if isinstance(revision, int) else 0


def _fields(message: bytes) -> dict[int, int | bytes]:
    """Fields of a message by number: varints, and bytes. The last of several counts."""
    found: dict[int, int | bytes] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value, at = _varint(message, at)
        if tag & 7 == 2:
            found[tag >> 3] = message[at : at + value]
            at += value
        else:
            found[tag >> 3] = value
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


# --- the bench --------------------------------------------------------------------------------------------------------


async def run(runs: int, watchers: int, rate: int, seconds: float) -> list[Line]:
    """Both sides in turn."""
    mine: list[list[float]] = []
    peers: list[list[float]] = []
    version = etcd.installed()
    for number in range(runs):
        for side, found in ((ours, mine), *(((theirs, peers),) if version else ())):
            with tempfile.TemporaryDirectory(prefix="tenure-bench-") as directory:
                async with side(Path(directory) / "cluster", watchers) as measured:
                    found.append(await measure(measured, watchers, rate, seconds))
            say(f"run {number + 1}: {side.__name__} p99 {percentile(found[-1], 0.99):.1f} ms")
    lines: list[Line] = []
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        text = f"change sent to seen by all of {watchers} watchers, {rate} changes/s, {name} (worst run)"
        values = [percentile(one, share) for one in mine]
        peer = [percentile(one, share) for one in peers]
        lines.append(
            Line(text, max(values), "ms", values, peer=version or "no etcd here", theirs=max(peer) if peer else None)
        )
    return lines


def main() -> None:
    """Run, and print lines."""
    made = parser("How soon a change is seen by all watchers.", 3)
    made.add_argument("--watchers", type=int, default=100, help="how many (default: 100)")
    made.add_argument("--rate", type=int, default=200, help="changes a second (default: 200)")
    made.add_argument("--seconds", type=float, default=5.0, help="of each run (default: 5)")
    options = made.parse_args()
    lines = asyncio.run(run(options.runs, options.watchers, options.rate, options.seconds))
    emit(lines, as_json=options.json)


if __name__ == "__main__":
    main()
