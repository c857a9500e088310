"""Placement: which host takes an agent, and why. Filters, then the strategy `LoadBalanced`: fewest agents for its size.

Agents that ask for the same are placed together over one heap of candidates, so that ten thousand cost as many heap
operations and not as many scans of all hosts. Ties are broken by a seeded hash of the agent's uid: not always the first
host, and yet the same result for the same input.
"""

from __future__ import annotations

import difflib
import heapq
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import msgspec

from tenure_api.reasons import Reason
from tenured.core.model import Agent, AgentSpec, Host, Pool
from tenured.core.registry import Registry, Usage

LOST = frozenset({str(Reason.LEASE_EXPIRED), str(Reason.HOST_LOST)})
"""Reasons for which nobody holds an agent although nobody asked for that."""
EXPLANATION_BYTES = 256
RUNNERS_UP = 2


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where one agent goes, or (`incarnation` empty) why nowhere."""

    uid: str
    epoch: int
    """The agent's epoch that the decision is for."""
    incarnation: str = ""
    host: str = ""
    explanation: str = ""
    """<= 256 B: the winner, the next two with scores, rejections per filter."""
    reason: str = ""
    message: str = ""
    next_action: str = ""


def place(
    registry: Registry,
    agents: Iterable[Agent],
    *,
    avoid: AbstractSet[str] = frozenset(),
    seed: int = 0,
) -> list[Placement]:
    """Place agents, groups that ask for the same in order of their first, each agent aware of those before it.

    `avoid`: incarnations that are suspected: they get nothing new.
    """
    hosts: dict[str, list[Host]] = {}
    for host in registry.hosts.values():
        if host.alive:
            hosts.setdefault(host.pool, []).append(host)
    used: dict[str, Usage] = {}
    groups: dict[_Wish, list[Agent]] = {}
    for agent in agents:
        groups.setdefault(_wish(agent), []).append(agent)
    placed: list[Placement] = []
    for wish, members in groups.items():
        pool = registry.pools.get(wish.pool)
        if pool is None:
            placed += _nowhere(members, *_no_pool(registry, wish.pool))
            continue
        group = _Group(registry, wish, pool, hosts.get(wish.pool, []), used, avoid, seed)
        placed += [group.place(agent) for agent in members]
    return placed


# --- what an agent asks for -----------------------------------------------------------------------------------------


class _Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What decides where an agent may go; agents with equal wishes are one group."""

    pool: str
    class_name: str
    critical: bool
    node: str
    """Only there: an agent that is not critical waits for the node that was lost."""
    selector: tuple[tuple[str, str], ...]
    cpu_milli: int
    memory_bytes: int


def _wish(agent: Agent) -> _Wish:
    spec: AgentSpec = agent.spec
    return _Wish(
        pool=spec.pool,
        class_name=spec.class_name,
        critical=spec.critical,
        node=agent.last_node if not spec.critical and agent.unheld_reason in LOST else "",
        selector=tuple(sorted(spec.node_selector.items())),
        cpu_milli=spec.cpu_milli,
        memory_bytes=spec.memory_bytes,
    )


# --- one group ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Candidate:
    """A host that passed the filters, with what it would hold."""

    host: Host
    usage: Usage


Scored = tuple[bool, float, int, str]
"""Capacity unknown (worst), agents for its size after the placement, tie-break, incarnation: the least wins."""


class _Group:
    """Places agents with one wish, one after the other."""

    def __init__(
        self,
        registry: Registry,
        wish: _Wish,
        pool: Pool,
        hosts: Sequence[Host],
        used: dict[str, Usage],
        avoid: AbstractSet[str],
        seed: int,
    ) -> None:
        self.wish = wish
        self.pool = pool
        self.hosts = hosts
        self.seed = seed
        self.rejected: Counter[str] = Counter()
        self.candidates: dict[str, _Candidate] = {}
        for host in hosts:
            why = self._rejection(registry, host, avoid)
            if why:
                self.rejected[why] += 1
                continue
            usage = used.get(host.incarnation)
            if usage is None:
                now = registry.usage.get(host.incarnation, Usage())
                usage = used[host.incarnation] = Usage(now.agents, now.cpu_milli, now.memory_bytes)
            self.candidates[host.incarnation] = _Candidate(host, usage)
        self.heap: list[Scored] = [self._score(candidate, "") for candidate in self.candidates.values()]
        heapq.heapify(self.heap)

    def place(self, agent: Agent) -> Placement:
        """Take the best candidate that has room."""
        while self.heap:
            incarnation = self.heap[0][3]
            candidate = self.candidates[incarnation]
            if not self._fits(candidate):
                heapq.heappop(self.heap)
                self.rejected["full"] += 1
                continue
            explanation = self._explain()
            candidate.usage.agents += 1
            candidate.usage.cpu_milli += self.wish.cpu_milli
            candidate.usage.memory_bytes += self.wish.memory_bytes
            heapq.heapreplace(self.heap, self._score(candidate, agent.uid))
            return Placement(
                uid=agent.uid,
                epoch=agent.epoch,
                incarnation=incarnation,
                host=candidate.host.name,
                explanation=explanation,
            )
        return _nowhere([agent], *self._why_nowhere())[0]

    # --- filters and score ------------------------------------------------------------------------------------

    def _rejection(self, registry: Registry, host: Host, avoid: AbstractSet[str]) -> str:  # noqa: PLR0911 - filters
        """Name the first filter that the host does not pass; empty if it passes all."""
        if not host.ready:
            return "without a worker"
        if all(known.name != self.wish.class_name for known in host.classes):
            return "without the class"
        if host.draining:
            return "draining"
        if not host.schedulable:
            return "cordoned"
        if host.incarnation in avoid:
            return "silent"
        if self.wish.node and host.node != self.wish.node:
            return "on another node"
        if self.wish.selector:
            node = registry.nodes.get(host.node)
            labels = host.labels | (node.labels if node is not None else {})
            if any(labels.get(name) != value for name, value in self.wish.selector):
                return "not selected"
        return ""

    def _fits(self, candidate: _Candidate) -> bool:
        host, usage = candidate.host, candidate.usage
        limit = self.pool.max_agents_per_host
        return (
            (not limit or usage.agents < limit)
            and (not host.cpu_milli or usage.cpu_milli + self.wish.cpu_milli <= host.cpu_milli)
            and (not host.memory_bytes or usage.memory_bytes + self.wish.memory_bytes <= host.memory_bytes)
        )

    def _score(self, candidate: _Candidate, uid: str) -> Scored:
        host = candidate.host
        ratio = (candidate.usage.agents + 1) / (host.cpu_milli / 1000 or 1.0)
        tie = zlib.crc32(f"{self.seed}:{uid}:{host.incarnation}".encode())
        return (not host.cpu_milli, ratio, tie, host.incarnation)

    # --- why --------------------------------------------------------------------------------------------------

    def _explain(self) -> str:
        # The three least of a heap are among its first seven.
        best = sorted(self.heap[:7])[: 1 + RUNNERS_UP]
        names = [f"{self.candidates[inc].host.name} {ratio:.2f}" for _, ratio, _, inc in best]
        text = names[0] + (f"; then {', '.join(names[1:])}" if names[1:] else "")
        if self.rejected:
            text += f"; rejected: {_counts(self.rejected)}"
        return text.encode()[:EXPLANATION_BYTES].decode(errors="ignore")

    def _why_nowhere(self) -> tuple[str, str, str]:
        pool, wanted = self.pool.name, self.wish.class_name
        if not self.hosts:
            return _say(Reason.NO_HOST_FITS, f"Waiting: pool {pool} has no host yet")
        broken = [host for host in self.hosts if host.worker_error]
        ready = [host for host in self.hosts if host.ready]
        if not ready and broken:
            return _say(
                broken[0].worker_reason or Reason.IMPORT_FAILED,
                f"Waiting: no worker of pool {pool} serves: {broken[0].worker_error}",
            )
        offered = {known.name for host in ready for known in host.classes}
        if ready and wanted not in offered:
            return _say(
                Reason.CLASS_NOT_FOUND,
                f"Waiting: pool {pool} has no class {wanted}{_near(wanted, offered)}",
            )
        return _say(Reason.NO_HOST_FITS, f"Waiting: no host of pool {pool} fits ({_counts(self.rejected)})")


def _nowhere(agents: Iterable[Agent], reason: str, message: str, next_action: str) -> list[Placement]:
    return [
        Placement(uid=agent.uid, epoch=agent.epoch, reason=reason, message=message, next_action=next_action)
        for agent in agents
    ]


def _no_pool(registry: Registry, name: str) -> tuple[str, str, str]:
    return _say(Reason.POOL_NOT_FOUND, f"Waiting: the cluster has no pool {name}{_near(name, registry.pools)}")


def _say(reason: str, message: str) -> tuple[str, str, str]:
    try:
        return str(reason), message, Reason(reason).next_step
    except ValueError:  # a host of another version may use a word that this catalogue lacks
        return reason, message, ""


def _near(name: str, known: Iterable[str]) -> str:
    """Say which names are like this one, or which there are."""
    names = sorted(known)
    if not names:
        return ""
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.6)
    if near:
        return f" (did you mean {' or '.join(near)}?)"
    return f" (it has {', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"


def _counts(rejected: Counter[str]) -> str:
    return ", ".join(f"{count} {why}" for why, count in sorted(rejected.items(), key=lambda item: (-item[1], item[0])))
