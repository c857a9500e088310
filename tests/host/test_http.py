"""Health, metrics and logs of a host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tenure_proto.v1.calls_pb2 import LogBatch
from tenured import http
from tenured.host import logs
from tenured.host.metrics import Counter, Histogram, gauge


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A server with one page that is well and one that is not."""
    pages: dict[str, http.Page] = {"/ok": lambda: (200, "fine\n"), "/bad": lambda: (503, "no lease is held\n")}
    server = await http.serve("127.0.0.1", 0, pages)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def ask(port: int, request: bytes) -> bytes:
    """What the server says until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        (b"GET /ok HTTP/1.1", b"HTTP/1.1 200 OK"),
        (b"GET /ok?verbose HTTP/1.1", b"HTTP/1.1 200 OK"),
        (b"GET /bad HTTP/1.1", b"HTTP/1.1 503 Service Unavailable"),
        (b"GET /what HTTP/1.1", b"HTTP/1.1 404 Not Found"),
        (b"POST /ok HTTP/1.1", b"HTTP/1.1 405 Method Not Allowed"),
        (b"nonsense", b"HTTP/1.1 400 Bad Request"),
    ],
)
async def test_answers(port: int, request_line: bytes, expected: bytes) -> None:
    """Probes and scrapes get what they need, everything else a refusal."""
    assert (await ask(port, request_line + b"\r\nHost: x\r\n\r\n")).startswith(expected)


async def test_an_endless_request_ends_the_connection_only(port: int) -> None:
    """Bounded: nothing is kept of it, and the next request is answered."""
    assert await ask(port, b"GET /" + b"x" * 2 * http.REQUEST_LIMIT) == b""
    assert b"fine" in await ask(port, b"GET /ok HTTP/1.1\r\n\r\n")


def test_exposition() -> None:
    """The text format: cumulative buckets, a label, a computed value."""
    histogram = Histogram("t_seconds", "Text.")
    histogram.observe(0.002)
    histogram.observe(100.0)
    lines = list(histogram.lines())
    assert 't_seconds_bucket{le="0.001"} 0' in lines
    assert 't_seconds_bucket{le="0.0025"} 1' in lines
    assert lines[-3:] == ['t_seconds_bucket{le="+Inf"} 2', "t_seconds_sum 100.002000", "t_seconds_count 2"]
    counter = Counter("c_total", "result", "Text.")
    counter.add("ok")
    counter.add("ok")
    assert list(counter.lines())[-1] == 'c_total{result="ok"} 2'
    assert list(gauge("g", "Text.", {"Running": 3.0}, "phase"))[-1] == 'g{phase="Running"} 3'


async def texts(stream: Any) -> list[str]:
    """All lines of a stream."""
    return [line.text async for batch in stream for line in batch.lines]


async def test_logs_keep_the_last_lines_and_cut_long_ones() -> None:
    """500 lines an agent; a line has an end."""
    kept = logs.AgentLogs("h")
    for number in range(logs.KEPT_LINES + 10):
        kept.add("7", "shop/a", 1, "info", f"line {number}")
    assert await texts(kept.read("7", 2, follow=False)) == ["line 508", "line 509"]
    assert len(await texts(kept.read("7", 9999, follow=False))) == logs.KEPT_LINES
    kept.add("7", "shop/a", 1, "info", "x" * 100_000)
    assert len((await texts(kept.read("7", 1, follow=False)))[0]) == logs.MAX_TEXT


async def test_a_follower_hears_what_comes_until_the_agent_leaves() -> None:
    """Then its stream ends; it looks for the agent elsewhere."""
    kept = logs.AgentLogs("h")
    kept.add("7", "shop/a", 1, "info", "before")
    heard: list[LogBatch] = []
    first = asyncio.Event()

    async def follow() -> None:
        async for batch in kept.read("7", 1, follow=True):
            heard.append(batch)
            first.set()

    following = asyncio.ensure_future(follow())
    async with asyncio.timeout(5):
        await first.wait()
        kept.add("7", "shop/a", 1, "info", "after")
        kept.forget("7")
        await following
    assert [line.text for batch in heard for line in batch.lines] == ["before", "after"]
