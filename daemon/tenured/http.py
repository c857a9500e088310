"""Health and metrics of servers and hosts over plain HTTP (port 8080): GET, no body, one request a connection. By
hand: a web framework costs every restart 0.3 s.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import TypeAlias

REQUEST_LIMIT = 4096
TIMEOUT_S = 5.0

Page: TypeAlias = Callable[[], tuple[int, str]]
"""Answers (status, text)."""

_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


async def serve(address: str, port: int, pages: Mapping[str, Page]) -> asyncio.Server:
    """Listens. `pages`: path -> page. Raises OSError when the port is taken."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                status, text = _answer(head, pages)
                writer.write(_response(status, text))
                await writer.drain()
        writer.close()

    return await asyncio.start_server(handle, address, port, limit=REQUEST_LIMIT)


def _answer(head: bytes, pages: Mapping[str, Page]) -> tuple[int, str]:
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    if len(words) != 3:
        return 400, "not a request of HTTP/1\n"
    if words[0] not in ("GET", "HEAD"):
        return 405, "only GET\n"
    page = pages.get(words[1].partition("?")[0])
    return page() if page is not None else (404, f"there is {', '.join(pages)}\n")


def _response(status: int, text: str) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
