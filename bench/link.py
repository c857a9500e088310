"""A frame from one process to another and back, by a gRPC stream and by framed TLS: the same frames, the same mTLS.

    python -m bench.link [--json] [--runs 5]

Two processes on uvloop. `ours` is framed TLS (tenure_frames), the peer is a bidirectional stream of grpc.aio
with the daemon's own options, one message a frame. They take turns in each round. Lines: the round trip of one frame at
a time, frames a second there and back with 64 under way, and the processor time of both sides for one such frame.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop
from google.protobuf.wrappers_pb2 import BytesValue
from grpc import aio

from bench import far
from bench.harness import Line, emit, percentile
from tenure_api.identity import Identity, Role
from tenure_frames import FrameStream
from tenured.transport.framed import FrameListener, dial
from tenured.transport.serving import Duplex, Listener, duplex
from tenured.transport.tls import TlsFiles, open_channel

CLUSTER = "bench.bench"
STREAM = "/bench.Link/Stream"
FRAME = b"x" * 300
SINGLE = 1500
UNDER_WAY = 64
BURST_S = 1.5
KINDS = ("framed", "grpc")

Send = Callable[[bytes], object]


# --- the far side ---------------------------------------------------------------------------------------------------


async def serve(kind: str, files: TlsFiles) -> None:
    """Echo until standard input ends. Prints the port, and the processor seconds whenever a line comes in."""
    listener: Listener | None = None
    if kind == "grpc":

        async def echo(_: Identity, stream: Duplex[BytesValue, BytesValue]) -> None:
            async for message in stream:
                await stream.write(message)

        listener = Listener(files, CLUSTER, [duplex(STREAM, BytesValue, echo)], {STREAM: frozenset({Role.SERVER})})
        await listener.start("127.0.0.1", 0)
        port = listener.port
    else:

        def opened(stream: FrameStream) -> None:
            def back(frame: bytes) -> None:
                stream.send(frame)

            stream.on_frame = back

        frames = FrameListener(files, FrameStream, opened)
        await frames.start("127.0.0.1", 0)
        port = frames.port
    await far.tell(port)
    if listener is not None:
        await listener.stop()


# --- the near side --------------------------------------------------------------------------------------------------


class Echo:
    """Frames sent and frames that came back."""

    def __init__(self) -> None:
        self.back: asyncio.Queue[bytes] = asyncio.Queue()
        self.send: Send = lambda _: None


@asynccontextmanager
async def connected(kind: str, port: int, files: TlsFiles) -> AsyncGenerator[Echo]:
    """A connection of that kind."""
    expected, echo = Identity(CLUSTER, Role.SERVER, "far").dns_name, Echo()
    if kind == "framed":
        stream = await dial(f"127.0.0.1:{port}", expected, files, FrameStream)
        stream.on_frame = echo.back.put_nowait
        echo.send = stream.send
        yield echo
        stream.cut()
        return
    async with open_channel(f"127.0.0.1:{port}", expected, files) as channel:
        method: aio.StreamStreamMultiCallable[BytesValue, BytesValue] = channel.stream_stream(
            STREAM, BytesValue.SerializeToString, BytesValue.FromString
        )
        call = method()
        waiting: asyncio.Queue[bytes] = asyncio.Queue()
        echo.send = waiting.put_nowait

        async def write() -> None:
            while True:
                await call.write(BytesValue(value=await waiting.get()))

        async def read() -> None:
            while isinstance(message := await call.read(), BytesValue):
                echo.back.put_nowait(message.value)

        tasks = [asyncio.create_task(write()), asyncio.create_task(read())]
        yield echo
        for task in tasks:
            task.cancel()
        call.cancel()


async def one_by_one(echo: Echo) -> list[float]:
    """Microseconds of each round trip."""
    times: list[float] = []
    for _ in range(SINGLE):
        begin = time.perf_counter()
        echo.send(FRAME)
        await echo.back.get()
        times.append((time.perf_counter() - begin) * 1e6)
    return times


async def many(echo: Echo) -> int:
    """Frames that came back within BURST_S."""
    for _ in range(UNDER_WAY):
        echo.send(FRAME)
    end, done = time.perf_counter() + BURST_S, 0
    while time.perf_counter() < end:
        await echo.back.get()
        done += 1
        echo.send(FRAME)
    for _ in range(UNDER_WAY):
        await echo.back.get()
    return done + UNDER_WAY


async def one_round(kind: str, directory: Path) -> tuple[list[float], float, float]:
    """(round trips in us, frames a second, processor us a frame) of one kind, in a far process of its own."""
    async with (
        far.running("bench.link", kind, directory) as side,
        connected(kind, side.port, TlsFiles(directory / "near")) as echo,
    ):
        singles = await one_by_one(echo)
        before, begin = await side.both_cpu(), time.perf_counter()
        frames = await many(echo)
        rate = frames / (time.perf_counter() - begin)
        used = await side.both_cpu() - before
    return singles, rate, used / frames * 1e6


async def measure(rounds: int, directory: Path) -> list[Line]:
    """All lines."""
    far.write_identities(directory, CLUSTER, Role.SERVER)
    found: dict[str, list[tuple[list[float], float, float]]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind in KINDS:
            found[kind].append(await one_round(kind, directory))

    def line(name: str, unit: str, pick: Callable[[tuple[list[float], float, float]], float]) -> Line:
        ours, theirs = ([pick(one) for one in found[kind]] for kind in KINDS)
        return Line(name, percentile(ours, 0.5), unit, ours, "gRPC stream", percentile(theirs, 0.5))

    return [
        line("frame of 300 bytes there and back, p50", "us", lambda one: percentile(one[0], 0.5)),
        line("frame of 300 bytes there and back, p99", "us", lambda one: percentile(one[0], 0.99)),
        line(f"frames a second there and back, {UNDER_WAY} under way", "1/s", lambda one: one[1]),
        line("processor time of both sides for one of these", "us", lambda one: one[2]),
    ]


def main() -> None:
    """`python -m bench.link`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--runs", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--serve", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--tls", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if given.serve:
        uvloop.run(serve(given.serve, TlsFiles(given.tls)))
        return
    with tempfile.TemporaryDirectory(prefix="tenure-bench-link-") as directory:
        emit(uvloop.run(measure(given.runs, Path(directory))), as_json=given.json)


if __name__ == "__main__":
    main()
