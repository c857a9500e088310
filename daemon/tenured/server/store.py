"""The state store as hosts reach it: the guards that need the registry, and the answers on the wire (protocol 2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from tenure_proto.v1 import common_pb2, hostlink_pb2
from tenured.core.cells import Verdict, Version, guard_assigned, guard_uid, guard_view
from tenured.server.replica import Replica
from tenured.storage import Reading, Register, SealAnswer, SealItem, WriteAnswer, WriteItem

BEHIND_WAIT_S = 1.0
"""How long a request waits for this server's registry before it is answered BEHIND."""

BEHIND_VIEWS = 1000
"""A view that is so much later does not come by waiting."""


ANY_EPOCH = -1
"""Of a read: whoever holds the agent now may."""


class _Sender(NamedTuple):
    """Who asks: the name in its certificate, and the incarnation that it says it is."""

    host: str
    incarnation: str


class StoreRefused(Exception):
    """A read that must not be answered with records; `verdict` says why."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(f"This server may not answer reads of the store now: {verdict}.")
        self.verdict = verdict


class Store:
    """One server's part of the store."""

    def __init__(self, replica: Replica, register: Register) -> None:
        self._replica = replica
        self._register = register
        self._tasks: set[asyncio.Task[None]] = set()

    async def seal(self, host: str, request: hostlink_pb2.SealMany) -> hostlink_pb2.SealedMany:
        """Seal what the guards allow, in one commit. `host`: whom the sender's certificate names."""
        wanted = [(item.uid, item.epoch) for item in request.items]
        verdicts = await self._judge(request.view, _Sender(host, request.incarnation), wanted)
        allowed = [
            SealItem(item.uid, item.epoch)
            for item, verdict in zip(request.items, verdicts, strict=True)
            if verdict is Verdict.OK
        ]
        stored = await self._register.seal_many(allowed, with_records=request.with_records) if allowed else []
        answers = iter(stored)
        after = self._again(request.view)
        return hostlink_pb2.SealedMany(
            items=[
                _sealed(next(answers), after)
                if verdict is Verdict.OK
                else hostlink_pb2.Sealed(uid=item.uid, verdict=_VERDICTS[verdict], sealed=self._assigned(item.uid))
                for item, verdict in zip(request.items, verdicts, strict=True)
            ]
        )

    def write(
        self, host: str, request: hostlink_pb2.WriteMany, done: Callable[[hostlink_pb2.WrittenMany], None]
    ) -> None:
        """Store what the guards allow, in one commit; `done` is called with the answer, never before this returns.

        `host`: whom the sender's certificate names. No task, as long as this server's registry is not behind: each
        turn of an agent comes through here.
        """
        wanted = [(item.uid, item.version.epoch) for item in request.items]
        sender = _Sender(host, request.incarnation)
        if self._is_behind(request.view):
            self._later(request, sender, wanted, done)
            return
        verdicts = self._verdicts(request.view, sender, wanted)
        if Verdict.BEHIND in verdicts:
            self._later(request, sender, wanted, done)
        else:
            self._write(request, verdicts, done)

    def _later(
        self,
        request: hostlink_pb2.WriteMany,
        sender: _Sender,
        wanted: Sequence[tuple[str, int]],
        done: Callable[[hostlink_pb2.WrittenMany], None],
    ) -> None:
        async def judged() -> None:
            self._write(request, await self._judge(request.view, sender, wanted), done)

        task = asyncio.get_running_loop().create_task(judged())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _write(
        self,
        request: hostlink_pb2.WriteMany,
        verdicts: Sequence[Verdict],
        done: Callable[[hostlink_pb2.WrittenMany], None],
    ) -> None:
        def stored(answers: Iterable[WriteAnswer]) -> None:
            found, after = iter(answers), self._again(request.view)
            done(
                hostlink_pb2.WrittenMany(
                    items=[
                        _written(next(found), after)
                        if verdict is Verdict.OK
                        else hostlink_pb2.Written(
                            uid=item.uid, verdict=_VERDICTS[verdict], sealed=self._assigned(item.uid)
                        )
                        for item, verdict in zip(request.items, verdicts, strict=True)
                    ]
                )
            )

        allowed = [
            _write_item(item) for item, verdict in zip(request.items, verdicts, strict=True) if verdict is Verdict.OK
        ]
        if allowed:
            self._register.write(allowed, stored)
        else:
            asyncio.get_running_loop().call_soon(stored, ())

    async def read(self, host: str, request: hostlink_pb2.ReadMany) -> hostlink_pb2.Records:
        """Records as they are stored; those that are missing in the answer must be asked for again.

        Only the holder may read, so that a host that was broken into learns nothing of other agents. Raises
        StoreRefused: an answer with empty records would be taken for "nothing stored".
        """
        wanted = [(uid, ANY_EPOCH) for uid in request.uids]
        verdicts = await self._judge(request.view, _Sender(host, request.incarnation), wanted)
        allowed = [uid for uid, verdict in zip(request.uids, verdicts, strict=True) if verdict is Verdict.OK]
        if not allowed:
            raise StoreRefused(next(iter(verdicts), Verdict.FAILED))
        readings = await self._register.read_many(allowed)
        after = self._again(request.view)
        if after is not Verdict.OK:
            raise StoreRefused(after)
        readable = [_record(reading) for reading in readings if not reading.message]
        if not readable:
            raise StoreRefused(Verdict.FAILED)
        return hostlink_pb2.Records(items=readable)

    async def _judge(self, view: int, sender: _Sender, wanted: Sequence[tuple[str, int]]) -> list[Verdict]:
        """What the guards say of each record and epoch before the disk is asked."""
        if self._is_behind(view):
            await self._replica.until(lambda: self._replica.registry.view >= view, BEHIND_WAIT_S)
        verdicts = self._verdicts(view, sender, wanted)
        if Verdict.BEHIND in verdicts:
            await self._replica.until(lambda: Verdict.BEHIND not in self._guard(sender, wanted), BEHIND_WAIT_S)
            verdicts = self._verdicts(view, sender, wanted)
        return verdicts

    def _is_behind(self, view: int) -> bool:
        """Whether the sender heard of the new view first."""
        own = self._replica.registry.view
        return own < view < own + BEHIND_VIEWS

    def _verdicts(self, view: int, sender: _Sender, wanted: Sequence[tuple[str, int]]) -> list[Verdict]:
        verdict = self._again(view)
        return self._guard(sender, wanted) if verdict is Verdict.OK else [verdict] * len(wanted)

    def _guard(self, sender: _Sender, wanted: Sequence[tuple[str, int]]) -> list[Verdict]:
        registry = self._replica.registry
        found: list[Verdict] = []
        for uid, epoch in wanted:
            agent = registry.agents.get(uid)
            if agent is None:
                found.append(guard_uid(uid, registry.agents, registry.revision))
                continue
            holds = (agent.host, agent.incarnation) == (sender.host, sender.incarnation)
            # Owners read where they have sealed before: such a server knows the assignment already.
            asked = agent.epoch if epoch == ANY_EPOCH else epoch
            found.append(guard_assigned(agent.epoch, holds=holds, epoch=asked))
        return found

    def _assigned(self, uid: str) -> int:
        """The epoch that a refused sender was refused for."""
        agent = self._replica.registry.agents.get(uid)
        return agent.epoch if agent is not None else 0

    def _again(self, view: int) -> Verdict:
        """Before the request, and again before its answer: the view may have changed meanwhile [view]."""
        return guard_view(view, self._replica.registry.view, joining=self._register.joining)


_VERDICTS: dict[Verdict, hostlink_pb2.StoreVerdict.ValueType] = {
    verdict: hostlink_pb2.StoreVerdict.Value(f"STORE_VERDICT_{verdict}") for verdict in Verdict
}


def _sealed(answer: SealAnswer, after: Verdict) -> hostlink_pb2.Sealed:
    verdict = answer.verdict if after is Verdict.OK else after
    sealed = hostlink_pb2.Sealed(
        uid=answer.uid, verdict=_VERDICTS[verdict], sealed=answer.sealed, version=_version(answer.version)
    )
    sealed.wake = answer.wake
    if answer.entries is not None:
        record = hostlink_pb2.Record(uid=answer.uid, version=_version(answer.version), entries=answer.entries)
        sealed.record.CopyFrom(record)
    return sealed


def _written(answer: WriteAnswer, after: Verdict) -> hostlink_pb2.Written:
    verdict = answer.verdict if after is Verdict.OK else after
    return hostlink_pb2.Written(
        uid=answer.uid,
        verdict=_VERDICTS[verdict],
        sealed=answer.sealed,
        version=_version(answer.version),
        message=answer.message,
    )


def _record(reading: Reading) -> hostlink_pb2.Record:
    return hostlink_pb2.Record(uid=reading.uid, version=_version(reading.version), entries=reading.entries)


def _write_item(item: hostlink_pb2.WriteItem) -> WriteItem:
    puts = item.puts
    return WriteItem(
        uid=item.uid,
        version=Version(item.version.epoch, item.version.seq),
        base=Version(item.base.epoch, item.base.seq) if item.HasField("base") else None,
        puts={name: puts[name] for name in puts},  # `dict(puts)` goes through slow views of a protobuf map
        deletes=tuple(item.deletes),
    )


def _version(version: Version) -> common_pb2.Version:
    return common_pb2.Version(epoch=version.epoch, seq=version.seq)
