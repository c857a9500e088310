"""Three real registers (SQLite files with their writer threads) behind the links of a host, in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tenure_proto.v1 import hostlink_pb2 as wire
from tenured.core.cells import Verdict
from tenured.server.store import _record, _sealed, _write_item, _written
from tenured.storage import Register, SealItem
from tenured.transport.errors import NotConnected

SERVERS = ("s0", "s1", "s2")


class RegisterLinks:
    """What `tenured.host.store.Store` needs of `ServerLinks`. One per host; the registers may be shared."""

    names = SERVERS
    view = 1

    def __init__(self, registers: dict[str, Register]) -> None:
        self.registers = registers
        self.away: set[str] = set()
        self.deaf = False
        """What is asked is done; no answer arrives."""
        self.frames: list[tuple[str, wire.HostFrame]] = []
        self.done = asyncio.Event()
        """Something was done of which no answer arrived."""
        self._tasks: set[asyncio.Task[Any]] = set()

    @classmethod
    async def open(cls, directory: Path) -> dict[str, Register]:
        """Three new registers; close them."""
        registers: dict[str, Register] = {}
        for name in SERVERS:
            register = Register(directory / f"{name}.db")
            await register.open()
            await register.admit()
            registers[name] = register
        return registers

    @property
    def connected(self) -> frozenset[str]:
        return frozenset(SERVERS) - self.away

    def submit(self, server: str, frame: wire.HostFrame, timeout_s: float) -> asyncio.Future[wire.ServerFrame]:
        if server in self.away:
            raise NotConnected(server)
        self.frames.append((server, frame))
        task = asyncio.ensure_future(self._answer(server, frame))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer(self, server: str, frame: wire.HostFrame) -> wire.ServerFrame:
        register = self.registers[server]
        items: Iterable[Any]
        match frame.WhichOneof("body"):
            case "seal":
                asked = [SealItem(item.uid, item.epoch) for item in frame.seal.items]
                sealed = await register.seal_many(asked, with_records=frame.seal.with_records)
                items = [_sealed(each, Verdict.OK) for each in sealed]
                answer = wire.ServerFrame(sealed=wire.SealedMany(items=items))
            case "write":
                written = await register.write_many([_write_item(item) for item in frame.write.items])
                answer = wire.ServerFrame(written=wire.WrittenMany(items=[_written(w, Verdict.OK) for w in written]))
            case _:
                items = [_record(each) for each in await register.read_many(list(frame.read.uids))]
                answer = wire.ServerFrame(records=wire.Records(items=items))
        if self.deaf:
            self.done.set()
            await asyncio.get_running_loop().create_future()
        return answer
