"""`tenured server`: flags, logs, signals, exit status."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sys

import uvloop

from tenure_api.identity import IdentityError
from tenured.config import ServerConfig, server_config
from tenured.flags import ConfigError
from tenured.logs import set_up
from tenured.raft import RaftError
from tenured.server.process import Server, StartError
from tenured.storage import StorageError
from tenured.transport.errors import TransportError

_log = logging.getLogger(__name__)

_STOP_WITHIN_S = 8.0
"""After SIGTERM; well within a pod's grace period."""


def main(arguments: list[str]) -> int:
    """Run until SIGTERM or SIGINT (status 0), a fatal error (1), or a flag that makes no sense (2)."""
    try:
        config = server_config(arguments)
    except ConfigError as error:
        print(f"tenured server: {error}", file=sys.stderr)  # noqa: T201 - logs are not set up yet
        return 2
    set_up(config.name, config.log_format)
    # Two threads write to disks beside the loop; by default each may wait 5 ms for the interpreter.
    sys.setswitchinterval(0.0005)
    return uvloop.run(_serve(config))


async def _serve(config: ServerConfig) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        server = Server(config)
    except (StartError, IdentityError, TransportError) as error:
        _log.critical("cannot start: %s", error)
        return 1
    status = 0
    try:
        await server.start()
        gc.freeze()  # what exists now lives as long as the process: collections need not look at it
        server.failed.add_done_callback(lambda _: stopping.set())
        await stopping.wait()
        if server.failed.done():
            _log.critical("this server has failed: %s", server.failed.result())
            status = 1
    except (StartError, StorageError, RaftError, TransportError, OSError) as error:
        _log.critical("cannot start: %s", error)
        status = 1
    await _stop(server)
    return status


async def _stop(server: Server) -> None:
    _log.info("stops")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_STOP_WITHIN_S):
            await server.stop()
