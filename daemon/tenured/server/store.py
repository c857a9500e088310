"""The state store as hosts reach it: the guards that need the registry, and the answers on the wire (protocol 2)."""

from __future__ import annotations

from collections.abc import Sequence
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

    async def write(self, host: str, request: hostlink_pb2.WriteMany) -> hostlink_pb2.WrittenMany:
        """Store what the guards allow, in one commit. `host`: whom the sender's certificate names."""
        wanted = [(item.uid, item.version.epoch) for item in request.items]
        verdicts = await self._judge(request.view, _Sender(host, request.incarnation), wanted)
        allowed = [
            _write_item(item) for item, verdict in zip(request.items, verdicts, strict=True) if verdict is Verdict.OK
        ]
        stored = await self._register.write_many(allowed) if allowed else []
        answers = iter(stored)
        after = self._again(request.view)
        return hostlink_pb2.WrittenMany(
            items=[
                _written(next(answers), after)
                if verdict is Verdict.OK
                else hostlink_pb2.Written(uid=item.uid, verdict=_VERDICTS[verdict], sealed=self._assigned(item.uid))
                for item, verdict in zip(request.items, verdicts, strict=True)
            ]
        )

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
        registry = self._replica.registry
        if registry.view < view < registry.view + BEHIND_VIEWS:  # the sender heard of the new view first
            await self._replica.until(lambda: self._replica.registry.view >= view, BEHIND_WAIT_S)
        verdict = self._again(view)
        if verdict is not Verdict.OK:
            return [verdict] * len(wanted)
        verdicts = self._guard(sender, wanted)
        if Verdict.BEHIND in verdicts:
            await self._replica.until(lambda: Verdict.BEHIND not in self._guard(sender, wanted), BEHIND_WAIT_S)
            verdicts = self._guard(sender, wanted)
        return verdicts

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
