"""A server whose disk was replaced takes its place in the store again (protocol 2, rejoin 1 to 4).

1. Its disk is not the one that the registry knows: `RegisterServer` is refused with `DiskReplaced`.
2. Once Raft has given the server its vote back, it asks for `ReplaceServer` itself: the view grows by one. Refused
   while another server's new disk is joining: two disks at once are outside the promise.
3. Every server refuses older views from then on, and owners ask again (`server.store`, `core.owner`).
4. It reads every record from a majority of the others, page by page, each page synced with how far it got, so that a
   crash in the middle goes on from there. Then the disk answers, and `ServerJoined` lets the next one be replaced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from tenure_proto.v1 import hostlink_pb2, store_pb2
from tenured.core import commands, results
from tenured.core.cells import NOTHING, Version
from tenured.core.joining import Head, Need, Page, Step, merge, quorum_of_others
from tenured.raft import Applied, Outcome, Role
from tenured.server.replica import Replica
from tenured.storage import AdoptItem, Register, StoreFailed
from tenured.transport.errors import TransportError

_log = logging.getLogger(__name__)

PAGE = 500
"""Records in one step."""
ASK_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 5.0
PAUSE_S = 0.25
"""Before what did not succeed is tried again."""
_OK = hostlink_pb2.STORE_VERDICT_OK


class Proposer(Protocol):
    """The part of Consensus that is used here."""

    async def propose(self, command: bytes, timeout_s: float, *, term: int | None = None) -> Outcome:
        """Place one entry."""
        ...

    def role(self) -> Role:
        """How this server stands."""
        ...


class Peer(Protocol):
    """The part of `transport.storelink.StoreClient` that is used here."""

    async def list_records(
        self, request: store_pb2.ListRecordsRequest, timeout_s: float
    ) -> store_pb2.ListRecordsResponse:
        """A page. Raises TransportError."""
        ...

    async def fetch_records(
        self, request: store_pb2.FetchRecordsRequest, timeout_s: float
    ) -> store_pb2.FetchRecordsResponse:
        """Records. Raises TransportError."""
        ...

    async def close(self) -> None:
        """End the connection."""
        ...


class Joining:
    """Brings this server's disk into the store: at once if it is the one that the registry knows."""

    def __init__(
        self,
        registration: commands.RegisterServer,
        replica: Replica,
        proposer: Proposer,
        register: Register,
        connect: Mapping[str, Callable[[], Peer]],
    ) -> None:
        """`registration`: without the incarnation, which the disk has; `connect`: makes a client of each other one."""
        self._registration = registration
        self._replica = replica
        self._proposer = proposer
        self._register = register
        self._connect = connect
        self._peers: dict[str, Peer] = {}
        self._said = ""
        self.progress = ""
        """"120/1000": records that this disk has, of those that another server holds; empty before and after."""
        self.trouble = ""
        """Why it does not go on; a sentence, or empty."""

    async def run(self) -> None:
        """Return when this disk answers. Waits as long as it takes; says in `trouble` for what."""
        try:
            while True:
                if await self._admitted():
                    return
                await asyncio.sleep(PAUSE_S)
        finally:
            for peer in self._peers.values():
                await peer.close()
            self._peers.clear()

    @property
    def _name(self) -> str:
        return self._registration.name

    async def _admitted(self) -> bool:
        """One attempt, whole."""
        register = self._registration_now()
        known = await self._propose(register)
        if known is None:
            return False
        if not known.ok:
            await self._replace(known.message)
            return False
        row = self._replica.registry.servers[self._name]
        if row.joining and not await self._read_all():
            return False
        if self._register.joining:
            await self._register.admit()
            _log.info("the state store is open (disk %s)", self._register.incarnation)
        if row.joining:
            joined = commands.ServerJoined(name=self._name, incarnation=self._register.incarnation)
            return await self._propose(joined) is not None
        return True

    def _registration_now(self) -> commands.RegisterServer:
        old = self._registration
        return commands.RegisterServer(
            name=old.name, incarnation=self._register.incarnation, address=old.address, version=old.version
        )

    async def _replace(self, why: str) -> None:
        """Ask for the new view (rejoin 2); only with a vote, which says that the log has been caught up."""
        role = self._proposer.role()
        if not (role.voter and role.ready):
            self._say(f"{why}; it waits for its vote in Raft first")
            return
        command = commands.ReplaceServer(name=self._name, incarnation=self._register.incarnation)
        result = await self._propose(command)
        if result is not None and not result.ok:
            self._say(result.message)
        elif result is not None:
            _log.info("%s: the disk is replaced, view %d", self._name, self._replica.registry.view)

    async def _propose(self, command: commands.Command) -> results.Result | None:
        """The result, once this server's own registry has it; None: not decided, try again."""
        outcome = await self._proposer.propose(commands.encode(command), COMMAND_TIMEOUT_S)
        if not isinstance(outcome, Applied):
            self._say(f"the servers have not decided it: {outcome.reason}")
            return None
        result = results.decode(outcome.result)
        return result if await self._replica.reached(result.revision, COMMAND_TIMEOUT_S) else None

    def _say(self, trouble: str) -> None:
        self.trouble = trouble
        if trouble and trouble != self._said:
            _log.warning("the state store of this server is closed: %s", trouble)
        self._said = trouble

    # --- reading what the others have (rejoin 4) ------------------------------------------------------------------

    async def _read_all(self) -> bool:
        """Take over every record; False: try again, from where this got."""
        view = self._replica.registry.view
        if not self._register.joining:
            return True  # read in full before a crash; only `ServerJoined` was not committed yet
        at_view, upto = self._register.joined
        after = upto if at_view == view else ""
        while True:
            step = await self._next(view, after)
            if step is None or self._replica.registry.view != view:
                return False
            try:
                if not await self._fetch(view, after, step.needs):
                    return False
                after = step.upto or after
                await self._register.adopt(
                    [AdoptItem(uid=need.uid, sealed=need.sealed) for need in step.needs], view, after
                )
            except StoreFailed as error:
                self._say(str(error))
                return False
            self._register.joined = (view, after)
            self._say("")
            if step.done:
                self.progress = ""
                return True

    async def _next(self, view: int, after: str) -> Step | None:
        """Ask all others for the page after that uid; None: fewer than a majority of them answered."""
        done = len(await self._register.uids())
        request = store_pb2.ListRecordsRequest(view=view, after_uid=after, limit=PAGE, done=done)
        answers = await asyncio.gather(*(self._list(name, request) for name in self._connect))
        pages = {name: page for name, page in zip(self._connect, answers, strict=True) if page is not None}
        step = merge(pages, len(self._connect))
        if step is None:
            missing = ", ".join(sorted(set(self._connect) - set(pages)))
            needed = quorum_of_others(len(self._connect))
            self._say(f"its records must be read from {needed} other servers; not from {missing} now")
            return None
        self.progress = f"{done}/{max(page.total for page in pages.values())}"
        return step

    async def _list(self, name: str, request: store_pb2.ListRecordsRequest) -> Page | None:
        try:
            answer = await self._peer(name).list_records(request, ASK_TIMEOUT_S)
        except TransportError as error:
            _log.debug("%s does not answer: %s", name, error)
            return None
        if answer.verdict != _OK:
            return None
        return Page([_head(head) for head in answer.heads], answer.more, answer.total)

    async def _fetch(self, view: int, after: str, needs: tuple[Need, ...]) -> bool:
        """Take over the records that are needed, from those that hold them; what has come is kept at once, since many
        large records do not fit into memory together. False: one cannot be read now. Raises StoreFailed.
        """
        page = await self._register.page(after, 4 * PAGE)
        held = {head.uid: head.version for head in page.heads} if page is not None else {}
        left = {need.uid: need for need in needs if need.holders and held.get(need.uid, NOTHING) < need.version}
        tried: dict[str, set[str]] = {uid: set() for uid in left}
        while left:
            wanted = _spread(left, tried)
            if wanted is None:
                lost = next(need for need in left.values() if tried[need.uid] >= set(need.holders))
                self._say(f"record {lost.uid} cannot be read from {', '.join(lost.holders)}")
                return False
            for name, uids in wanted.items():
                got = await self._fetch_from(name, view, uids)
                good = {uid: r for uid, r in got.items() if not r.message and _version(r) >= left[uid].version}
                for uid in uids if not got else got.keys() - good.keys():
                    tried[uid].add(name)
                await self._register.adopt(
                    [_adopted(left.pop(uid), record) for uid, record in good.items()], view, after
                )
        return True

    async def _fetch_from(self, name: str, view: int, uids: list[str]) -> dict[str, store_pb2.FetchedRecord]:
        request = store_pb2.FetchRecordsRequest(view=view, uids=uids)
        try:
            answer = await self._peer(name).fetch_records(request, ASK_TIMEOUT_S)
        except TransportError as error:
            _log.debug("%s does not answer: %s", name, error)
            return {}
        return {record.uid: record for record in answer.items if record.uid in uids} if answer.verdict == _OK else {}

    def _peer(self, name: str) -> Peer:
        if name not in self._peers:
            self._peers[name] = self._connect[name]()
        return self._peers[name]


def _spread(left: Mapping[str, Need], tried: Mapping[str, set[str]]) -> dict[str, list[str]] | None:
    """Whom to ask for which records, in turn; None: all that hold some record were asked for it in vain."""
    wanted: dict[str, list[str]] = {}
    for number, need in enumerate(left.values()):
        holders = [name for name in need.holders if name not in tried[need.uid]]
        if not holders:
            return None
        wanted.setdefault(holders[number % len(holders)], []).append(need.uid)
    return wanted


def _head(head: store_pb2.RecordHead) -> Head:
    return Head(head.uid, head.sealed, Version(head.version.epoch, head.version.seq))


def _version(record: store_pb2.FetchedRecord) -> Version:
    return Version(record.version.epoch, record.version.seq)


def _adopted(need: Need, record: store_pb2.FetchedRecord) -> AdoptItem:
    return AdoptItem(uid=need.uid, sealed=need.sealed, version=_version(record), entries=dict(record.entries))
