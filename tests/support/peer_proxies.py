"""Servers whose streams to each other run through proxies of this process, so that a test can cut a direction."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Self

from local_servers import LocalServers, free_ports


class Line:
    """The road from one server to another. Closed, it stalls: bytes wait, connections stand, nobody gets a reset."""

    def __init__(self, port: int, target: int) -> None:
        self.port, self.target = port, target
        self.open = asyncio.Event()
        self.open.set()
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.open.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            pump = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                await self.open.wait()
                sink.write(data)
                await sink.drain()
        sink.close()


@dataclass
class ProxiedServers(LocalServers):
    """LocalServers with a Line for each ordered pair."""

    lines: dict[tuple[str, str], Line] = field(default_factory=dict[tuple[str, str], Line])

    async def __aenter__(self) -> Self:
        pairs = [(a, b) for a in self.servers for b in self.servers if a != b]
        for pair, port in zip(pairs, free_ports(len(pairs)), strict=True):
            self.lines[pair] = Line(port, self.servers[pair[1]].raft_port)
            await self.lines[pair].start()
        return await super().__aenter__()

    async def stop_lines(self) -> None:
        """After the servers have gone."""
        for line in self.lines.values():
            await line.stop()

    def arguments(self, name: str) -> list[str]:
        flags = super().arguments(name)
        for other in self.servers.values():
            if other.name != name:
                place = flags.index(f"{other.name}=127.0.0.1:{other.raft_port}")
                flags[place] = f"{other.name}=127.0.0.1:{self.lines[name, other.name].port}"
        return flags

    def cut(self, source: str, target: str) -> None:
        """Nothing from `source` reaches `target` on the streams that it dialled."""
        self.lines[source, target].open.clear()

    def isolate(self, name: str) -> None:
        """Nothing to it and nothing from it."""
        for pair in self.lines:
            if name in pair:
                self.cut(*pair)

    def heal(self) -> None:
        """All lines are open again; what stalled arrives late."""
        for line in self.lines.values():
            line.open.set()
