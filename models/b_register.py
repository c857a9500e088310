"""Model B, the quorum register (protocol 2): three servers, owners of successive epochs; messages late, lost, repeated.

A value is its own history: the tuple of the writes that led to it, so that "is an ancestor of" is "is a prefix of". A
request stays deliverable for ever (delay, loss, reordering, zombies of old epochs). A reply is kept beside the server
that gave it and used by the owner at any later time, or never. Servers are kept sorted (symmetry).

Additions: `reads` (5, quorum reads by Check), `sleep` (6, a bulk take-over reads `wake_at` from its seals; an owner
whose agent slept reads its version again), `lose` (7, `Ready`), `delta` (8), `replace` (disks replaced one at a time;
rejoin 1 to 4), `first` (the first epoch of a uid is not sealed).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from models.explore import Model, Step, put

Version = tuple[int, int]
Write = tuple[int, int, int, int]
History = tuple[Write, ...]


class Server(NamedTuple):
    """One server's disk, and the answers that it gave."""

    sealed: int = 0
    version: Version = (0, 0)
    value: History = ()
    view: int = 0
    joining: bool = False  # its disk was replaced and it does not answer yet
    given: bool = False  # it was read by the joining server
    synced: tuple[Any, ...] = ()  # with a sync guard off: what a crash would restore
    replies: frozenset[tuple[int, Version, History]] = frozenset()  # answers to seals: (epoch, version, value)
    took: frozenset[tuple[int, int]] = frozenset()  # answers to writes: (epoch, number of the write)
    checked: frozenset[int] = frozenset()  # answers to checks: epochs


class Op(NamedTuple):
    """One write of an owner."""

    version: Version
    value: History
    base: Version | None = None  # a delta: the version before it
    done: bool = False


class Owner(NamedTuple):
    """The holder at one epoch."""

    phase: str = "seal"  # seal, repair, ready, down
    view: int = 0
    value: History = ()
    seq: int = 0
    ops: tuple[Op, ...] = ()
    shown: History = ()  # what it knows to be committed (with `reads`)


class World(NamedTuple):
    """A state of the whole."""

    servers: tuple[Server, ...] = (Server(), Server(), Server())
    owners: tuple[Owner, ...] = ()
    view: int = 0
    uid: int = 1
    adopted: tuple[int, History] = (0, ())  # the newest epoch that became ready, and what it adopted
    visible: History = ()  # the longest history that anybody outside has seen
    read: tuple[int, History] | None = None  # a read under way: its owner, and what was visible when it arrived
    reads: int = 0
    ready: bool = False  # the registry has a Ready
    lost: bool = False
    bad: str | None = None


def _order(s: Server) -> tuple[Any, ...]:
    return (*s[:7], sorted(s.replies), sorted(s.took), sorted(s.checked))


_W11, _W12 = (1, 1, 1, 0), (1, 1, 2, 0)
_OPEN = (Op((1, 1), (_W11,)), Op((1, 2), (_W11, _W12)))
_PARTIAL = World(
    servers=(Server(), Server(), Server(1, (1, 1), (_W11,))),
    owners=(Owner("ready", 0, (_W11,), 1, _OPEN[:1]),),
)
_PIPELINED = World(
    servers=(Server(), Server(), Server(1, (1, 2), (_W11, _W12))),
    owners=(Owner("ready", 0, (_W11, _W12), 2, _OPEN),),
)
"""Owner 1 has sent its writes, and one server has taken the last of them."""


class Register(Model[World]):
    """See the module."""

    begin = World()

    epochs, writes, pipeline, replace, reads = 3, 1, 1, 0, 0
    recreate = reuse = delta = sleep = lose = first = False
    FAST = (
        {"epochs": 2},
        {"epochs": 2, "delta": True},
        {"epochs": 2, "sleep": True},
        {"epochs": 2, "lose": True},
        {"epochs": 2, "first": True, "lose": True},
    )
    SMALL = (
        {"writes": 2},
        {"epochs": 2, "writes": 3, "pipeline": 2},
        {"epochs": 2, "replace": 1},
        {"epochs": 1, "replace": 2},
        {"epochs": 2, "writes": 2, "recreate": True},
        {"epochs": 2, "writes": 3, "pipeline": 2, "delta": True},
        {"epochs": 2, "reads": 1},
        {"epochs": 3, "reads": 1},
        {"epochs": 3, "sleep": True},
        {"epochs": 3, "first": True},
        {"epochs": 2, "first": True, "writes": 2, "pipeline": 2, "delta": True},
        {"epochs": 2, "first": True, "replace": 1},
        {"epochs": 2, "first": True, "reads": 1},
        {"epochs": 2, "first": True, "recreate": True},
    )
    BIG = {"epochs": 6, "writes": 3, "pipeline": 2, "replace": 3, "recreate": True, "delta": True, "reads": 3}
    GUARDS = {
        "seal": {},
        "order": {"epochs": 2, "writes": 2},
        "epoch_first": {"begin": _PIPELINED},
        "seal_majority": {"epochs": 2},
        "write_majority": {"epochs": 2},
        "repair": {},
        "sync_write": {"epochs": 2},
        "sync_seal": {"epochs": 2},
        "rejoin": {"epochs": 2, "replace": 1},
        "rejoin_all": {"epochs": 2, "replace": 1},
        "rejoin_kept": {"epochs": 2, "replace": 1},
        "one_at_a_time": {"epochs": 1, "replace": 2},
        "view": {"epochs": 2, "replace": 1},
        "uid": {"epochs": 2, "recreate": True},
        "epoch_once": {"epochs": 2, "reuse": True},
        "delta_base": {"epochs": 2, "writes": 2, "pipeline": 2, "delta": True},
        "delta_epoch": {"writes": 2, "delta": True, "begin": _PARTIAL},
        "check_after": {"epochs": 2, "reads": 1},
        "check_majority": {"epochs": 2, "reads": 1},
        "check_sealed": {"epochs": 2, "reads": 1},
        "wake_highest": {"epochs": 2, "sleep": True},
        "sleep_settled": {"sleep": True},
        "nothing": {"epochs": 2, "lose": True},
        "first_epoch": {"epochs": 2, "first": True},
        "ready_written": {"epochs": 2, "first": True, "lose": True},
        "check_equal": {"epochs": 2, "reads": 1},
        "write_raises": {"epochs": 2},
        "unanimous": {"epochs": 2},
    }
    SPARE = frozenset({"write_raises", "unanimous", "check_equal"})

    def init(self) -> World:
        """Nothing stored, nobody assigned; or as configured."""
        return self.begin

    def check(self, s: World) -> str | None:
        """What `see` and the others found; and a store that can never answer again."""
        if sum(server.joining for server in s.servers) > 1:
            return "two servers join, and each waits for the other for ever"
        return s.bad

    def need(self, guard: str) -> int:
        """Answers that are wanted."""
        return 2 if self.on(guard) else 1

    def steps(self, s: World) -> Iterator[Step[World]]:
        """Each successor, its servers in order."""
        for label, n in self.raw(s):
            yield label, n._replace(servers=tuple(sorted(n.servers, key=_order)))

    def raw(self, s: World) -> Iterator[Step[World]]:
        """Everything that can happen."""
        if len(s.owners) < self.epochs:
            yield f"epoch {len(s.owners) + 1} assigned", self.assigned(s)
        for e, owner in enumerate(s.owners, 1):
            yield from self.own(s, e, owner)
            for n, op in enumerate(owner.ops):
                yield from self.store(s, e, owner, n, op)
            if self.reads:
                yield from self.reading(s, e, owner)
        for i, server in enumerate(s.servers):
            yield from self.disk(s, i, server)
        if self.recreate and s.uid == 1 and s.owners:
            clean = tuple(Server() for _ in s.servers) if self.on("uid") else s.servers  # another uid, another record
            yield "agent deleted and created again", World(servers=clean, uid=2)
        if self.lose and not s.lost and s.visible:
            yield "!every disk is lost", s._replace(servers=(Server(),) * 3, lost=True)
        written = s.visible if self.on("ready_written") else s.adopted[0]
        if self.lose and written and not s.ready and not s.lost:
            yield "Ready is committed", s._replace(ready=True)

    # --- disks ------------------------------------------------------------------------------------------------------

    def disk(self, s: World, i: int, me: Server) -> Iterator[Step[World]]:
        """Replacement, views, crashes of one server."""

        def swap(new: Server, **rest: Any) -> World:
            return s._replace(servers=put(s.servers, i, new), **rest)

        busy = any(server.joining for server in s.servers)
        if s.view < self.replace and (not busy or not self.on("one_at_a_time")):
            new = Server(view=s.view + 1, joining=self.on("rejoin"), replies=me.replies, took=me.took)
            yield f"!ReplaceServer: {me.version} comes back with an empty disk", swap(new, view=s.view + 1)
        if me.view < s.view:
            yield f"server with {me.version} learns view {s.view}", swap(me._replace(view=s.view))
        if me.joining:
            yield from self.rejoin(s, i, me)
            if not self.on("rejoin_kept"):
                yield "!the joining server restarts and takes its disk for a good one", swap(me._replace(joining=False))
        if me.synced:
            sealed, version, value = me.synced
            old = me._replace(sealed=sealed, version=version, value=value, synced=())
            yield f"!server with {me.version} crashes, loses what was not synced", swap(old)

    def rejoin(self, s: World, i: int, me: Server) -> Iterator[Step[World]]:
        """Rejoin 4: read every record from a majority of the others, in the new view."""
        for j, other in enumerate(s.servers):
            fits = not other.joining and (other.view == s.view or not self.on("view"))
            if j != i and not other.given and fits:
                version, value = max((me.version, me.value), (other.version, other.value))
                new = me._replace(sealed=max(me.sealed, other.sealed), version=version, value=value)
                servers = put(put(s.servers, i, new), j, other._replace(given=True))
                yield f"joining server reads {other.version}", s._replace(servers=servers)
        if sum(server.given for server in s.servers) >= self.need("rejoin_all"):
            done = put(s.servers, i, me._replace(joining=False))
            servers = tuple(server._replace(given=False) for server in done)
            yield "joining server answers again", s._replace(servers=servers)

    # --- owners -----------------------------------------------------------------------------------------------------

    def assigned(self, s: World) -> World:
        """The next epoch: before the first there was none, so that there is nobody to silence and nothing to adopt."""
        bare = self.first and (not s.owners or not self.on("first_epoch"))
        owner = Owner(phase="ready" if bare else "seal", view=s.view)
        new = s._replace(owners=(*s.owners, owner))
        return self.see(new, len(new.owners), (), adopt=True) if bare else new

    def own(self, s: World, e: int, me: Owner) -> Iterator[Step[World]]:
        """What the owner of epoch e does, but for its open writes."""

        def owner(new: Owner, **rest: Any) -> World:
            return s._replace(owners=put(s.owners, e - 1, new), **rest)

        if self.on("view") and me.view < s.view:  # answers collected under an old view do not count: ask again
            servers = tuple(_forget(server, e) for server in s.servers)
            yield f"owner {e} learns view {s.view}", owner(me._replace(view=s.view), servers=servers)
        if me.phase == "seal":
            yield from self.sealing(s, e, me)
            replies = sorted(r[1:] for v in s.servers for r in v.replies if r[0] == e)
            if len(replies) >= self.need("seal_majority"):
                yield from self.adopt(s, e, me, replies)
        if me.phase == "ready" and sum(not op.done for op in me.ops) < self.pipeline and len(me.ops) < self.writes + 1:
            value = (*me.value, (s.uid, e, me.seq + 1, len(me.ops) if self.reuse else 0))
            last = me.ops[-1].version if me.ops else None  # an adopted version is not its own: the first is whole
            op = Op((e, me.seq + 1), value, last if self.delta else None)
            new = me._replace(value=value, seq=me.seq + 1, ops=(*me.ops, op))
            yield f"owner {e} writes {op.version}", owner(new)
        if self.sleep and me.phase == "ready" and me.ops:
            yield from self.wake(s, e, me)
        if self.reuse and not self.on("epoch_once") and me.phase == "ready":
            yield f"!host restarts and keeps epoch {e}", owner(me._replace(phase="seal"))

    def wake(self, s: World, e: int, me: Owner) -> Iterator[Step[World]]:
        """Its agent slept, with every write committed, and wakes: the version that it had is read from any server."""
        if self.on("sleep_settled") and not all(op.done for op in me.ops):
            return
        for server in s.servers:
            if server.version == me.ops[-1].version and not server.joining:
                label = f"owner {e} slept, wakes, reads {server.version}"
                yield label, self.see(s, e, server.value, adopt=True)

    def sealing(self, s: World, e: int, me: Owner) -> Iterator[Step[World]]:
        """Servers take the seal."""
        for i, server in enumerate(s.servers):
            fits = not server.joining and (server.view == me.view or not self.on("view"))
            if fits and e >= server.sealed and e not in {r[0] for r in server.replies}:
                kept = () if self.on("sync_seal") else (server.sealed, server.version, server.value)
                kept = server.synced or kept
                new = server._replace(
                    sealed=e, synced=kept, replies=server.replies | {(e, server.version, server.value)}
                )
                yield f"server with {server.version} seals {e}", s._replace(servers=put(s.servers, i, new))

    def adopt(self, s: World, e: int, me: Owner, replies: list[tuple[Version, History]]) -> Iterator[Step[World]]:
        """A majority has sealed: adopt the highest; or note its wake-up time, and sleep on."""
        version, value = max(replies, key=lambda r: r[0] if self.on("epoch_first") else r[0][::-1])
        same = sum(r[0] == version for r in replies) >= 2
        servers = tuple(v._replace(replies=frozenset(r for r in v.replies if r[0] != e)) for v in s.servers)

        def owner(new: Owner) -> World:
            return s._replace(owners=put(s.owners, e - 1, new), servers=servers)

        if self.sleep:
            noted = value if self.on("wake_highest") else replies[0][1]
            missed = e > s.adopted[0] and noted[: len(s.visible)] != s.visible
            bad = "a wake-up time that was committed is not known to the new holder" if missed else None
            yield f"owner {e} leaves the agent asleep, notes the time of {noted[-1:]}", s._replace(bad=bad)
        if self.lose and not value and s.ready and self.on("nothing"):
            down = owner(me._replace(phase="down"))
            late = s.lost or e < s.adopted[0]  # an owner that is late serves nobody
            bad = None if late else "an agent of which nothing was ever written stays down"
            yield f"owner {e} finds nothing where there was something: down", down._replace(bad=bad)
        elif not self.on("repair") or (same and self.on("unanimous")):
            ready = me._replace(phase="ready", value=value, seq=version[1], shown=value if self.reads else ())
            yield f"owner {e} adopts {version}, ready", self.see(owner(ready), e, value, adopt=True)
        else:
            op = Op((e, version[1]), value)
            repair = me._replace(phase="repair", value=value, seq=version[1], ops=(*me.ops, op))
            yield f"owner {e} adopts {version}, writes it back", owner(repair)

    def store(self, s: World, e: int, me: Owner, n: int, op: Op) -> Iterator[Step[World]]:
        """Servers take one write; its owner counts."""
        for i, server in enumerate(s.servers):
            if (e, n) in server.took or server.joining or (self.on("view") and server.view != me.view):
                continue
            if self.on("seal") and e < server.sealed:
                continue
            if op.version < server.version and (self.on("order") or op.version[0] != server.version[0]):
                continue
            kept = server.synced or (() if self.on("sync_write") else (server.sealed, server.version, server.value))
            sealed = max(server.sealed, e) if self.on("write_raises") else server.sealed
            value = server.value if op.version == server.version else self.taken(server, op)
            took = server.took if op.done else server.took | {(e, n)}
            new = server._replace(sealed=sealed, version=op.version, value=value, synced=kept, took=took)
            if new != server:
                yield f"server with {server.version} takes {op.version}", s._replace(servers=put(s.servers, i, new))
        if not op.done and sum((e, n) in server.took for server in s.servers) >= self.need("write_majority"):
            servers = tuple(v._replace(took=v.took - {(e, n)}) for v in s.servers)
            shown = max(me.shown, op.value, key=len) if self.reads else ()
            done = me._replace(ops=put(me.ops, n, op._replace(done=True)), phase="ready", shown=shown)
            out = s._replace(owners=put(s.owners, e - 1, done), servers=servers)
            yield f"owner {e}: {op.version} acknowledged", self.see(out, e, op.value, adopt=me.phase == "repair")

    def taken(self, server: Server, op: Op) -> History:
        """What is stored: the delta on its base, else (NeedBase) the whole record."""
        if op.base is None:
            return op.value
        part = slice(None) if self.on("delta_epoch") else slice(1, None)
        if server.version[part] == op.base[part] or not self.on("delta_base"):
            return (*server.value, op.value[-1])
        return op.value

    def reading(self, s: World, e: int, me: Owner) -> Iterator[Step[World]]:
        """A read that is true without a clock: a majority, asked after it arrived, has sealed nothing higher."""
        if me.phase == "ready" and s.read is None and s.reads < self.reads:
            servers = s.servers
            if self.on("check_after"):
                servers = tuple(v._replace(checked=v.checked - {e}) for v in servers)
            yield f"owner {e} is asked for its state", s._replace(read=(e, s.visible), servers=servers)
        for i, server in enumerate(s.servers):
            asked = (s.read is not None and s.read[0] == e) or (not self.on("check_after") and me.phase == "ready")
            fits = not server.joining and (server.view == me.view or not self.on("view"))
            good = (
                server.sealed == e or (server.sealed < e and not self.on("check_equal")) or not self.on("check_sealed")
            )
            if asked and fits and good and e not in server.checked:
                new = server._replace(checked=server.checked | {e})
                yield f"server with {server.version} answers Check {e}", s._replace(servers=put(s.servers, i, new))
        count = sum(e in server.checked for server in s.servers)
        if s.read is not None and s.read[0] == e and count >= self.need("check_majority"):
            missed = me.shown[: len(s.read[1])] != s.read[1]
            bad = "a quorum read missed what was visible when it arrived" if missed else None
            servers = tuple(v._replace(checked=v.checked - {e}) for v in s.servers)
            yield (
                f"owner {e} answers with {me.shown[-1:]}",
                s._replace(read=None, reads=s.reads + 1, servers=servers, bad=bad),
            )

    def see(self, s: World, e: int, value: History, *, adopt: bool) -> World:
        """A history becomes visible: an owner is ready with it, or a write is acknowledged."""
        epoch, base = s.adopted
        bad = None
        if any(write[0] != s.uid for write in value):
            bad = "the state of a deleted agent was adopted"
        elif s.lost:  # more than a minority: only what the registry knows can be held against it
            bad = "an agent starts empty where there was a state" if s.ready and adopt and not value else None
        elif e < epoch and value != base[: len(value)]:
            bad = f"owner {e} got an acknowledgement that epoch {epoch} does not have"
        elif e >= epoch and value[: len(s.visible)] != s.visible and (adopt or s.visible[: len(value)] != value):
            bad = f"owner {e} shows a history without a visible write"
        if adopt and e >= epoch:
            s = s._replace(adopted=(e, value))
        return s._replace(visible=max(s.visible, value, key=len), bad=bad)


def _forget(server: Server, e: int) -> Server:
    """Answers to epoch e, collected under an old view."""
    replies = frozenset(r for r in server.replies if r[0] != e)
    took = frozenset(t for t in server.took if t[0] != e)
    return server._replace(replies=replies, took=took, checked=server.checked - {e})
