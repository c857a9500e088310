"""The quorum register, holder side (protocol 2): how the holder of an agent owns its record. No I/O.

Duties of the shell: send every `Send` of an `Output` in order; hand each answer back with the request that it answers
(`answered`); call `tick` every `peers.RETRY_NS / 2` or so while `busy`; say `lost(server)` and `restored(server)` when
a connection breaks and comes back; `view_changed` when the view of the registry grows. Messages may be lost, doubled
and delayed at will.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from tenured.core.cells import NOTHING, Verdict, Version
from tenured.core.frames import (
    WAKE,
    Adopted,
    Answer,
    Asleep,
    Committed,
    Deleted,
    Fenced,
    Known,
    Outcome,
    Output,
    Phase,
    Read,
    Record,
    Request,
    Seal,
    Sealed,
    Send,
    Unreadable,
    Write,
    Written,
)
from tenured.core.peers import RETRY_NS, Peer

FIRST_EPOCH = 1
"""Of a uid: before it nobody held its agent."""
_FINAL = frozenset({Verdict.FENCED, Verdict.DELETED})


class NotReady(RuntimeError):
    """The shell wrote before `Adopted` or after the end: a defect of the shell."""


class Owner:
    """Owner of one record at one epoch. The epoch comes from a committed assignment made for this process start.

    At most one owner is ever made of a (uid, epoch), or two states could get one version [epoch_once]; only one that
    never left SEALING or READING may be made anew, and one whose every write is committed: its agent went to sleep, or
    to rest [sleep_settled]. `expect_state`: the registry has a `ready_epoch` for this uid, so that "nothing found" is a
    loss and no beginning.
    """

    __slots__ = (
        "_bare",
        "_first",
        "_log",
        "_peers",
        "committed",
        "entries",
        "epoch",
        "expect_state",
        "phase",
        "trouble",
        "uid",
        "version",
        "view",
    )

    def __init__(
        self,
        uid: str,
        epoch: int,
        servers: Iterable[str],
        *,
        view: int,
        expect_state: bool,
        bare: bool = False,
        known: Known | None = None,
        first: bool = False,
    ) -> None:
        """`bare`: seal, and do not adopt: the agent sleeps. `known`: what an owner of this epoch, made by the same
        process, had committed when its agent went to sleep: the epoch is sealed, and the record is read again, or,
        with its entries, owned as if that owner had gone on. `first`: the epoch is the first of its uid: nobody is to
        be silenced, nothing to be adopted, so it is not sealed [first_epoch]; its first write raises `sealed` where it
        is taken.
        """
        self.uid = uid
        self.epoch = epoch
        self.view = view
        self.expect_state = expect_state
        self.phase = Phase.SEALING
        self.entries: dict[str, bytes] = {}
        """The record as of the last write, acknowledged or not."""
        self.version = NOTHING
        """Of `entries`."""
        self.committed = 0
        """Seq of the last write that a majority holds."""
        self.trouble = ""
        """The last refusal by a server that is not a verdict on the epoch; for status and logs."""
        self._peers = {name: Peer() for name in servers}
        self._log: dict[int, Write] = {}
        """Writes that are not committed, by seq."""
        self._bare = bare
        self._first = first
        if known is not None:  # nobody else writes under a sealed epoch: what a majority had, it has
            self.phase, self.version, self.entries = Phase.READING, known.version, dict(known.entries or {})
            sealed = Sealed(verdict=Verdict.OK, sealed=epoch, version=known.version)
            for peer in self._peers.values():
                peer.seal = sealed

    @property
    def quorum(self) -> int:
        """A majority of the servers [seal_majority, write_majority]."""
        return len(self._peers) // 2 + 1

    @property
    def busy(self) -> bool:
        """Whether something is open, so that `tick` must be called."""
        return any(peer.connected and self._open(peer) for peer in self._peers.values())

    @property
    def settled(self) -> bool:
        """Whether every server has said that it has the last write, those without a connection too; of an adopted
        version none is asked for that. So nobody is told less if this owner is forgotten and made anew.
        """
        return self.phase is Phase.READY and not any(map(self._open, self._peers.values()))

    # --- events -----------------------------------------------------------------------------------------------

    def start(self, now: int) -> Output:
        """Seal at every server. A first epoch is ready at once; of what is known at most its version is asked for."""
        if self._first or self.entries:
            return self._ready(self.entries)
        return self._ask_all(now)

    def answered(self, now: int, server: str, request: Request, answer: Answer) -> Output:
        """Take an answer, in any order, as often as it comes."""
        peer = self._peers.get(server)
        if self.phase is Phase.STOPPED or peer is None:
            return Output()
        if isinstance(answer, Sealed | Written) and answer.verdict in _FINAL:  # true under any view
            return self._stop(Fenced(answer.sealed) if answer.verdict is Verdict.FENCED else Deleted())
        if request.view != self.view:  # an answer of the lost disk must not complete a majority [view]
            return Output()
        return self._answered(now, server, peer, request, answer)

    def _answered(self, now: int, server: str, peer: Peer, request: Request, answer: Answer) -> Output:
        match answer:
            case Sealed():
                return self._sealed(now, server, peer, answer)
            case Record():
                return self._read(now, server, peer, answer)
            case Written() if isinstance(request, Write):
                return self._written(now, server, peer, request, answer)
            case _:
                return Output()

    def write(self, now: int, puts: Mapping[str, bytes], deletes: Iterable[str] = ()) -> tuple[int, Output]:
        """Write the next version to all; returns its `seq`, which a `Committed` will cover. Writes are pipelined.

        Raises:
            NotReady: the record is not owned yet, or no more.

        """
        if self.phase is not Phase.READY:
            raise NotReady(f"the record of {self.uid} is {self.phase}")
        gone = tuple(deletes)
        version = Version(self.epoch, self.version.seq + 1)
        request = Write(uid=self.uid, view=self.view, version=version, base=self.version, puts=dict(puts), deletes=gone)
        for name in gone:
            self.entries.pop(name, None)
        self.entries.update(puts)
        self.version = version
        self._log[version.seq] = request
        output = Output()
        for server, peer in self._peers.items():
            if peer.connected and peer.chained:
                output.sends.append(Send(server, request))
                peer.asked = now if peer.asked is None else peer.asked
            elif peer.connected:
                self._send_whole(now, server, peer, output)
        return version.seq, output

    def tick(self, now: int) -> Output:
        """Repeat what has had no answer for too long: the same versions, the same bytes."""
        output = Output()
        for server, peer in self._peers.items():
            if peer.connected and self._open(peer) and peer.overdue(now):
                self._ask(now, server, peer, output)
        return output

    def lost(self, server: str) -> None:
        """Note that the connection broke: what was under way may or may not have arrived."""
        peer = self._peers.get(server)
        if peer is not None:
            peer.connected = False
            peer.answered()

    def restored(self, now: int, server: str) -> Output:
        """Note that the connection is back: repeat at once what is open there."""
        output = Output()
        peer = self._peers.get(server)
        if peer is not None:
            peer.connected, peer.whole = True, -1
            if self._open(peer):
                self._ask(now, server, peer, output)
        return output

    def view_changed(self, now: int, view: int) -> Output:
        """Ask again under the new view: answers of the old one no longer count [view]."""
        if view <= self.view or self.phase is Phase.STOPPED:
            return Output()
        self.view = view
        for peer in self._peers.values():
            peer.reset()
        if self.phase is Phase.READING:
            self.phase = Phase.SEALING
        self._log = {seq: msgspec.structs.replace(write, view=view) for seq, write in self._log.items()}
        return self._ask_all(now)

    # --- asking -----------------------------------------------------------------------------------------------

    def _open(self, peer: Peer) -> bool:
        """Whether this server owes something that the owner wants."""
        match self.phase:
            case Phase.SEALING:
                return peer.seal is None
            case Phase.READING:
                return peer.seal is not None and peer.seal.version == self.version
            case Phase.REPAIRING | Phase.READY:
                # Of an adopted version of an earlier epoch nothing is sent: a server would refuse it, rightly [seal].
                return self.version.epoch == self.epoch and peer.acked < self.version.seq
            case Phase.STOPPED:
                return False

    def _ask_all(self, now: int) -> Output:
        output = Output()
        for server, peer in self._peers.items():
            if peer.connected and self._open(peer):
                self._ask(now, server, peer, output)
        return output

    def _ask(self, now: int, server: str, peer: Peer, output: Output) -> None:
        """Send, or repeat, what is open at one server."""
        peer.asked = now
        if self.phase is Phase.SEALING:
            seal = Seal(uid=self.uid, epoch=self.epoch, view=self.view, bare=self._bare)
            output.sends.append(Send(server, seal))
        elif self.phase is Phase.READING:
            output.sends.append(Send(server, Read(uid=self.uid, view=self.view)))
        elif peer.chained and self.committed <= peer.acked:  # every delta that it lacks is still here
            for seq in range(peer.acked + 1, self.version.seq + 1):
                output.sends.append(Send(server, self._log[seq]))
        else:
            self._send_whole(now, server, peer, output)

    def _send_whole(self, now: int, server: str, peer: Peer, output: Output) -> None:
        """Send the whole record as of the last write; the deltas that follow build on it."""
        peer.chained, peer.whole, peer.asked = True, self.version.seq, now
        write = Write(uid=self.uid, view=self.view, version=self.version, base=None, puts=dict(self.entries))
        output.sends.append(Send(server, write))

    # --- answers ----------------------------------------------------------------------------------------------

    def _sealed(self, now: int, server: str, peer: Peer, answer: Sealed) -> Output:
        if self.phase is not Phase.SEALING:
            return Output()
        if answer.verdict is not Verdict.OK:
            self.trouble = f"{server} answers {answer.verdict} to the seal"
            return Output()
        peer.seal = answer
        peer.answered()
        sealed = [p.seal for p in self._peers.values() if p.seal is not None]
        if len(sealed) < self.quorum:  # [seal_majority]
            return Output()
        self.version = self._highest([seal.version for seal in sealed])
        return self._asleep(sealed) if self._bare else self._found(now, sealed)

    def _found(self, now: int, sealed: list[Sealed]) -> Output:
        """A majority is sealed: adopt the highest version of it."""
        if self.version == NOTHING:
            return self._nothing()
        records = (seal.entries for seal in sealed if seal.version == self.version)
        entries = next((record for record in records if record is not None), None)
        if entries is not None:
            return self._adopt(now, entries)
        self.phase = Phase.READING
        return self._ask_all(now)

    def _asleep(self, sealed: Iterable[Sealed]) -> Output:
        """The epoch is sealed; the record is adopted when its agent wakes (protocol 2, bulk take-over)."""
        if self.version == NOTHING and self.expect_state:
            return self._nothing()
        self.phase = Phase.STOPPED
        highest = next(seal for seal in sealed if seal.version == self.version)  # [wake_highest]
        return Output(outcomes=[Asleep(highest.wake or (highest.entries or {}).get(WAKE, b""))])

    def _highest(self, versions: Iterable[Version]) -> Version:
        """Choose what to adopt: epoch first, then seq [epoch_first]."""
        return max(versions)

    def _nothing(self) -> Output:
        if self.expect_state:  # never "start empty" where there was something
            return self._stop(Unreadable("no server of a majority has the state that an earlier epoch committed"))
        return self._ready({})

    def _read(self, now: int, server: str, peer: Peer, answer: Record) -> Output:
        if self.phase is not Phase.READING:
            return Output()
        if answer.version != self.version:  # sealed there, so it cannot change but by a higher epoch
            self.trouble = f"{server} has version {answer.version} where it answered {self.version}"
            return Output()
        peer.answered()
        return self._adopt(now, answer.entries)

    def _adopt(self, now: int, entries: Mapping[str, bytes]) -> Output:
        holders = [p for p in self._peers.values() if p.seal is not None and p.seal.version == self.version]
        if len(holders) >= self.quorum:  # [unanimous]: a safe shortcut
            return self._ready(entries)
        # Write back before anything becomes visible [repair], or the next owner may miss what this one showed.
        self.phase = Phase.REPAIRING
        self.entries = dict(entries)
        self.version = Version(self.epoch, self.version.seq)
        for peer in self._peers.values():
            peer.answered()
        return self._ask_all(now)

    def _ready(self, entries: Mapping[str, bytes]) -> Output:
        self.phase = Phase.READY
        self.entries = dict(entries)
        self.committed = self.version.seq
        for peer in self._peers.values():
            if peer.seal is not None and peer.seal.version == self.version:
                peer.acked, peer.chained = self.version.seq, True
            peer.seal = None  # nobody asks for it any more, and one copy of the record is enough
            peer.answered()
        return Output(outcomes=[Adopted(self.version, dict(self.entries))])

    def _written(self, now: int, server: str, peer: Peer, request: Write, answer: Written) -> Output:
        if self.phase not in (Phase.REPAIRING, Phase.READY):
            return Output()
        output = Output()
        if answer.verdict is Verdict.OK:
            self._acked(now, peer, request.version.seq)
        elif answer.verdict is Verdict.STALE and answer.version.epoch == self.epoch:  # it has this write and more
            self._acked(now, peer, answer.version.seq)
        elif answer.verdict is Verdict.NEED_BASE:
            if request.version.seq > peer.whole:  # else the whole record is on its way already
                self._send_whole(now, server, peer, output)
            return output
        else:
            self.trouble = f"{server} answers {answer.verdict}: {answer.message}"
            return output
        output.outcomes += self._advance()
        return output

    def _acked(self, now: int, peer: Peer, seq: int) -> None:
        peer.acked = max(peer.acked, seq)
        peer.pause = RETRY_NS
        peer.asked = now if self._open(peer) else None

    def _advance(self) -> list[Outcome]:
        """Commit what a majority holds, as of the present view [write_majority]."""
        held = sorted((peer.acked for peer in self._peers.values()), reverse=True)[self.quorum - 1]
        if self.phase is Phase.REPAIRING:
            if held < self.version.seq:
                return []
            self.phase = Phase.READY
            self.committed = self.version.seq
            return [Adopted(self.version, dict(self.entries))]
        if held <= self.committed:
            return []
        for seq in range(self.committed + 1, held + 1):
            self._log.pop(seq, None)
        if not self._log:
            self._log.clear()  # or it keeps the room of what was in it
        self.committed = held
        return [Committed(held)]

    def _stop(self, outcome: Outcome) -> Output:
        self.phase = Phase.STOPPED
        return Output(outcomes=[outcome])
