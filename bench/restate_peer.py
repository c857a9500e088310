"""Restate, the peer of the benches of durable calls: nodes on this machine and a Python service of its own SDK.

It is no dependency of ours. Put it into a directory once, and name that by `--restate` or TENURE_BENCH_RESTATE:

    npm install --prefix DIR @restatedev/restate-server@1.7.12
    python3 -m venv DIR/v && DIR/v/bin/pip install 'restate-sdk[serde]==1.3.0' granian==2.8.7 uvloop

Settings are its defaults (fsync on); three nodes replicate to two of them, which is its least that survives a node. The
client is aiohttp, a connection for each call in flight. Without TLS, which is the peer's advantage.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from bench.harness import say
from bench.usage import children, seconds
from tenure_cli.dev.ports import free_ports

ROOT = Path(__file__).resolve().parent
PORTS = 3
"""Of a node: ingress, admin, and between nodes."""
START_S = 60.0


def option(parser: argparse.ArgumentParser) -> None:
    """Add `--restate`."""
    parser.add_argument(
        "--restate",
        type=Path,
        default=os.environ.get("TENURE_BENCH_RESTATE"),
        help="directory with Restate (see bench/restate_peer.py; default: TENURE_BENCH_RESTATE)",
    )


def found(directory: Path | None) -> Path | None:
    """The directory, if the peer is in it; else None, and a sentence on standard error."""
    if directory is not None and _server(directory) is not None and (directory / "v" / "bin" / "granian").exists():
        return directory
    say(f"no Restate in {directory}: " if directory else "no Restate given (--restate): " + "its column stays empty")
    return None


def _server(directory: Path) -> Path | None:
    return next(directory.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"), None)


class Restate:
    """Running nodes and their service."""

    def __init__(self, home: Path, nodes: int, directory: Path) -> None:
        self._home, self._nodes, self._directory = home, nodes, directory
        self._ports = free_ports(nodes * PORTS + 1)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=30)
        )

    @property
    def seconds(self) -> float:
        """Processor seconds of nodes and service so far."""
        return sum(seconds(pid) for one in self._processes for pid in (one.pid, *children(one.pid)))

    async def call(self, key: str, handler: str = "increment", argument: Any = 1) -> Any:
        """One call, by the first node; None for a handler without an argument. Raises RuntimeError if refused."""
        url = f"http://127.0.0.1:{self._port(0, 0)}/Counter/{key}/{handler}"
        ask = self._session.get(url) if argument is None else self._session.post(url, json=argument)
        async with ask as answer:
            said = await answer.read()
            if answer.status >= 300:
                raise RuntimeError(f"Restate answered {answer.status}: {said[:200]!r}")
            return json.loads(said) if said else None

    async def start(self) -> None:
        """Start everything, register the service, and wait for a first call."""
        for node in range(self._nodes):
            self._start_node(node)
        self._start([str(self._home / "v/bin/granian"), "--interface", "asgi", "--http", "2", "--host", "127.0.0.1",
                     "--port", str(self._ports[-1]), "--no-ws", "restate_service:app"], {}, ROOT)  # fmt: skip
        url = f"http://127.0.0.1:{self._port(0, 1)}/deployments"
        await self._until(lambda: self._register(url))
        await self._until(lambda: self.call("warm"))

    async def _register(self, url: str) -> None:
        async with self._session.post(url, json={"uri": f"http://127.0.0.1:{self._ports[-1]}"}) as answer:
            if answer.status >= 300:
                raise RuntimeError(await answer.text())

    @staticmethod
    async def _until(attempt: Any) -> None:
        async with asyncio.timeout(START_S):
            while True:
                try:
                    await attempt()
                except (aiohttp.ClientError, RuntimeError, TimeoutError):
                    await asyncio.sleep(0.25)
                else:
                    return

    async def stop(self) -> None:
        """Kill everything."""
        await self._session.close()
        for one in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGKILL)
            one.wait()

    def _port(self, node: int, which: int) -> int:
        return self._ports[node * PORTS + which]

    def _start_node(self, node: int) -> None:
        addresses = [f"http://127.0.0.1:{self._port(each, 2)}/" for each in range(self._nodes)]
        settings = {
            "CLUSTER_NAME": "bench",
            "NODE_NAME": f"n{node + 1}",
            "BASE_DIR": str(self._directory / str(node)),
            "BIND_ADDRESS": f"127.0.0.1:{self._port(node, 2)}",
            "ADVERTISED_ADDRESS": addresses[node],
            "INGRESS__BIND_ADDRESS": f"127.0.0.1:{self._port(node, 0)}",
            "ADMIN__BIND_ADDRESS": f"127.0.0.1:{self._port(node, 1)}",
            "LISTEN_MODE": "tcp",
            "DISABLE_TELEMETRY": "true",
            "LOG_FILTER": "warn",
            "AUTO_PROVISION": "true" if node == 0 else "false",
        }
        if self._nodes > 1:
            settings |= {
                "DEFAULT_REPLICATION": "2",
                "METADATA_CLIENT__ADDRESSES": json.dumps(addresses),
                "FORCE_NODE_ID": str(node + 1),
                "ROCKSDB_TOTAL_MEMORY_SIZE": "512MB",
            }
        environment = {f"RESTATE_{name}": value for name, value in settings.items()}
        self._start([str(_server(self._home)), "--no-logo"], environment, self._directory)

    def _start(self, command: list[str], environment: dict[str, str], directory: Path) -> None:
        log = (self._directory / f"log-{len(self._processes)}").open("wb")
        with log:
            self._processes.append(
                subprocess.Popen(
                    command, stdout=log, stderr=subprocess.STDOUT, cwd=directory,
                    env={**os.environ, **environment}, start_new_session=True,
                )
            )  # fmt: skip


@asynccontextmanager
async def running(home: Path | None, nodes: int) -> AsyncGenerator[Restate | None]:
    """So many nodes, gone at the end; None without a home."""
    if home is None:
        yield None
        return
    directory = Path(tempfile.mkdtemp(prefix="tenure-bench-restate-"))
    peer = Restate(home, nodes, directory)
    try:
        await peer.start()
        say(f"Restate runs on {nodes} node{'s' if nodes > 1 else ''}")
        yield peer
    except TimeoutError:
        sys.exit(f"bench: Restate did not start within {START_S:g} s")
    finally:
        await peer.stop()
        shutil.rmtree(directory, ignore_errors=True)
