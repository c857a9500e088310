"""Model A, leases (protocol 1): one host, leaders of successive terms, clocks that drift and stop.

Raft is a log per leader. Entries of the effective (newest) term can be chosen; an older leader still believes,
receives and proposes, but can only learn what was chosen. A new leader inherits the chosen prefix and any part of the
rest. Time is `t`; the host's clock runs at `hr` a step, the leaders' at `lr` (host slow, leader fast).

With `pod`: the processes of the host. A daemon, its worker, a second worker, and PID 1 of the workers, which is told
`lease_until` and kills at that instant; a successor of the daemon that takes the file lock of the dead (additions 1, 3,
4). PID 1 runs no user code and is in time: time does not pass it by. The daemon may freeze, workers may be unreachable.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from models.explore import Model, Step, put

Beat = tuple[int, int]
Entry = tuple[str, Any, int]


class Leader(NamedTuple):
    """What one leader believes."""

    log: tuple[Entry, ...] = ()  # (kind, argument, term): n no-op, t tick, x expire, r register
    learned: int = 0  # entries it knows to be chosen
    since: int | None = None  # its clock at its own first commit
    last: tuple[int | None, ...] = (None, None, None)  # per incarnation: its clock when a heartbeat arrived
    wait: frozenset[tuple[int, int, int]] = frozenset()  # (incarnation, sent_at, arrived), not yet covered by a tick


class Pod(NamedTuple):
    """The processes of incarnation 1."""

    daemon: str = "up"  # up, frozen, dead
    old: str = ""  # its worker. "": no lock yet; asked: frames lie in its socket; run, idle; lost: cut off; dead
    new: str = ""  # the second worker: "", run, dead
    until: int = 0  # what PID 1 was told
    lock: bool = False  # a successor holds the exclusive lock


class Pool(NamedTuple):
    """A state of the whole."""

    t: int = 0
    stopped: int = 0  # steps in which the host's clock stood still
    boot: int | None = None  # when the node was rebooted (incarnation 2 has a new clock)
    chosen: int = 1
    leaders: tuple[Leader, ...] = ()
    beats: frozenset[Beat] = frozenset()  # heartbeats in flight (incarnation, sent_at)
    relay: frozenset[tuple[int, int, int]] = frozenset()  # held by a follower (incarnation, sent_at, log position)
    acks: frozenset[Beat] = frozenset()
    sent: int = 0
    lease: tuple[int, ...] = (0, 0, 0)  # per incarnation, on its own clock
    effect: str = ""  # "", checked, done
    sealed: bool = False
    pod: Pod = Pod()
    bad: str | None = None


class Lease(Model[Pool]):
    """See the module."""

    ttl, margin, hr, lr = 2, 2, 1, 2
    horizon, beats, terms, log = 4, 2, 2, 4
    restart = effects = pod = False
    FAST = ({"terms": 1}, {"terms": 1, "effects": True}, {"pod": True, "terms": 1, "log": 3, "beats": 1})
    SMALL = (
        {},
        {"restart": True, "terms": 1},
        {"log": 3, "terms": 3, "horizon": 3},
        {"ttl": 6, "margin": 4, "hr": 3, "lr": 5, "log": 3},
        {"pod": True, "terms": 1, "log": 4},
    )
    BIG = {
        "ttl": 6,
        "margin": 4,
        "hr": 3,
        "lr": 5,
        "horizon": 12,
        "beats": 8,
        "terms": 4,
        "log": 14,
        "restart": True,
        "effects": True,
    }
    _POD = {"pod": True, "terms": 1, "log": 3, "beats": 1}
    GUARDS = {
        "sent_at": {"terms": 1},
        "margin": {"terms": 1},
        "boottime": {"terms": 1},
        "received": {"terms": 1},
        "ack_state": {"terms": 1},
        "no_relay_ack": {"terms": 1},
        "commit": {"log": 3},
        "after": {"log": 3},
        "wait_new": {},
        "incarnation": {"restart": True, "terms": 1, "horizon": 3},
        "no_supersede": {"restart": True, "terms": 1, "horizon": 3},
        "fence": {"effects": True, "terms": 1},
        "proof_lock": _POD,
        "proof_workers": _POD,
        "proof_late": _POD,
        "reaped": _POD,
        "kill": _POD,
        "pid1": _POD,
        "own_commit": {"log": 3, "beats": 1},
    }
    SPARE = frozenset({"own_commit"})

    def init(self) -> Pool:
        """One leader, of term 1, with its first entry chosen."""
        return Pool(leaders=(Leader((("n", None, 1),), 1, 0),))

    def hclock(self, s: Pool, inc: int) -> int:
        """Read the boot clock of an incarnation."""
        return (s.t - s.stopped - (s.boot or 0 if inc == 2 else 0)) * self.hr

    def expired(self, log: tuple[Entry, ...]) -> set[int]:
        """Incarnations that ended in a log."""
        gone = {arg for kind, arg, _ in log if kind == "x"}
        return gone | ({1} if not self.on("no_supersede") and any(e[0] == "r" for e in log) else set())

    def check(self, s: Pool) -> str | None:
        """An expired incarnation holds no lease by its own clock, and none of its user code runs."""
        if self.pod and s.pod.new == "run" and s.pod.old in ("run", "lost"):
            return "user code of the agent runs in two processes"
        for inc in self.expired(s.leaders[-1].log[: s.chosen]):
            clock = self.hclock(s, inc)
            if self.pod:
                alive = s.pod.daemon != "dead" and clock < s.lease[1]
                runs = (s.pod.old in ("run", "lost") or s.pod.new == "run") and clock != s.lease[1]
                if alive or runs:
                    return f"the incarnation expired while its {'lease' if alive else 'user code'} runs"
            elif (inc == 1 or s.boot is not None) and clock < s.lease[inc]:
                return f"incarnation {inc} expired while its lease runs"
        return s.bad

    def steps(self, s: Pool) -> Iterator[Step[Pool]]:
        """Time, the host, the entries, the leaders."""
        if s.t < self.horizon and not self.urgent(s):
            yield "time", s._replace(t=s.t + 1)
            if not self.on("boottime"):
                yield "!time, host clock stopped", s._replace(t=s.t + 1, stopped=s.stopped + 1)
        yield from self.host(s)
        if self.effects:
            yield from self.effect(s)
        if self.pod:
            yield from self.processes(s, s.pod)
        if s.chosen < len(s.leaders[-1].log):
            yield f"entry {s.leaders[-1].log[s.chosen][0]} chosen", s._replace(chosen=s.chosen + 1)
        yield from self.elections(s)
        for k, leader in enumerate(s.leaders, 1):
            yield from self.lead(s, k, leader)
        if not self.on("no_relay_ack"):
            yield from self.follower(s)

    def host(self, s: Pool) -> Iterator[Step[Pool]]:
        """Heartbeats and acknowledgements."""
        for inc in (1,) if s.boot is None else (1, 2):
            if self.pod and s.pod.daemon != "up":
                continue
            if s.sent < self.beats:
                beat = (inc, self.hclock(s, inc))
                yield f"host.{inc} sends heartbeat at {beat[1]}", s._replace(beats=s.beats | {beat}, sent=s.sent + 1)
            for ack in s.acks:
                if ack[0] == inc or (inc == 2 and not self.on("incarnation")):
                    start = ack[1] if self.on("sent_at") else self.hclock(s, inc)
                    lease = put(s.lease, inc, max(s.lease[inc], start + self.ttl))
                    yield f"host.{inc} gets ack of {ack}", s._replace(lease=lease, acks=s.acks - {ack})
        if self.restart and s.boot is None and s.t:
            yield "!node reboots / a second process starts", s._replace(boot=s.t)

    def elections(self, s: Pool) -> Iterator[Step[Pool]]:
        """A new leader keeps what was chosen, and any part of the rest."""
        top = len(s.leaders)
        if top < self.terms:
            for cut in range(s.chosen, len(s.leaders[-1].log) + 1):
                new = Leader((*s.leaders[-1].log[:cut], ("n", None, top + 1)), min(s.chosen, cut))
                if not self.on("own_commit"):
                    new = new._replace(since=s.t * self.lr)
                yield f"!leader {top + 1} elected, keeps {cut} entries", s._replace(leaders=(*s.leaders, new))

    def follower(self, s: Pool) -> Iterator[Step[Pool]]:
        """A follower that answers for the leader: without [no_relay_ack]."""
        for beat in s.beats:
            held = (*beat, len(s.leaders[-1].log))
            yield f"follower holds {beat}", s._replace(beats=s.beats - {beat}, relay=s.relay | {held})
        for inc, sent, at in s.relay:
            if at < s.chosen and s.leaders[-1].log[at][0] == "t":
                acks = s.acks | {(inc, sent)}
                yield f"follower acks {(inc, sent)}", s._replace(acks=acks, relay=s.relay - {(inc, sent, at)})

    def lead(self, s: Pool, k: int, me: Leader) -> Iterator[Step[Pool]]:
        """What leader k does, deposed or not."""
        now = s.t * self.lr

        def swap(new: Leader, **rest: Any) -> Pool:
            return s._replace(leaders=put(s.leaders, k - 1, new), **rest)

        for beat in s.beats:
            last = put(me.last, beat[0], now) if self.on("received") else me.last
            got = swap(me._replace(last=last, wait=me.wait | {(*beat, now)}), beats=s.beats - {beat})
            yield f"leader {k} receives {beat}", got
            if not self.on("commit"):
                yield f"leader {k} receives and acks {beat}", got._replace(acks=s.acks | {beat})
        if len(me.log) < self.log:
            for label, entry, wait in self.proposals(s, me, now):
                yield f"leader {k} proposes {label}", swap(me._replace(log=(*me.log, (*entry, k)), wait=wait))
        chosen = s.leaders[-1].log[: s.chosen]
        if me.learned < min(len(me.log), len(chosen)) and chosen[me.learned] == me.log[me.learned]:
            new, acks = self.learn(k, me, now)
            yield f"leader {k} learns {me.log[me.learned][0]}", swap(new, acks=s.acks | acks)

    def proposals(self, s: Pool, me: Leader, now: int) -> Iterator[tuple[str, tuple[str, Any], frozenset[Any]]]:
        """Entries that a leader may propose now: label, entry, who still waits."""
        if me.wait or not self.on("after") or not self.on("no_relay_ack"):  # an empty tick changes nothing
            yield "tick", ("t", me.wait), frozenset()
        registered = any(e[0] == "r" for e in me.log)
        if 2 in {w[0] for w in me.wait} and not registered:
            yield "register host.2", ("r", 2), me.wait
        margin = self.margin if self.on("margin") else 0
        known = {1, 2} if any(e[0] == "r" for e in me.log[: me.learned]) else {1}
        for inc in known - {e[1] for e in me.log if e[0] == "x"}:
            since = [v for v in (me.since if self.on("wait_new") else None, me.last[inc]) if v is not None]
            if me.since is not None and (not since or now >= max(since) + self.ttl + margin):
                yield f"expire host.{inc}", ("x", inc), me.wait
        if s.pod.lock and not any(e[0] == "x" for e in me.log):
            yield "expire host.1, with the proof of its death", ("x", 1), me.wait

    def learn(self, k: int, me: Leader, now: int) -> tuple[Leader, frozenset[Beat]]:
        """Take the next chosen entry, and acknowledge what it covers."""
        kind, arg, term = me.log[me.learned]
        new = me._replace(learned=me.learned + 1)
        if term == k and kind == "n" and self.on("own_commit"):
            new = new._replace(since=now)
        cover: frozenset[tuple[int, int, int]] = arg if term == k and kind == "t" else frozenset()
        if not self.on("after"):
            cover, new = cover | me.wait, new._replace(wait=frozenset())
        ended = self.expired(me.log[: new.learned]) if self.on("ack_state") else set[int]()
        members = {1, 2} if any(e[0] == "r" for e in me.log[: new.learned]) else {1}
        cover = frozenset(c for c in cover if c[0] in members - ended)
        if not self.on("received"):
            for inc, _, arrived in cover:
                new = new._replace(last=put(new.last, inc, arrived))
        return new, frozenset(c[:2] for c in cover)

    def effect(self, s: Pool) -> Iterator[Step[Pool]]:
        """The holder checks its lease, may be paused, then writes. A new holder seals once host.1 is expired."""
        if not s.effect and self.hclock(s, 1) < s.lease[1]:
            yield "host.1 checks its lease: valid", s._replace(effect="checked")
        if 1 in self.expired(s.leaders[-1].log[: s.chosen]) and not s.sealed:
            yield "new holder seals", s._replace(sealed=True)
        if s.effect == "checked":
            late = s.sealed and not self.on("fence")
            bad = "old holder's write landed after the seal" if late else None
            yield "host.1 writes", s._replace(effect="done", bad=bad)

    # --- processes (additions 1, 3, 4) ------------------------------------------------------------------------------

    def urgent(self, s: Pool) -> bool:
        """PID 1 must kill now. Without [pid1] the daemon would have to, and it may be frozen or dead."""
        runs = s.pod.old in ("asked", "run", "lost") or s.pod.new == "run"
        able = self.on("pid1") or s.pod.daemon == "up"
        return self.pod and runs and self.on("kill") and able and self.hclock(s, 1) >= s.pod.until

    def processes(self, s: Pool, p: Pod) -> Iterator[Step[Pool]]:
        """Daemon, workers, PID 1, a successor."""

        def pod(**change: Any) -> Pool:
            return s._replace(pod=p._replace(**change))

        serves = p.daemon == "up" and self.hclock(s, 1) < s.lease[1]
        if serves and not p.old:
            yield "the daemon sends a turn to a worker that has no lock yet", pod(old="asked")
        if p.old == "asked" and (not p.lock or not self.on("proof_late")):
            yield "the worker takes the shared lock and runs", pod(old="run")
        if serves and p.old == "idle":
            yield "the worker starts a turn", pod(old="run")
        if serves and not p.new and (p.old == "dead" or (p.old == "lost" and not self.on("reaped"))):
            yield "a second worker runs the agent, in the same epoch", pod(new="run")
        if p.daemon != "dead" and p.until < s.lease[1]:
            yield "PID 1 is told lease_until", pod(until=s.lease[1])
        if p.daemon == "up":
            yield "!the daemon freezes", pod(daemon="frozen")
        if p.daemon != "dead":
            yield "!the daemon dies", pod(daemon="dead")
        if p.old == "run":
            yield "the turn ends", pod(old="idle")
            yield "!the worker is cut off", pod(old="lost")
        if p.old in ("asked", "run", "lost"):
            yield "PID 1 kills the worker", pod(old="dead")
        if p.new == "run":
            yield "PID 1 kills the second worker", pod(new="dead")
        if p.old == "idle" and p.daemon == "dead":
            yield "the worker ends: its daemon is gone", pod(old="dead")
        holds = p.daemon != "dead" or (
            self.on("proof_workers") and (p.old in ("run", "idle", "lost") or p.new == "run")
        )
        if not p.lock and (not holds or not self.on("proof_lock")):
            yield "a successor takes the exclusive lock", pod(lock=True)
