"""What must hold after every event (DESIGN.md section 3), checked against what was ever seen in this world.

Effects are named: the state of a simulated agent is the list of the calls that it applied, so "once", "kept" and "one
chain" can be read off it. The registry's truth is one more replica that applies each committed entry when the first
server does.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from tenure_api.reasons import Reason
from tenured.core import commands, machine
from tenured.core.model import Agent
from tenured.core.registry import Registry
from tenured.raft.core import State

if TYPE_CHECKING:
    from tenure_proto.v1.calls_pb2 import Call
    from tenured.simulation.cluster import Cluster
    from tenured.simulation.host import SimHost
    from tenured.simulation.server import SimServer

ANSWER_SLACK_NS = 1_000_000_000
"""By how much a host may answer later than the deadline: it may have been frozen or slow for a moment."""


class Breach(AssertionError):
    """An invariant does not hold. The message names the seed, and the transcript says how it came about."""

    def __init__(self, seed: int, rule: str, text: str, transcript: Sequence[str]) -> None:
        super().__init__(f"seed {seed}: {rule}: {text}\n" + "\n".join(transcript))
        self.seed, self.rule, self.text = seed, rule, text


@dataclass
class Chain:
    """What was visible of one agent's effects."""

    visible: list[str] = field(default_factory=list[str])
    newest: int = 0
    """The highest epoch that adopted."""
    base: list[str] = field(default_factory=list[str])
    """What it adopted."""
    acknowledged: dict[str, int] = field(default_factory=dict[str, int])
    """call -> epoch whose holder told its client."""
    holders: dict[int, str] = field(default_factory=dict[int, str])
    """epoch -> machine on which it had an effect."""


class Checker:
    """Of one world. Raises Breach."""

    def __init__(self, world: Cluster) -> None:
        self.world = world
        self.found: Breach | None = None
        self.truth = Registry()
        self.chains: dict[str, Chain] = {}
        self.leaders: dict[int, tuple[str, int]] = {}
        self.committed: dict[int, tuple[int, int]] = {}
        """index -> (term, checksum)"""
        self.applied: dict[int, int] = {}
        """index -> checksum of what was applied there"""
        self.expired: dict[str, None] = {}
        """Incarnations whose end is committed, by silence or by proof of death."""
        self.not_applied: set[str] = set()
        """Calls whose clients were told so in the end."""
        self.reached: dict[int, tuple[int, int]] = {}
        """life of a server -> (commit, applied)"""

    def fail(self, rule: str, text: str) -> None:
        """An invariant is broken: the world stops after this event, whoever catches what is raised here."""
        if self.found is None:
            self.world.note("BREACH", f"{rule}: {text}")
            self.found = Breach(self.world.seed, rule, text, self.world.transcript())
        raise self.found

    # --- the log (Raft's own) ---------------------------------------------------------------------------------------

    def after_server(self, server: SimServer) -> None:
        """One leader a term; one entry at each index; nothing goes back."""
        engine = server.consensus.engine
        if engine is None:
            return
        if engine.state == State.LEADER:
            me = (server.name, server.life)
            known = self.leaders.setdefault(engine.current_term, me)
            if known != me:
                self.fail("one leader a term", f"term {engine.current_term}: {known} and {me}")
        before = self.reached.get(server.life, (0, 0))
        reached = (engine.commit_index, engine.applied_index)
        if reached == before:
            return
        if reached[0] < before[0] or reached[1] < before[1]:
            self.fail("nothing goes back", f"{server.name} was at {before} and is at {reached}")
        self.reached[server.life] = reached
        for index in range(before[0] + 1, reached[0] + 1):
            entry = engine.log.at(index)
            if entry is not None:
                found = (entry.term, zlib.crc32(entry.command))
                if self.committed.setdefault(index, found) != found:
                    self.fail("committed entries never differ", f"{server.name} at {index}: {found}")

    def entry(self, server: SimServer, index: int, command: bytes) -> None:
        """A server applies an entry; the first one moves the truth."""
        checksum = zlib.crc32(command)
        known = self.applied.get(index)
        if known is None:
            self.applied[index] = checksum
            self._advance(server, index, command)
        elif known != checksum:
            self.fail("state machines agree", f"{server.name} applies another entry at {index}")

    # --- the registry: rule R, epochs, ends of incarnations -----------------------------------------------------

    def _advance(self, server: SimServer, index: int, encoded: bytes) -> None:
        command = commands.decode(encoded)
        truth = self.truth
        concerned = dict(truth.agents)
        living = {host.incarnation for host in truth.hosts.values() if host.alive}
        _, applied = self.world.rules.server.apply(truth, index, encoded)
        if not isinstance(command, commands.Tick):
            self.world.note(server.name, f"#{index} {_brief(command)} -> {_outcome(applied)}")
        for key in (*applied.changed.changed, *applied.changed.gone):
            if key.kind == "agent":
                self._moved(concerned.get(key.name), truth.agents.get(key.name), command)
            elif key.kind == "host" and key.name in living and not truth.alive(key.name):
                self._ended(key.name, command)

    def _moved(self, old: Agent | None, new: Agent | None, command: commands.Command) -> None:
        if old is None:
            return
        if new is not None and not old.epoch <= new.epoch <= old.epoch + 1:
            self.fail("epochs grow by one", f"{old.id}: {old.epoch} to {new.epoch}")
        same = new is not None and new.incarnation == old.incarnation and new.epoch == old.epoch
        if same or not old.held:
            return
        if not self.truth.alive(old.incarnation):
            return
        if isinstance(command, commands.AgentReports) and command.incarnation == old.incarnation:
            said = [r for r in command.reports if r.uid == old.uid and r.epoch == old.epoch]
            if any(report.released or report.stopped or report.ended is not None for report in said):
                return
        self.fail("rule R", f"{old.id} leaves {old.incarnation}, which neither released it nor ended: {command}")

    def _ended(self, incarnation: str, command: commands.Command) -> None:
        if isinstance(command, commands.ReleaseHost):
            return
        self.expired[incarnation] = None
        row = self.truth.hosts.get(incarnation)
        host = self.world.processes.get(incarnation)
        if row is not None and row.ended == Reason.HOST_LOST:
            held = any(incarnation in each.container.holds for each in self.world.hosts.values())
            if (host is not None and host.process.alive) or held:
                self.fail("proof of death", f"{incarnation} was proven dead and lives")
        elif host is not None:
            self.after_host(host)

    # --- leases -----------------------------------------------------------------------------------------------------

    def after_host(self, host: SimHost) -> None:
        """An expired incarnation holds no lease by its own clock (protocol 1)."""
        if host.incarnation in self.expired and host.process.alive and host.believes:
            self.fail("an expired incarnation never acts", f"{host.incarnation} still holds a lease")

    # --- effects ----------------------------------------------------------------------------------------------------

    def chain(self, uid: str) -> Chain:
        """Of one agent."""
        found = self.chains.get(uid)
        if found is None:
            found = self.chains[uid] = Chain()
        return found

    def activated(self, where: str, uid: str, epoch: int, state: bytes | None) -> None:
        """A holder shows what it adopted (protocol 2; the model's `see`)."""
        self.world.note(where, f"activates {uid} at epoch {epoch}: {_length(state)} effects")
        self._see(where, uid, epoch, _decode(state), adopt=True)

    def turn_committed(self, where: str, uid: str, epoch: int, state: bytes) -> None:
        """A holder shows one more effect."""
        chain = self.chain(uid)
        if chain.holders.setdefault(epoch, where) != where:
            self.fail("one effective holder", f"{uid} epoch {epoch}: effects on {chain.holders[epoch]} and {where}")
        self._see(where, uid, epoch, _decode(state), adopt=False)

    def _see(self, where: str, uid: str, epoch: int, done: list[str], *, adopt: bool) -> None:
        chain = self.chain(uid)
        if len(set(done)) != len(done):
            self.fail("effects once", f"{uid} on {where}: {sorted(each for each in done if done.count(each) > 1)}")
        if epoch < chain.newest:
            if done != chain.base[: len(done)]:
                self.fail("one effective holder", f"{uid}: epoch {epoch} committed what {chain.newest} does not have")
            return
        grows = done[: len(chain.visible)] == chain.visible
        if not grows and (adopt or chain.visible[: len(done)] != done):
            lost = [each for each in chain.visible if each not in done]
            self.fail("acknowledged means kept", f"{uid} epoch {epoch} on {where} shows {len(done)} without {lost}")
        if adopt:
            missing = [call for call, told in chain.acknowledged.items() if told < epoch and call not in done]
            if missing:
                self.fail("acknowledged means kept", f"{uid} epoch {epoch} on {where} adopts without {missing}")
            chain.newest, chain.base = epoch, done
        if len(done) > len(chain.visible):
            chain.visible = done

    def acknowledged(self, uid: str, call: str, epoch: int, place: int) -> None:
        """A client was told that its call was applied, as the `place`-th effect."""
        chain = self.chain(uid)
        chain.acknowledged.setdefault(call, epoch)
        if place <= len(chain.visible) and chain.visible[place - 1] != call:
            self.fail("effects once", f"{uid}: {call} was told to be number {place}, {chain.visible[place - 1]} is")

    def read(self, uid: str, seen: list[str], known: Sequence[str]) -> None:
        """A query was answered; `known`: acknowledged before it was asked."""
        missing = [call for call in known if call not in seen]
        if missing:
            self.fail("reads are not stale", f"{uid}: {missing} had been acknowledged before the query")

    def refused(self, call: str) -> None:
        """A client was told, in the end, that its call was not applied."""
        self.not_applied.add(call)

    def call_took(self, host: SimHost, call: Call, took_ns: int) -> None:
        """Within its deadline, or a little after (invariant 5)."""
        if took_ns > call.timeout_ms * 1_000_000 + ANSWER_SLACK_NS and not self.world.was_disturbed(host.machine.name):
            self.fail("an outcome within the deadline", f"{host.incarnation} took {took_ns / 1e9:.2f} s for {call.key}")

    # --- at the end -------------------------------------------------------------------------------------------------

    def final(self) -> None:
        """After the faults have healed and everything has settled."""
        for uid, chain in self.chains.items():
            for call in chain.acknowledged:
                if call not in chain.visible:
                    self.fail("acknowledged means kept", f"{uid} has no {call} in the end")
            for call in chain.visible:
                if call in self.not_applied:
                    self.fail("an outcome is known", f"{uid}: {call} was told to be not applied, and is")
        expected = self.truth.snapshot()
        for server in self.world.servers.values():
            level = server.replica.registry.index == self.truth.index
            if level and server.replica.registry.snapshot() != expected:
                self.fail("state machines agree", f"{server.name} has another registry in the end")


def _decode(state: bytes | None) -> list[str]:
    return [] if state is None else msgspec.msgpack.decode(state, type=list[str])


def _length(state: bytes | None) -> str:
    return "no" if state is None else str(len(_decode(state)))


def _brief(command: commands.Command) -> str:
    name = type(command).__name__
    match command:
        case commands.Assign():
            return f"{name} " + ", ".join(f"{i.uid}@{i.epoch + 1} to {i.incarnation}" for i in command.items)
        case commands.AgentReports():
            said = [f"{report.uid}@{report.epoch} {_said(report)}" for report in command.reports]
            return f"{name} of {command.incarnation}: " + ", ".join(said)
        case commands.RegisterHost():
            return f"{name} {command.incarnation}, proves dead {list(command.dead_incarnations)}"
        case commands.ReportHost() | commands.ExpireHost() | commands.ReleaseHost():
            return f"{name} {command.incarnation}"
        case _:
            return name


def _said(report: commands.AgentReport) -> str:
    words = {"ready": report.ready, "released": report.released, "stopped": report.stopped}
    words["ended"] = report.ended is not None
    return next((word for word, true in words.items() if true), "trouble")


def _outcome(applied: machine.Applied) -> str:
    result = applied.result
    if not result.ok:
        return f"refused: {result.reason}"
    return ", ".join(f"{row.uid} {row.outcome}" for row in result.rows) or "done"
