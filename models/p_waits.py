"""Model P, cycles of waiting turns (protocol 9, rule 12): agents whose turns ask each other, found by probes.

Each agent may begin a turn of its own that asks another agent (`asks`), and may ask one before it answers (`relays`).
It runs one turn at a time; a request that comes meanwhile waits in its inbox. A request carries the chain of agents
whose turns wait for its end, and one to an agent of its own chain is refused before it leaves. Who waits for a reply,
and has requests in its inbox, sends a *probe* after its request; who gets one, and has that request in its inbox or
serves it, and waits itself, hands it on. Where it began it has found a cycle. All messages are signals: in order, once.

`lates`: how many waits may end by their time. `losses`: how many holders may be lost, with what they know of probes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from models.explore import Model, Step, put

NOBODY = -1
Key = tuple[int, int]
"""(asker, number of its wait)"""


class Request(NamedTuple):
    """Asks its receiver for something."""

    key: Key
    chain: tuple[int, ...]


class Reply(NamedTuple):
    """How that ended."""

    key: Key


class Hop(NamedTuple):
    """One agent on the way of a probe."""

    agent: int
    waits: Key
    inbox: bool  # the request before it waits there; else it is being served


class Probe(NamedTuple):
    """Who waits for whom, from the agent that asks."""

    path: tuple[Hop, ...]
    victim: int = NOBODY  # the cycle is found: that one refuses
    left: int = 0  # how far it may still go


Message = Request | Reply | Probe


class Agent(NamedTuple):
    """The record of one agent; `covered` is in its holder's memory only."""

    begun: bool = False
    over: bool = False
    serves: Request | None = None
    own: bool = False  # its own turn is under way
    asked: bool = False  # its turn has come to what it asks for
    waits: Key | None = None
    to: int = NOBODY
    number: int = 0
    inbox: tuple[Request, ...] = ()
    covered: int = 0  # so many of the inbox are told of by a probe of this wait


class World(NamedTuple):
    """A state of the whole."""

    agents: tuple[Agent, ...]
    under_way: tuple[tuple[int, int, Message], ...] = ()  # (sender, receiver, what), in the order of sending
    done: frozenset[Key] = frozenset()
    refused: frozenset[Key] = frozenset()
    lates: int = 0
    losses: int = 0
    bad: str | None = None


class Waits(Model[World]):
    """See the module."""

    asks: tuple[int, ...] = (1, 0)
    relays: tuple[int, ...] = (NOBODY,) * 4
    lates, losses = 0, 0
    live = True
    FAST = (
        {},
        {"asks": (1, 2, 0)},
        {"asks": (1, NOBODY, 0), "relays": (NOBODY, 2, NOBODY)},
        {"asks": (1, 2, 1)},
        {"lates": 1},
    )
    SMALL = ({"asks": (1, 2, 0), "lates": 1}, {"asks": (1, 2, 0), "losses": 1}, {"asks": (1, 2, 3, 0)})
    BIG = {"asks": (1, 2, 3, 0), "relays": (2, NOBODY, 0, 1), "losses": 2, "lates": 0}
    GUARDS = {
        "probe_each": {"asks": (1, NOBODY, 0, 2), "relays": (NOBODY, 2, NOBODY, NOBODY)},
        "probe_served": {"asks": (1, NOBODY, 0), "relays": (NOBODY, 2, NOBODY)},
        "probe_seen": {"asks": (NOBODY, 0, 1), "relays": (2, NOBODY, NOBODY)},
        "probe_ends": {"asks": (1, 2, 1, 0)},
        "one_victim": {},
        "refuse_in_commit": {},
    }

    def init(self) -> World:
        """Nobody has begun."""
        return World(tuple(Agent() for _ in self.asks))

    def check(self, s: World) -> str | None:
        """What was refused is never done, and only what waits in a cycle is refused."""
        if s.done & s.refused:
            return "a request was refused, and done"
        if any(isinstance(what, Probe) and len(what.path) > len(s.agents) for _, _, what in s.under_way):
            return "a probe goes round for ever"
        return s.bad

    def goal(self, s: World) -> bool:
        """Every turn has ended, and nothing is under way."""
        idle = all(not a.inbox and a.serves is None and not a.own for a in s.agents)
        return (
            idle and not s.under_way and all(a.over or to == NOBODY for a, to in zip(s.agents, self.asks, strict=True))
        )

    def steps(self, s: World) -> Iterator[Step[World]]:
        """Agents begin, get messages, probe, give up."""
        for i, a in enumerate(s.agents):
            if not a.begun and self.asks[i] != NOBODY and self.idle(a) and not a.inbox:
                yield f"{i} begins", self.put(s, i, a._replace(begun=True, own=True))
            if not self.idle(a) and not a.asked:
                yield f"{i} asks", self.ask(s, i, a._replace(asked=True))
            if a.waits and a.covered < len(a.inbox) and (self.on("probe_each") or not a.covered):
                probed = self.put(s, i, a._replace(covered=len(a.inbox)))
                hop = Hop(i, a.waits, inbox=True)
                yield f"{i} sends a probe", self.send(probed, i, a.to, Probe((hop,)))
            if a.waits and s.lates < self.lates:
                yield f"!{i} waits no more", self.ended(s._replace(lates=s.lates + 1), i)
            if a.covered and s.losses < self.losses:
                yield f"!the holder of {i} is lost", self.put(s, i, a._replace(covered=0))._replace(losses=s.losses + 1)
        yield from self.arrivals(s)

    def arrivals(self, s: World) -> Iterator[Step[World]]:
        """The first message of each pair."""
        seen = set[tuple[int, int]]()
        for at, (sender, receiver, message) in enumerate(s.under_way):
            if (sender, receiver) in seen:
                continue
            seen.add((sender, receiver))
            rest = s._replace(under_way=(*s.under_way[:at], *s.under_way[at + 1 :]))
            kind = type(message).__name__.lower()
            yield f"{receiver} gets a {kind} of {sender}", self.get(rest, receiver, message)

    def get(self, s: World, i: int, message: Message) -> World:
        """One message is taken."""
        a = s.agents[i]
        match message:
            case Request():
                if self.idle(a) and not a.inbox:
                    return self.put(s, i, a._replace(serves=message))
                return self.put(s, i, a._replace(inbox=(*a.inbox, message)))
            case Reply(key):
                return self.ended(s, i) if a.waits == key else s
            case Probe():
                return self.probed(s, i, message)

    # --- turns ------------------------------------------------------------------------------------------------------

    def idle(self, a: Agent) -> bool:
        """No turn is under way."""
        return not a.own and a.serves is None

    def ask(self, s: World, i: int, a: Agent) -> World:
        """A turn of this agent asks; what would wait for itself is refused at once."""
        s = self.put(s, i, a)
        to, chain = (self.asks[i], ()) if a.serves is None else (self.relays[i], a.serves.chain)
        if to in (NOBODY, i, *chain):
            return self.end(s, i)
        key = (i, a.number + 1)
        waits = a._replace(waits=key, to=to, number=a.number + 1, covered=0)
        return self.send(self.put(s, i, waits), i, to, Request(key, (*chain, i)))

    def ended(self, s: World, i: int) -> World:
        """A wait has ended, however: the turn does, too."""
        return self.end(self.put(s, i, s.agents[i]._replace(waits=None, to=NOBODY, covered=0)), i)

    def end(self, s: World, i: int) -> World:
        """The end of a turn, its reply, and the next one of the inbox."""
        a = s.agents[i]
        if a.serves is not None:
            s = s._replace(done=s.done | {a.serves.key})
            s = self.send(s, i, a.serves.key[0], Reply(a.serves.key))
        following = a.inbox[0] if a.inbox else None
        over = a.over or a.own
        return self.put(s, i, a._replace(serves=following, own=False, asked=False, over=over, inbox=a.inbox[1:]))

    # --- probes -----------------------------------------------------------------------------------------------------

    def probed(self, s: World, i: int, probe: Probe) -> World:
        """Hand it on, refuse, or drop it."""
        a, path = s.agents[i], probe.path
        at = next((at for at, hop in enumerate(path) if hop.agent == i), None)
        key = path[(at or 0) - 1].waits
        request = next((one for one in a.inbox if one.key == key), None)
        served = a.serves is not None and a.serves.key == key and self.on("probe_served")
        if a.waits is None or not (request or served or not self.on("probe_seen")):
            return s
        if at is None or (at and probe.victim == NOBODY and not self.on("probe_ends")):
            return self.send(s, i, a.to, Probe((*path, Hop(i, a.waits, request is not None))))
        if path[at].waits != a.waits or (at and probe.victim == NOBODY):
            return s
        if probe.victim == NOBODY:
            victim = max(hop.agent for hop in path if hop.inbox) if self.on("one_victim") else i
            probe = Probe(path, victim, len(path))
        if i != probe.victim:
            return self.send(s, i, a.to, probe._replace(left=probe.left - 1)) if probe.left else s
        return self.refuse(s, i, request) if request else s

    def refuse(self, s: World, i: int, request: Request) -> World:
        """There is a cycle: the request that waits here is not run, and who asked is told."""
        a = s.agents[i]
        bad = None if self.lates or self.cycle(s, i, request) else "what was in no cycle was refused"
        s = s._replace(refused=s.refused | {request.key}, bad=s.bad or bad)
        if self.on("refuse_in_commit"):
            inbox = tuple(one for one in a.inbox if one != request)
            s = self.put(s, i, a._replace(inbox=inbox, covered=min(a.covered, len(inbox))))
        return self.send(s, i, request.key[0], Reply(request.key))

    def cycle(self, s: World, i: int, request: Request) -> bool:
        """Whether this agent waits, however far, for the one that waits for this request."""
        at, seen = i, set[int]()
        while at not in seen:
            seen.add(at)
            a = s.agents[at]
            if a.waits == request.key:
                return True
            to = s.agents[a.to]
            held = a.waits and (
                any(one.key == a.waits for one in to.inbox) or (to.serves is not None and to.serves.key == a.waits)
            )
            if not held:
                return False
            at = a.to
        return False

    # --- the world --------------------------------------------------------------------------------------------------

    def put(self, s: World, i: int, a: Agent) -> World:
        """Replace one agent."""
        return s._replace(agents=put(s.agents, i, a))

    def send(self, s: World, i: int, to: int, message: Message) -> World:
        """Into the stream of the pair."""
        return s._replace(under_way=(*s.under_way, (i, to, message)))
