"""Two couriers over wires in memory, which a test may cut, silence or hold back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from couriers import Host

from tenured.transport.errors import NotConnected


class MemoryWire:
    """One side of a connection in memory; a test may stop it from passing frames."""

    def __init__(self) -> None:
        self.peer: MemoryWire
        self.on_frame: Callable[[bytes], None] = lambda _: None
        self.on_lost: Callable[[], None] = lambda: None
        self.on_writable: Callable[[], None] = lambda: None
        self.writable = True
        self.over = self.silent = False
        self.sent: list[bytes] = []

    def send(self, frame: bytes) -> bool:
        if self.over:
            return False
        self.sent.append(frame)
        if not self.silent:
            asyncio.get_running_loop().call_soon(self.peer.take, frame)
        return True

    def take(self, frame: bytes) -> None:
        if not self.over:
            self.on_frame(frame)

    def cut(self) -> None:
        for side in (self, self.peer):
            if not side.over:
                side.over = True
                asyncio.get_running_loop().call_soon(side.on_lost)

    def close(self) -> None:
        asyncio.get_running_loop().call_soon(self.cut)


class Net:
    """All hosts, by name."""

    def __init__(self) -> None:
        self.accept: dict[str, Callable[[str, MemoryWire], None]] = {}
        self.dialled: list[tuple[str, str, MemoryWire]] = []
        self.changed = asyncio.Condition()

    def wires(self, own: str) -> MemoryWires:
        return MemoryWires(self, own)


class MemoryWires:
    """Of one host."""

    port = 1

    def __init__(self, net: Net, own: str) -> None:
        self.net, self.own = net, own

    async def dial(self, host: str, address: str) -> MemoryWire:
        if host not in self.net.accept:
            raise NotConnected(f"{host} is not there")
        near, far = MemoryWire(), MemoryWire()
        near.peer, far.peer = far, near
        self.net.dialled.append((self.own, host, near))
        self.net.accept[host](self.own, far)
        async with self.net.changed:
            self.net.changed.notify_all()
        return near

    async def listen(self, accept: Callable[[str, MemoryWire], None]) -> None:
        self.net.accept[self.own] = accept

    async def stop(self) -> None:
        self.net.accept.pop(self.own, None)


class Scene:
    """Host a, which sends to agents of b; b's agents are 50 to 59."""

    def __init__(self) -> None:
        self.net = Net()
        self.a = Host("a", self.net.wires("a"))
        self.b = Host("b", self.net.wires("b"))
        self.hosts = [self.a, self.b]

    async def start(self) -> None:
        await self.a.courier.start()
        await self.b.courier.start()
        self.a.read((self.a, self.b), {str(uid): self.b for uid in range(50, 60)})

    @property
    def wire(self) -> MemoryWire:
        return self.net.dialled[-1][2]

    async def dialled(self, times: int) -> MemoryWire:
        async with asyncio.timeout(10), self.net.changed:
            await self.net.changed.wait_for(lambda: len(self.net.dialled) >= times)
        return self.wire


@asynccontextmanager
async def two_hosts() -> AsyncIterator[Scene]:
    """Both couriers run."""
    made = Scene()
    await made.start()
    yield made
    for host in made.hosts:
        await host.courier.stop()


async def turns(number: int = 20) -> None:
    """Lets the loop turn: everything here takes a bounded number of turns."""
    for _ in range(number):
        await asyncio.sleep(0)
