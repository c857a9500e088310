"""A call to a running agent through its host, its state committed on three servers before the reply; one at a time.

    python -m bench.calls [--json] [--runs 2000]

The floor is measured in the same run, interleaved: one write with fdatasync and one echo over a loopback TCP
connection to another process. A durable call cannot be faster than that; it makes three such writes in parallel and
passes six processes.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from bench.harness import NAMESPACE, Line, arguments, emit, local_cluster, percentile, say
from tenure_cli.ports import Cluster
from tenure_cli.remote import RemoteCluster

AGENT = f"{NAMESPACE}/counter"
WARM = 200
BLOCK = 100
"""Calls in a row before as many of the floor: noise hits both."""
RECORD = b"x" * 256
ECHO = """
import asyncio
async def serve(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


async def timed(count: int, work: Callable[[], Awaitable[Any]]) -> list[float]:
    """Milliseconds of each of `count` in a row."""
    times: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        await work()
        times.append((time.perf_counter() - began) * 1000)
    return times


@asynccontextmanager
async def floor() -> AsyncGenerator[Callable[[], Awaitable[None]]]:
    """A coroutine function that does one synced write and one echo."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", ECHO, stdout=asyncio.subprocess.PIPE)
    if process.stdout is None:
        raise RuntimeError("the echo server has no output")
    port = int(await process.stdout.readline())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with tempfile.TemporaryFile() as file:

        async def once() -> None:
            os.write(file.fileno(), RECORD)
            os.fdatasync(file.fileno())
            writer.write(RECORD)
            await reader.readexactly(len(RECORD))

        try:
            yield once
        finally:
            writer.close()
            process.kill()
            await process.wait()


async def measure(calls: int, *, log: bool) -> list[Line]:
    """Durable calls and the floor, in turns; then queries."""
    async with local_cluster(["counter"], log=log) as (_, cluster), floor() as once:
        packed = msgspec.msgpack.encode({"by": 1})
        increment = _caller(cluster, "increment", packed)
        await timed(WARM, increment)
        await timed(WARM, once)
        ours: list[float] = []
        theirs: list[float] = []
        while len(ours) < calls:
            ours += await timed(min(BLOCK, calls - len(ours)), increment)
            theirs += await timed(BLOCK, once)
            say(f"{len(ours)} of {calls} calls, p50 so far {percentile(ours, 0.5):.2f} ms")
        queries = await timed(calls // 2, _caller(cluster, "value", msgspec.msgpack.encode({})))
    name = "floor: one fdatasync and one loopback TCP echo, same run"
    durable = "durable call through a host, sequential"
    return [
        Line(f"{durable}, p50", percentile(ours, 0.5), "ms", ours, name, percentile(theirs, 0.5)),
        Line(f"{durable}, p99", percentile(ours, 0.99), "ms", ours, name, percentile(theirs, 0.99)),
        Line("query through a host, sequential, p50", percentile(queries, 0.5), "ms", queries),
        Line("query through a host, sequential, p99", percentile(queries, 0.99), "ms", queries),
    ]


def _caller(cluster: Cluster, method: str, packed: bytes) -> Callable[[], Awaitable[Any]]:
    """A call straight to the SDK's client, as a program would make it."""
    assert isinstance(cluster, RemoteCluster)
    remote = cluster.remote

    def call() -> Awaitable[Any]:
        return remote.call(AGENT, "by_name", method, packed, timeout_s=30.0)

    return call


def main() -> None:
    """`python -m bench.calls`."""
    given = arguments(__doc__ or "", runs=2000)
    emit(asyncio.run(measure(given.runs, log=given.log)), as_json=given.json)


if __name__ == "__main__":
    main()
