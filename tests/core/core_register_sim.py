"""A simulated store: servers, owners of successive epochs, and a network that loses, doubles, delays and reorders.

The value of a record is its own history (as in protocol/b_register.py): "is an ancestor of" is "is a prefix of". Beside
the history, the record has keys that are written as deltas only; they must always equal what the history says.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tenured.core import cells, frames
from tenured.core import joining as j
from tenured.core.owner import FIRST_EPOCH, Owner

NS = 1_000_000_000


History = tuple[str, ...]
"""The writes that led to a record, oldest first."""
Message = tuple[int, str, frames.Request, frames.Answer | None]
"""epoch, server, request, and the answer when it is on its way back"""


class Violation(AssertionError):
    """An invariant does not hold; the transcript says how it came about."""


@dataclass
class Guards:
    """What a server checks; mutations replace one."""

    seal: Callable[..., cells.WriteDecision] = cells.guard_seal
    write: Callable[..., cells.WriteDecision] = cells.guard_write
    view: Callable[..., cells.Verdict] = cells.guard_view
    merge: Callable[..., j.Step | None] = j.merge
    """Of a joining server."""
    one_at_a_time: bool = True
    """The registry refuses to replace a disk while another one is joining."""


def entries_of(history: History) -> dict[str, bytes]:
    """What the record must be after these writes: `h` the history, `k0`..`k3` written and deleted by deltas."""
    entries = {"h": ",".join(history).encode()} if history else {}
    for write in history:
        number = int(write.rsplit(".", 1)[1])
        if number % 7 == 0:
            entries.pop(f"k{number % 4}", None)
        else:
            entries[f"k{number % 4}"] = write.encode()
    return entries


def history_of(entries: Mapping[str, bytes]) -> History:
    return tuple(entries["h"].decode().split(",")) if "h" in entries else ()


@dataclass
class Server:
    view: int = 1
    joining: bool = False
    cell: cells.Cell = field(default_factory=cells.Cell)
    entries: dict = field(default_factory=dict)
    pages: dict[str, j.Page] = field(default_factory=dict)
    """While joining: what the others have told of the record, under `view`."""

    def page(self, view: int, guards: Guards) -> j.Page | None:
        """Tell a joining server of the record; None: refused, as `server.lending` does."""
        if guards.view(view, self.view, joining=self.joining) is not cells.Verdict.OK:
            return None
        known = self.cell != cells.Cell()
        return j.Page([j.Head("7", self.cell.sealed, self.cell.version)] if known else [], total=int(known))

    def answer(self, request: frames.Request, guards: Guards) -> frames.Answer | None:
        verdict = guards.view(request.view, self.view, joining=self.joining)
        if isinstance(request, frames.Read):
            if verdict is not cells.Verdict.OK:
                return None
            return frames.Record(version=self.cell.version, entries=dict(self.entries))
        if isinstance(request, frames.Seal):
            if verdict is not cells.Verdict.OK:
                return frames.Sealed(verdict=verdict)
            decision = guards.seal(self.cell, request.epoch)
            self.cell = decision.cell
            small = len(self.entries) < 4  # larger ones are fetched by Read
            entries = dict(self.entries) if small else None
            return frames.Sealed(
                verdict=decision.verdict, sealed=self.cell.sealed, version=self.cell.version, entries=entries
            )
        if verdict is not cells.Verdict.OK:
            return frames.Written(verdict=verdict)
        decision = guards.write(self.cell, request.version, request.base)
        if decision.store:
            if request.base is None:
                self.entries = dict(request.puts)
            else:
                for name in request.deletes:
                    self.entries.pop(name, None)
                self.entries |= request.puts
        self.cell = decision.cell
        return frames.Written(verdict=decision.verdict, sealed=self.cell.sealed, version=self.cell.version)


class StoreSim:
    """One run; `step` does one random thing. All randomness is of the seed."""

    def __init__(
        self,
        seed: int,
        *,
        servers: int = 3,
        owner: type[Owner] = Owner,
        guards: Guards | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.owner_class = owner
        self.guards = guards or Guards()
        self.names = [f"s{n}" for n in range(servers)]
        self.servers = {name: Server() for name in self.names}
        self.owners = {}
        self.net = []  # (epoch, server, request, answer or None)
        self.now = 0
        self.view = 1
        self.lost_disks = 0
        self.blocked = set()
        self.writes = {}  # epoch -> {seq: history}
        self.visible = ()
        self.newest = (0, ())
        self.acknowledged = False
        self.transcript = []

    def note(self, text: str) -> None:
        self.transcript.append(f"{self.now / NS:8.3f} {text}")

    def fail(self, text: str) -> None:
        raise Violation(f"seed {self.seed}: {text}\n" + "\n".join(self.transcript[-60:]))

    # --- what may happen ---------------------------------------------------------------------------------------

    def run(self, steps: int = 250) -> None:
        for _ in range(steps):
            self.step()
        self.settle()

    def step(self) -> None:
        kind = self.random.choices(
            ["deliver", "double", "lose", "tick", "write", "assign", "break", "block", "replace", "learn"],
            [44, 4, 4, 8, 14, 2, 2, 4, 1, 4],
        )[0]
        getattr(self, f"do_{kind}")()

    def do_assign(self) -> None:
        """A new epoch; the old owner is not told."""
        epoch = len(self.owners) + 1
        first = epoch == FIRST_EPOCH and self.seed % 2 == 1  # PostgreSQL's first epochs are sealed
        owner = self.owner_class("7", epoch, self.names, view=self.view, expect_state=self.acknowledged, first=first)
        self.owners[epoch] = owner
        self.writes[epoch] = {}
        self.note(f"owner {epoch} starts")
        self.take(epoch, owner.start(self.now))

    def do_deliver(self) -> None:
        free = [at for at, message in enumerate(self.net) if message[:2] not in self.blocked]
        if free:
            # Mostly in order, as a stream does it; sometimes any message at all.
            at = free[0] if self.random.random() < 0.6 else self.random.choice(free)
            self.deliver(self.net.pop(at))

    def do_double(self) -> None:
        if self.net:
            self.net.append(self.random.choice(self.net))

    def do_lose(self) -> None:
        if self.net:
            self.net.pop(self.random.randrange(len(self.net)))

    def do_tick(self) -> None:
        self.now += self.random.randrange(NS // 2)
        for epoch, owner in self.owners.items():
            self.take(epoch, owner.tick(self.now))

    def do_write(self) -> None:
        ready = [e for e, owner in self.owners.items() if owner.phase is frames.Phase.READY and owner.version.seq < 60]
        if not ready:
            return
        epoch = self.random.choice(ready)
        self.write(epoch)

    def write(self, epoch: int) -> None:
        owner = self.owners[epoch]
        before = entries_of(history_of(owner.entries))
        number = owner.version.seq + 1
        history = (*history_of(owner.entries), f"{epoch}.{number}")
        after = entries_of(history)
        puts = {name: data for name, data in after.items() if before.get(name) != data}
        seq, output = owner.write(self.now, puts, [name for name in before if name not in after])
        self.writes[epoch][seq] = history
        self.note(f"owner {epoch} writes {seq}")
        self.take(epoch, output)

    def write_on_all(self, epoch: int) -> None:
        """Become ready and write once, on every server."""
        self.deliver_all(epoch, *self.names)
        self.write(epoch)
        self.deliver_all(epoch, *self.names)

    def do_block(self) -> None:
        """Some links stand still for a while: what is on them arrives later, or after the next epoch's."""
        links = [(epoch, name) for epoch in self.owners for name in self.names]
        self.blocked = {link for link in links if self.random.random() < 0.4}

    def do_break(self) -> None:
        """A connection breaks: what is under way on it is lost, then it comes back."""
        if not self.owners:
            return
        epoch, server = self.random.choice(list(self.owners)), self.random.choice(self.names)
        self.owners[epoch].lost(server)
        self.net = [m for m in self.net if (m[0], m[1]) != (epoch, server)]
        self.note(f"owner {epoch} lost {server}")
        self.take(epoch, self.owners[epoch].restored(self.now, server))

    def do_replace(self) -> None:
        """A disk is lost: its server joins under a new view. One at a time, up to three times in a run."""
        joining = any(server.joining for server in self.servers.values())
        if self.lost_disks == 3 or not self.owners or (joining and self.guards.one_at_a_time):
            return
        self.lose_disk(self.random.choice(self.names))

    def lose_disk(self, name: str) -> None:
        self.lost_disks += 1
        self.view += 1
        self.servers[name] = Server(view=self.view, joining=True)
        self.note(f"{name} comes back with an empty disk")

    def do_learn(self) -> None:
        """A server or an owner learns the view; a joining server asks some other one for the record."""
        who = self.random.choice([*self.names, *self.owners])
        if isinstance(who, int):
            self.take(who, self.owners[who].view_changed(self.now, self.view))
            return
        self.tell_view(who)
        for name, server in self.servers.items():
            if server.joining and name != who and self.random.random() < 0.5:
                self.read_on(name, server, who)

    def tell_view(self, name: str) -> None:
        server = self.servers[name]
        if server.view != self.view:
            server.view = self.view
            server.pages.clear()  # answers of an old view no longer count

    def read_on(self, name: str, server: Server, other: str) -> None:
        """One step of rejoin 4: a page of one other server, and when enough are there, the record itself."""
        page = self.servers[other].page(server.view, self.guards)
        if page is None:
            return
        server.pages[other] = page
        step = self.guards.merge(server.pages, len(self.servers) - 1)
        if step is None:
            return
        for need in step.needs:
            held = [self.servers[holder] for holder in need.holders]
            best = max(held, key=lambda holder: holder.cell.version, default=None)
            if best is not None:  # the record may have grown since it was listed
                server.cell, server.entries = cells.Cell(need.sealed, best.cell.version), dict(best.entries)
            server.cell = cells.Cell(max(need.sealed, server.cell.version.epoch), server.cell.version)
        server.joining = False
        server.pages.clear()
        self.note(f"{name} answers again with {server.cell}")

    # --- the network ------------------------------------------------------------------------------------------

    def deliver(self, message: Message) -> None:
        epoch, name, request, answer = message
        if answer is None:
            answer = self.servers[name].answer(request, self.guards)
            self.check_server(name)
            self.note(f"{name} <- {type(request).__name__} of {epoch}: {getattr(answer, 'verdict', answer)}")
            if answer is not None:
                self.net.append((epoch, name, request, answer))
        else:
            self.take(epoch, self.owners[epoch].answered(self.now, name, request, answer))

    def deliver_all(self, epoch: int, *names: str) -> None:
        """Everything between an owner and these servers, there and back; what goes elsewhere stays on its way."""
        while found := next((m for m in self.net if m[0] == epoch and m[1] in names), None):
            self.net.remove(found)
            self.deliver(found)

    def take(self, epoch: int, output: frames.Output) -> None:
        self.net += [(epoch, send.server, send.request, None) for send in output.sends]
        for outcome in output.outcomes:
            self.note(f"owner {epoch}: {type(outcome).__name__} {getattr(outcome, 'seq', '')}")
            match outcome:
                case frames.Adopted():
                    history = history_of(outcome.entries)
                    if dict(outcome.entries) != entries_of(history):
                        self.fail(f"owner {epoch} adopts keys that its history {history} does not give")
                    self.see(epoch, history, adopt=True)
                case frames.Committed():
                    self.acknowledged = True
                    self.see(epoch, self.writes[epoch][outcome.seq], adopt=False)
                case frames.Unreadable():
                    self.fail(f"owner {epoch} finds nothing although {self.visible} was acknowledged")

    # --- the invariants (protocol 2; b_register.see) ------------------------------------------------------------

    def see(self, epoch: int, history: History, *, adopt: bool) -> None:
        """A history becomes visible: an owner is ready with it, or a write is acknowledged."""
        newest, base = self.newest
        if epoch < newest and history != base[: len(history)]:
            self.fail(f"owner {epoch} got an acknowledgement that epoch {newest} does not have")
        elif epoch >= newest:
            one_chain = history[: len(self.visible)] == self.visible
            if not one_chain and (adopt or self.visible[: len(history)] != history):
                self.fail(f"owner {epoch} shows {history} without the visible {self.visible}")
        if adopt and epoch >= newest:
            self.newest = (epoch, history)
        self.visible = max(self.visible, history, key=len)

    def check_server(self, name: str) -> None:
        server = self.servers[name]
        if server.entries != entries_of(history_of(server.entries)):
            self.fail(f"{name} holds keys that no history gives: a delta met another base")

    # --- the end of faults -------------------------------------------------------------------------------------

    def settle(self) -> None:
        """No more faults: the newest owner becomes ready and every write of it is acknowledged, on every server."""
        self.do_assign()
        epoch, owner = len(self.owners), self.owners[len(self.owners)]
        for _ in range(60):
            for name in self.names:
                self.servers[name].view = self.view
            self.do_learn_all()
            while self.net:
                self.deliver(self.net.pop(0))
            if owner.phase is frames.Phase.READY and not owner.busy:
                break
            self.now += NS
            self.take(epoch, owner.tick(self.now))
        else:
            self.fail(f"owner {epoch} is {owner.phase} for ever ({owner.trouble})")
        self.write(epoch)
        self.write(epoch)
        while self.net:
            self.deliver(self.net.pop(0))
        if owner.committed != owner.version.seq:
            self.fail(f"owner {epoch} wrote {owner.version.seq}, and {owner.committed} is acknowledged")

    def do_learn_all(self) -> None:
        for epoch, owner in self.owners.items():
            self.take(epoch, owner.view_changed(self.now, self.view))
        for _ in range(60):
            self.do_learn()
