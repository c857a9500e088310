"""Signals between hosts in a small world: one sending host, two receiving ones, and whatever may go wrong between.

The sending and the receiving side are the daemon's; receivers are protocol 3's rules 1, 2 and 4 in a few lines. A
connection carries frames; one that is lost, doubled or out of its place ends it, as `Departure` and `Arrival` do.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from tenured.core.receiving import Inbound, Shares
from tenured.core.sending import Sending
from tenured.core.signalframes import Answers, BadFrame, Batch
from tenured.core.signals import Again, Answer, Settled, Signal, Verdict
from tenured.core.streams import Lane, Owner, Route

HOSTS = ("A", "B")
SENDERS = {"1": 0, "2": 0, "3": 7}
"""uid -> epoch of a volatile one."""
RECEIVERS = ("10", "11", "12")
APPLIED, NOT_APPLIED = Settled(Verdict.APPLIED), Settled(Verdict.NOT_APPLIED)


@dataclass(frozen=True)
class Entry:
    """Of an outbox."""

    n: int
    receiver: str
    born: float = 1.0
    body: bytes = b"b"
    void: bool = False
    priority: int = 0


class Tight(Shares):
    """Few credits, so that they run out."""

    signals = 6
    size = 600


@dataclass
class Receiver:
    """A durable agent: its record, and the queue of its present activation."""

    host: str
    epoch: int = 1
    deleted: bool = False
    busy: bool = False
    last: dict[str, int] = field(default_factory=dict)
    voided: set[tuple[str, int]] = field(default_factory=set)
    hist: list[tuple[str, int]] = field(default_factory=list)
    queue: list[tuple[Link, int, Signal]] = field(default_factory=list)

    def judge(self, host: str, signal: Signal) -> Answer | None:
        """The answer at once; None: it waits for its turn."""
        if self.deleted:
            return Again("NotReady")
        if signal.n <= self.last.get(signal.sender, 0):
            return NOT_APPLIED if (signal.sender, signal.n) in self.voided else APPLIED
        if self.host != host:
            return Again("Moved")
        waiting = {each.n for _, _, each in self.queue if each.sender == signal.sender}
        if signal.prev > self.last.get(signal.sender, 0) and signal.prev not in waiting:
            return Again("OutOfOrder")
        return Again("Busy") if self.busy else None

    def apply(self, signal: Signal) -> Answer:
        """Its turn, committed."""
        if signal.n <= self.last.get(signal.sender, 0):
            return NOT_APPLIED if (signal.sender, signal.n) in self.voided else APPLIED
        if signal.prev > self.last.get(signal.sender, 0):
            return Again("OutOfOrder")
        self.last[signal.sender] = signal.n
        if signal.void:
            self.voided.add((signal.sender, signal.n))
            return NOT_APPLIED
        self.hist.append((signal.sender, signal.n))
        return APPLIED


class Link:
    """One connection to a host."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.inbound = Inbound(Tight())
        self.there: deque[Batch] = deque()
        self.back: deque[Answers] = deque()
        self.serial = 0
        self.over = False


class World:
    """See the module. Methods are what may happen; each takes a number that chooses among what is there."""

    def __init__(self) -> None:
        self.now = 0.0
        self.receivers = {uid: Receiver(HOSTS[number % 2]) for number, uid in enumerate(RECEIVERS)}
        self.read = {uid: Route(each.host, each.epoch) for uid, each in self.receivers.items()}
        """What the sending host has read of the registry."""
        self.sending = Sending(self.read.__getitem__, lambda: 0.5)
        self.owners = {uid: Owner(uid, f"t{uid}/s", f"t{uid}", epoch) for uid, epoch in SENDERS.items()}
        self.released: dict[str, dict[int, Entry]] = {uid: {} for uid in SENDERS}
        self.settled: dict[str, dict[int, Verdict]] = {uid: {} for uid in SENDERS}
        self.links: dict[str, Link] = {}
        self.seen_to: dict[tuple[str, str], list[int]] = {}

    # --- the sender ---------------------------------------------------------------------------------------------------

    def emit(self, pick: int) -> None:
        uid = list(SENDERS)[pick % 3]
        n = len(self.released[uid]) + 1
        entry = Entry(n, RECEIVERS[pick // 3 % 3], body=b"b" * (pick % 400), priority=pick % 2)
        self.released[uid][n] = entry
        self.sending.release(self.owners[uid], [entry], self.now)
        self.hear()

    def give_up(self, pick: int) -> None:
        uid = ("1", "2")[pick % 2]
        waiting = [n for n in self.released[uid] if n not in self.settled[uid]]
        if waiting:
            n = waiting[pick // 2 % len(waiting)]
            entry = Entry(n, self.released[uid][n].receiver, void=True)
            self.sending.release(self.owners[uid], [entry], self.now)
            self.hear()

    def forget(self, pick: int) -> None:
        """A commit with some of the settlements."""
        uid = list(SENDERS)[pick % 3]
        self.sending.forget(self.owners[uid], list(self.settled[uid])[: pick // 3 % 4 + 1])

    def hear(self) -> None:
        self.sending.refusals(self.now)
        for owner, n, answer in self.sending.take_outcomes():
            assert n not in self.settled[owner.uid], f"{n} was settled twice"
            self.settled[owner.uid][n] = answer.verdict
            self.truth(owner.uid, n, answer.verdict)

    def truth(self, uid: str, n: int, verdict: Verdict) -> None:
        hist = self.receivers[self.released[uid][n].receiver].hist
        if verdict is not Verdict.UNKNOWN:
            assert ((uid, n) in hist) == (verdict is Verdict.APPLIED)

    # --- the network --------------------------------------------------------------------------------------------------

    def connect(self, pick: int) -> None:
        host = HOSTS[pick % 2]
        lane = self.sending.lanes.get(host)
        if lane is not None and not lane.open:
            self.links[host] = link = Link(host)
            lane.opened(*link.inbound.granted)

    def cut(self, pick: int) -> None:
        self.end(HOSTS[pick % 2])

    def end(self, host: str) -> None:
        link = self.links.pop(host, None)
        if link is not None:
            link.over = True
            self.sending.lanes[host].broken("cut")
            self.hear()

    def send(self, pick: int) -> None:
        link = self.links.get(HOSTS[pick % 2])
        if link is not None:
            lane = self.sending.lanes[link.host]
            first = lane.next_seq
            signals = lane.take(pick // 2 % 5 + 1, 1000, self.now)
            self.hear()
            if signals:
                link.there.append(Batch(first, signals))

    def lose(self, pick: int) -> None:
        """A frame is gone, comes twice, or overtakes."""
        link = self.links.get(HOSTS[pick % 2])
        if link is None:
            return
        way = link.there if pick // 2 % 2 else link.back
        if not way:
            return
        match pick // 4 % 3:
            case 0:
                way.popleft()
            case 1:
                way.append(way[-1])
            case _:
                way.rotate(1)

    def receive(self, pick: int) -> None:
        """The next frame at its host."""
        link = self.links.get(HOSTS[pick % 2])
        if link is None or not link.there:
            return
        batch = link.there.popleft()
        try:
            link.inbound.take(batch)
        except BadFrame:
            self.end(link.host)
            return
        for seq, signal in enumerate(batch.signals, batch.first):
            if link.inbound.admit(seq, signal) is None:
                receiver = self.receivers[signal.receiver]
                answer = receiver.judge(link.host, signal)
                if answer is None:
                    receiver.queue.append((link, seq, signal))
                else:
                    self.answer(link, seq, signal, answer)
        self.flush(link)

    def turn(self, pick: int) -> None:
        """One turn of an agent."""
        receiver = self.receivers[RECEIVERS[pick % 3]]
        if receiver.queue:
            link, seq, signal = receiver.queue.pop(0)
            answer = receiver.apply(signal)
            if not link.over:
                self.answer(link, seq, signal, answer)
                self.flush(link)

    def answer(self, link: Link, seq: int, signal: Signal, answer: Answer) -> None:
        if isinstance(answer, Again):
            link.inbound.refused(signal)
        link.inbound.answer(seq, answer)

    def flush(self, link: Link) -> None:
        answers = link.inbound.flush()
        if answers is not None:
            link.back.append(answers)

    def ack(self, pick: int) -> None:
        """The next answers at the sender's host."""
        link = self.links.get(HOSTS[pick % 2])
        if link is None or not link.back:
            return
        said, lane = link.back.popleft(), self.sending.lanes[link.host]
        link.serial += 1
        if said.serial != link.serial:
            self.end(link.host)
            return
        lane.grant(said.signals, said.size)
        for first, last, answer in said.runs:
            lane.answered(first, last, answer, self.now)
        self.hear()

    # --- agents and time ----------------------------------------------------------------------------------------------

    def move(self, pick: int) -> None:
        """Another host holds the agent; who sent there gets no answer any more, or `Moved`."""
        receiver = self.receivers[RECEIVERS[pick % 3]]
        receiver.host, receiver.epoch = HOSTS[receiver.host == "A"], receiver.epoch + 1
        for link, seq, signal in receiver.queue:
            if not link.over:
                self.answer(link, seq, signal, Again("NotReady"))
                self.flush(link)
        receiver.queue.clear()

    def hinder(self, pick: int) -> None:
        receiver = self.receivers[RECEIVERS[pick % 3]]
        receiver.busy = not receiver.busy

    def delete(self, pick: int) -> None:
        if pick % 5 == 0:
            self.receivers["12"].deleted = True
            self.receivers["12"].queue.clear()

    def publish(self, pick: int) -> None:
        """The sending host reads the row of an agent."""
        uid = RECEIVERS[pick % 3]
        receiver = self.receivers[uid]
        self.read[uid] = Route(deleted=True) if receiver.deleted else Route(receiver.host, receiver.epoch)
        self.sending.routes_changed([uid], self.now)
        self.hear()

    def wait(self, pick: int) -> None:
        self.now += pick % 10 * 0.1
        self.sending.due(self.now)
        self.hear()

    # --- the end ------------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """Everything works from now on."""
        for receiver in self.receivers.values():
            receiver.busy = False
        for pick in range(3):
            self.publish(pick)
        for host in HOSTS:
            self.end(host)
        for _ in range(400):
            self.now += 1.0
            self.sending.due(self.now)
            for pick in range(2):
                self.connect(pick)
                self.send(pick + 8)
                self.receive(pick)
                self.ack(pick)
            for pick, uid in enumerate(SENDERS):
                self.turn(pick)
                self.turn(pick)
                self.sending.forget(self.owners[uid], list(self.settled[uid]))

    def judge(self) -> None:
        """Order, once, nothing skipped: at any time."""
        for uid, receiver in self.receivers.items():
            for sender, epoch in SENDERS.items():
                numbers = [n for each, n in receiver.hist if each == sender]
                assert numbers == sorted(set(numbers)), "twice, or out of order"
                if not epoch:
                    upto = receiver.last.get(sender, 0)
                    meant = [n for n, entry in self.released[sender].items() if entry.receiver == uid and n <= upto]
                    missing = [n for n in meant if n not in numbers and (sender, n) not in receiver.voided]
                    assert not missing, f"{missing} were passed over"


class Pair:
    """A sender, and the lane to host A."""

    def __init__(self, epoch: int = 0, granted: int = 1000) -> None:
        self.routes: dict[str, Route] = dict.fromkeys(RECEIVERS, Route("A", 1))
        self.sending = Sending(self.routes.__getitem__, lambda: 1.0)
        self.owner = Owner("1", "t/s", "t", epoch)
        self.granted = granted

    def release(self, *numbers: int, now: float = 0.0, **more: Any) -> None:
        self.sending.release(self.owner, [Entry(n, "10", **more) for n in numbers], now)

    def open(self) -> Lane:
        self.lane.opened(self.granted, 1 << 20)
        return self.lane

    @property
    def lane(self) -> Lane:
        return self.sending.lanes["A"]

    def take(self) -> list[tuple[int, int]]:
        return [(signal.n, signal.prev) for signal in self.lane.take(1000, 1 << 20, 0.0)]

    def outcomes(self) -> list[tuple[int, str]]:
        self.sending.refusals(0.0)
        return [(n, str(answer.verdict)) for _, n, answer in self.sending.take_outcomes()]
