"""Model F, the log (protocol 8): a leader that sends its entries before its own disk has them.

Three servers. Term and vote are durable at once; log entries in memory first, then up to `synced`; a crash cuts the log
there. A leader counts itself only up to its synced index; a follower acknowledges only what it has synced.
Acknowledgements stay deliverable for ever, also to a leader that was deposed. Elections are one step (pre-vote only
prevents some of them, so it is left out).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from models.explore import Model, Step, put

Log = tuple[int, ...]  # the term of each entry; (index, term) names an entry


class Server(NamedTuple):
    """One server."""

    term: int = 0
    synced: int = 0  # entries that are on its disk
    log: Log = ()
    leads: int = 0  # the term that it leads, in memory
    commit: int = 0  # as leader
    acks: frozenset[tuple[int, int]] = frozenset()  # what it acknowledged: (term, index), for ever
    kept_term: int = 0  # what a crash restores, with [vote_synced] left out


class Cluster(NamedTuple):
    """A state of the whole."""

    servers: tuple[Server, ...] = (Server(), Server(), Server())
    committed: Log = ()  # what any leader has counted as committed
    crashes: int = 0
    bad: str | None = None


class Raft(Model[Cluster]):
    """See the module."""

    terms, entries, crashes = 3, 2, 2
    begin: tuple[Server, ...] = (Server(), Server(), Server())
    FAST = ({"terms": 2, "entries": 1, "crashes": 1},)
    SMALL = (
        {"terms": 2, "entries": 2, "crashes": 1},
        {"terms": 3, "entries": 1, "crashes": 1},
        {"terms": 2, "entries": 3, "crashes": 1},
    )
    BIG = {"terms": 6, "entries": 5, "crashes": 6}
    GUARDS = {
        "self_synced": {"terms": 2, "entries": 1, "crashes": 1},
        "ack_synced": {"terms": 2, "entries": 1, "crashes": 1},
        "vote_synced": {"terms": 2, "entries": 1, "crashes": 1},
        "step_down": {"terms": 2, "entries": 1, "crashes": 1},
        "up_to_date": {"terms": 2, "entries": 1, "crashes": 0},
        # Two leaders in a row wrote one entry each, on their own disks only.
        "own_term": {
            "terms": 5,
            "entries": 1,
            "crashes": 0,
            "begin": (Server(), Server(2, 1, (2,)), Server(3, 1, (3,))),
        },
        "matching": {"terms": 3, "entries": 1, "crashes": 0},
    }

    def init(self) -> Cluster:
        """Return empty logs."""
        return Cluster(self.begin)

    def check(self, s: Cluster) -> str | None:
        """Committed entries never change; each newer leader has them."""
        return s.bad

    def steps(self, s: Cluster) -> Iterator[Step[Cluster]]:
        """Each successor, servers in order (symmetry)."""
        for label, n in self.raw(s):
            yield label, n._replace(servers=tuple(sorted(n.servers, key=_order)))

    def raw(self, s: Cluster) -> Iterator[Step[Cluster]]:
        """Elections, entries, disks, crashes."""
        for i, me in enumerate(s.servers):
            name = f"server with {list(me.log)}"

            def swap(new: Server, i: int = i, **rest: Any) -> Cluster:
                return s._replace(servers=put(s.servers, i, new), **rest)

            yield from self.elect(s, i, me)
            if me.synced < len(me.log):
                yield f"{name} syncs", swap(me._replace(synced=len(me.log)))
            if s.crashes < self.crashes and (me.term or me.log):
                term = me.term if self.on("vote_synced") else me.kept_term
                leads = 0 if self.on("step_down") else me.leads
                new = me._replace(term=term, log=me.log[: me.synced], leads=leads)
                yield f"!{name} crashes with {me.synced} synced", swap(new, crashes=s.crashes + 1)
            if me.leads:
                yield from self.lead(s, i, me)

    def elect(self, s: Cluster, i: int, me: Server) -> Iterator[Step[Cluster]]:
        """A candidate with one other vote: a majority of three."""
        for j, other in enumerate(s.servers):
            term = max(me.term, other.term) + 1  # it tried until it was the highest
            newer = (me.log[-1:], len(me.log)) >= (other.log[-1:], len(other.log))
            if j != i and term <= self.terms and (newer or not self.on("up_to_date")):
                old = s.servers
                mine = me._replace(term=term, leads=term, commit=0, kept_term=me.term)
                votes = other._replace(term=term, leads=0, kept_term=other.term)
                keep = self.on("vote_synced")
                mine = mine._replace(kept_term=0) if keep else mine
                votes = votes._replace(kept_term=0) if keep else votes
                lost = me.log[: len(s.committed)] != s.committed
                bad = f"the leader of term {term} lacks a committed entry" if lost else None
                servers = put(put(old, i, mine), j, votes)
                yield f"!server with {list(me.log)} is elected in term {term}", s._replace(servers=servers, bad=bad)

    def lead(self, s: Cluster, i: int, me: Server) -> Iterator[Step[Cluster]]:
        """What a leader does, deposed or not: it may not know."""
        name = f"leader of {me.leads}"
        if len(me.log) < self.entries and me.term == me.leads:
            new = me._replace(log=(*me.log, me.leads))
            yield f"{name} appends, and sends before it syncs", s._replace(servers=put(s.servers, i, new))
        for j, other in enumerate(s.servers):
            if j != i and other.term <= me.leads and me.term == me.leads:
                yield from self.replicate(s, j, other, me)
        for index in range(me.commit + 1, len(me.log) + 1):
            if me.log[index - 1] != me.leads and self.on("own_term"):
                continue
            own = (me.synced if self.on("self_synced") else len(me.log)) >= index
            acks = sum(
                any(t == me.leads and at >= index for t, at in o.acks) for j, o in enumerate(s.servers) if j != i
            )
            if own + acks >= 2:
                known = me.log[:index]
                common = min(len(known), len(s.committed))
                bad = (
                    None
                    if known[:common] == s.committed[:common]
                    else "two different entries are committed at one index"
                )
                longer = max(known, s.committed, key=len)
                servers = put(s.servers, i, me._replace(commit=index))
                yield f"{name} commits {index}", s._replace(servers=servers, committed=longer, bad=bad)

    def replicate(self, s: Cluster, j: int, other: Server, leader: Server) -> Iterator[Step[Cluster]]:
        """A follower takes the leader's log up to some index, syncs it, and acknowledges it."""
        for length in range(1, len(leader.log) + 1):
            sent = leader.log[:length]
            if other.log[:length] == sent:
                log = other.log  # an old message cuts nothing that matches
            elif self.on("matching"):
                log = sent
            else:
                log = (*other.log, *sent[len(other.log) :])  # keeps what conflicts
            same = sum(1 for _ in _common(log, other.log))
            synced = min(other.synced, same)
            new = other._replace(term=leader.leads, leads=0, log=log, synced=synced)
            yield f"a follower takes {list(sent)} of term {leader.leads}", s._replace(servers=put(s.servers, j, new))
            durable = synced >= length or not self.on("ack_synced")
            if durable and (leader.leads, length) not in other.acks:
                new = new._replace(acks=new.acks | {(leader.leads, length)})
                yield (
                    f"a follower acknowledges {length} in term {leader.leads}",
                    s._replace(servers=put(s.servers, j, new)),
                )


def _common(a: Log, b: Log) -> Iterator[int]:
    for x, y in zip(a, b, strict=False):
        if x != y:
            return
        yield x


def _order(s: Server) -> tuple[Any, ...]:
    return (*s[:5], sorted(s.acks), s.kept_term)
