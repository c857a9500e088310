"""Couriers of hosts in one process: the registry is the test's to write, agents only keep what they get."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from tenure_proto.v1.registry_pb2 import AgentRow, AgentSpec, HostRow, WatchBatch
from tenured.core.signals import Again, Answer, Settled, Signal, Verdict
from tenured.host.arrivals import Answered
from tenured.host.courier import Courier
from tenured.host.gathering import Gathering
from tenured.host.metrics import SignalMetrics
from tenured.host.mirror import Mirror
from tenured.transport.signals import Wires

APPLIED = Settled(Verdict.APPLIED)


@dataclass(frozen=True)
class Entry:
    """Of an outbox."""

    n: int
    receiver: str
    born: float = 1.0
    body: bytes = b"body"
    void: bool = False
    priority: int = 0


class Agents:
    """The receiving end: protocol 3's rules 1 and 2, and refusals that a test asks for."""

    def __init__(self) -> None:
        self.applied: list[tuple[str, str, int]] = []
        """(receiver, sender, n)"""
        self.last: dict[tuple[str, str], int] = {}
        self.refuse: dict[str, Again] = {}
        """Receiver -> what it answers."""
        self.hold: set[str] = set()
        """Receivers that answer nothing until `let_go`."""
        self.held: list[tuple[Signal, Answered]] = []
        self.came: asyncio.Event = asyncio.Event()

    def deliver(self, signal: Signal, answered: Answered) -> None:
        if signal.receiver in self.hold:
            self.held.append((signal, answered))
        else:
            answered(self._take(signal))
        self.came.set()

    def let_go(self) -> None:
        held, self.held = self.held, []
        self.hold.clear()
        for signal, answered in held:
            answered(self._take(signal))

    def _take(self, signal: Signal) -> Answer:
        pair = (signal.receiver, signal.sender)
        if signal.n <= self.last.get(pair, 0):
            return APPLIED
        if signal.receiver in self.refuse:
            return self.refuse[signal.receiver]
        if signal.prev > self.last.get(pair, 0):
            return Again("OutOfOrder")
        self.last[pair] = signal.n
        self.applied.append((signal.receiver, signal.sender, signal.n))
        return APPLIED


class Host:
    """One courier."""

    def __init__(self, name: str, wires: Wires, agents: Agents | None = None, life: int = 1) -> None:
        self.name, self.incarnation = name, f"{name}.{life}"
        self.agents = agents or Agents()
        self.mirror = Mirror(self.incarnation)
        self.metrics = SignalMetrics()
        self.courier = Courier(self.incarnation, self.mirror, wires, self.metrics, lambda: 0.0)
        self.courier.bind(self.agents.deliver, Gathering())
        self.read(snapshot=True, synced=True, revision=100)

    def read(
        self,
        hosts: tuple[Host, ...] = (),
        agents: dict[str, Host | None] | None = None,
        epoch: int = 1,
        gone: tuple[str, ...] = (),
        ended: tuple[str, ...] = (),
        **more: int,
    ) -> None:
        """A batch of the registry: hosts, and which of them holds which uid."""
        batch = WatchBatch(**more)
        for host in hosts:
            address = f"127.0.0.1:{host.courier.port}"
            batch.hosts.append(HostRow(name=host.name, incarnation=host.incarnation, signals_address=address))
        for uid, holder in (agents or {}).items():
            row = AgentRow(uid=uid, epoch=epoch, spec=AgentSpec(id=f"shop/{uid}"))
            if holder is not None:
                row.incarnation, row.host = holder.incarnation, holder.name
            batch.agents.append(row)
        batch.gone_agents.extend(gone)
        for uid in ended:
            batch.agents.append(AgentRow(uid=uid, epoch=epoch, spec=AgentSpec(id=f"shop/{uid}"), ended="done"))
        self.mirror.apply(batch)
        self.courier.watched(batch)


class Sending:
    """One activation that sends; `settled` is what it was told, in that order."""

    def __init__(self, host: Host, uid: str = "1", *, tenant: str = "shop", epoch: int = 0) -> None:
        self.settled: list[tuple[int, str]] = []
        self._changed = asyncio.Event()
        self.out = host.courier.open(uid, f"{tenant}/{uid}", tenant, self._settle, epoch=epoch)

    def release(self, receiver: str, *numbers: int, body: bytes = b"body", void: bool = False) -> None:
        self.out.release([Entry(n, receiver, body=body, void=void) for n in numbers])

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def all_settled(self, number: int) -> list[tuple[int, str]]:
        await self.until(lambda: len(self.settled) >= number)
        return self.settled

    def _settle(self, n: int, answer: Settled) -> None:
        self.settled.append((n, str(answer.verdict)))
        self._changed.set()
