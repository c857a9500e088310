"""Worlds with one rule taken back, to see the checker fail: the guards of the protocols (README 1, 2, 3 and 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tenure_proto.v1.hostlink_pb2 import HeartbeatAck
from tenured.core import commands, machine
from tenured.core.frames import Committed, Output, Phase
from tenured.core.lease import Ack, HostLease, LeaderLeases, Load, Silence
from tenured.core.owner import Owner
from tenured.core.registry import Registry
from tenured.host.leasing import Lease
from tenured.server.leading import Leader
from tenured.simulation import Rules
from tenured.simulation.host import HostRules, SimHost
from tenured.simulation.register import Guards
from tenured.simulation.server import ServerRules

# --- protocol 1: leases ----------------------------------------------------------------------------------------------


class FromTheAck(Lease):
    """Counts from the arrival of the ack, not from the sending of its heartbeat [sent_at]."""

    def ack(self, ack: HeartbeatAck) -> None:
        late = HeartbeatAck()
        late.CopyFrom(ack)
        loop: Any = asyncio.get_running_loop()
        late.sent_at_ns = loop.clock.boot_ns(loop.timeline.now)
        super().ack(late)


class MonotonicLease(Lease):
    """Counts on a clock that stands still in suspend [boottime]."""

    @property
    def held(self) -> bool:
        return self._lease.held(int(asyncio.get_running_loop().time() * 1e9))


def monotonic(host: SimHost) -> int:
    return int(host.process.loop.time() * 1e9)


class AlwaysHeld(HostLease):
    """A host whose lease lapsed goes on [lease, fence]."""

    def held(self, now: int) -> bool:
        return self.until_ns > 0 and not self.gone


class AcksAtOnce(Leader):
    """Acknowledges without a committed entry [commit]."""

    def heartbeat(self, incarnation: str, sent_at_ns: int, load: Load) -> None:
        super().heartbeat(incarnation, sent_at_ns, load)
        if self._term is not None and self._replica.registry.alive(incarnation):
            self._send_ack(Ack(incarnation, sent_at_ns, 0))


class FollowersAck(Leader):
    """A follower acknowledges what the leader never saw [no_relay_ack]."""

    def heartbeat(self, incarnation: str, sent_at_ns: int, load: Load) -> None:
        super().heartbeat(incarnation, sent_at_ns, load)
        if self._term is None and self._replica.registry.alive(incarnation):
            self._send_ack(Ack(incarnation, sent_at_ns, 0))


class NoMargin(LeaderLeases):
    """Expires at ttl, not at ttl + margin [margin]."""

    def expirable(self, now: int, registry: Registry) -> list[Silence]:
        return super().expirable(now + self.profile.margin_ns, registry)


class NoWaitAtAll(LeaderLeases):
    """Expires after a few ticks of silence [lease_wait]."""

    def expirable(self, now: int, registry: Registry) -> list[Silence]:
        return super().expirable(now + self.profile.expiry_ns - 3 * self.profile.tick_ns, registry)


class NoWaitNew(LeaderLeases):
    """A new leader does not wait for leases that the old one gave [wait_new]."""

    def expirable(self, now: int, registry: Registry) -> list[Silence]:
        oldest = now - self.profile.expiry_ns
        return [
            Silence(host.incarnation, 0)
            for host in registry.hosts.values()
            if self.leading
            and host.alive
            and self._last.get(host.incarnation, self._registered.get(host.incarnation, oldest)) <= oldest
        ]


class AcksTheExpired(LeaderLeases):
    """Acknowledges whoever is covered, also who has ended [ack_state]."""

    def tick_committed(self, token: int, index: int, registry: Registry) -> tuple[Ack, ...]:
        return tuple(Ack(name, sent_at, index) for name, sent_at in self._open.pop(token, {}).items())


class CountsAcked(LeaderLeases):
    """Counts from the last acknowledged heartbeat, not from the last one received [received]."""

    def heartbeat(self, now: int, incarnation: str, sent_at_ns: int, load: Load | None = None) -> None:
        before = self._last.get(incarnation)
        super().heartbeat(now, incarnation, sent_at_ns, load)
        self._arrived = {**getattr(self, "_arrived", {}), incarnation: now}
        if before is None:
            del self._last[incarnation]
        else:
            self._last[incarnation] = before

    def tick_committed(self, token: int, index: int, registry: Registry) -> tuple[Ack, ...]:
        acks = super().tick_committed(token, index, registry)
        for ack in acks:
            self._last[ack.incarnation] = self._arrived[ack.incarnation]
        return acks


# --- protocol 2: the store -------------------------------------------------------------------------------------------


class WritesInMemory(Guards):
    """A write is answered before it is on the disk [sync_write]."""

    sync_write = False


class SealsAtOne(Owner):
    """Adopts after the first answer to its seal [seal_majority]."""

    @property
    def quorum(self) -> int:
        return 1 if self.phase is Phase.SEALING else super().quorum


class WritesToOne(Owner):
    """A write counts once one server has it [write_majority]."""

    @property
    def quorum(self) -> int:
        return 1 if self.phase is Phase.READY else super().quorum


class TellsAtOnce(Owner):
    """Says "committed" when the write leaves [commit_first]."""

    def write(self, now: int, puts: Mapping[str, bytes], deletes: Iterable[str] = ()) -> tuple[int, Output]:
        seq, output = super().write(now, puts, deletes)
        output.outcomes.append(Committed(seq))
        return seq, output


# --- protocol 4: rule R ----------------------------------------------------------------------------------------------


def assigns_away(registry: Registry, index: int, data: bytes) -> tuple[bytes, machine.Applied]:
    """Rule R is not checked: an assignment takes an agent from whoever holds it [release]."""
    command = commands.decode(data)
    if isinstance(command, commands.Tick) and index % 20 == 0:
        held = [agent for agent in registry.agents.values() if agent.held and agent.ready]
        hosts = sorted(host.incarnation for host in registry.hosts.values() if host.alive and host.ready)
        if held and len(hosts) > 1:
            agent = held[index % len(held)]
            other = next(name for name in hosts if name != agent.incarnation)
            host = registry.hosts[other]
            moved = msgspec.structs.replace(
                agent, epoch=agent.epoch + 1, incarnation=other, host=host.name, node=host.node, ready=False
            )
            registry.put(moved)
            return machine.apply_bytes(registry, index, data)[0], machine.Applied(
                machine.apply(registry, index, command).result, registry.since(registry.revision - 1)
            )
    return machine.apply_bytes(registry, index, data)


@dataclass(frozen=True)
class Mutant:
    """One rule taken back, in worlds that exercise it; and what the checker says of it."""

    rules: Rules
    says: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    most: int = 25
    """Seeds within which it is caught."""


def server(**rules: Any) -> Rules:
    return Rules(server=ServerRules(**rules))


def host(**rules: Any) -> Rules:
    return Rules(host=HostRules(**rules))


LEASE = "an expired incarnation never acts"
KEPT = "acknowledged means kept"
HOLDER = "one effective holder"
SMALL = {"agents": 3, "clients": 1, "rate": 4.0, "gap_s": 0.35, "settle_s": 15.0}
CUTS = SMALL | {"hosts": 6, "fault_names": ("cut_host",)}
"""Hosts are expired although they live."""
STALE = SMALL | {"hosts": 6, "fault_names": ("strand_leader",), "gap_s": 1.5}
"""Leaders that do not know that they are deposed."""
WRITES = SMALL | {"agents": 6, "rate": 40.0, "fault_names": ("cut_host",), "jitter_ms": 10.0}
"""Holders that are replaced while their writes are under way."""
DEATHS = SMALL | {
    "agents": 6,
    "rate": 40.0,
    "fault_names": ("die_in_a_write", "power_server", "split_servers"),
    "gap_s": 0.25,
}
"""Holders that die with a write on some servers."""
POWER = DEATHS | {"fault_names": ("power_all_servers", "kill_daemon", "power_server"), "sync_ms": 100.0}

MUTANTS: dict[str, Mutant] = {
    "A sent_at": Mutant(host(shell=FromTheAck), LEASE, CUTS | {"jitter_ms": 100.0}),
    "A boottime": Mutant(host(shell=MonotonicLease, beat=monotonic), LEASE, SMALL | {"fault_names": ("sleep_host",)}),
    "A commit": Mutant(server(leader=AcksAtOnce), LEASE, STALE),
    "A wait_new": Mutant(server(leases=NoWaitNew), LEASE, CUTS | {"fault_names": ("cut_host", "hand_over")}),
    "A margin": Mutant(server(leases=NoMargin), LEASE, CUTS),
    "A received": Mutant(server(leases=CountsAcked), LEASE, CUTS | {"sync_ms": 600.0}),
    "A ack_state": Mutant(server(leases=AcksTheExpired), LEASE, CUTS),
    "A no_relay_ack": Mutant(server(leader=FollowersAck), LEASE, CUTS),
    "A fence, D lease": Mutant(host(lease=AlwaysHeld), LEASE, CUTS),
    "D lease_wait": Mutant(server(leases=NoWaitAtAll), LEASE, CUTS),
    "B sync_write": Mutant(server(guards=WritesInMemory), "", POWER),
    "B seal_majority": Mutant(host(owner=SealsAtOne), "", DEATHS),
    "B write_majority": Mutant(host(owner=WritesToOne), "", DEATHS),
    "C commit_first": Mutant(host(owner=TellsAtOnce), "", DEATHS),
    "D release": Mutant(server(apply=assigns_away), "rule R"),
    "the log's barrier": Mutant(Rules(), "", POWER | {"lies": True}),
}
