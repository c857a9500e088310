"""HTTP for kubelet and Prometheus: `/livez`, `/readyz`, `/metrics`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web


@dataclass(frozen=True)
class Health:
    """Where the answers come from."""

    live: Callable[[], str]
    """Empty, or why the process must be restarted."""
    ready: Callable[[], str]
    """Empty, or what it waits for."""
    metrics: Callable[[], dict[str, float]]


@asynccontextmanager
async def serve(health: Health, port: int) -> AsyncGenerator[None]:
    """Serve until the block ends. Port 0: do not."""
    if not port:
        yield
        return
    runner = web.AppRunner(_application(health), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host=None, port=port).start()
        yield
    finally:
        await runner.cleanup()


def _application(health: Health) -> web.Application:
    async def live(_: web.Request) -> web.Response:
        return _answer(health.live())

    async def ready(_: web.Request) -> web.Response:
        return _answer(health.ready())

    async def metrics(_: web.Request) -> web.Response:
        lines = [f"{name} {value:g}" for name, value in health.metrics().items()]
        return web.Response(text="\n".join(lines) + "\n")

    application = web.Application()
    application.add_routes([web.get("/livez", live), web.get("/readyz", ready), web.get("/metrics", metrics)])
    return application


def _answer(problem: str) -> web.Response:
    return web.Response(text=f"{problem or 'ok'}\n", status=503 if problem else 200)
