"""The state store as hosts reach it: the guards that need the registry, and the answers on the wire (protocol 2)."""

from __future__ import annotations

from collections.abc import Sequence

from tenure_proto.v1 import common_pb2, hostlink_pb2
from tenured.core.cells import Verdict, Version, guard_uid, guard_view
from tenured.server.replica import Replica
from tenured.storage import Reading, Register, SealAnswer, SealItem, WriteAnswer, WriteItem

BEHIND_WAIT_S = 1.0
"""How long a request waits for this server's registry before it is answered BEHIND."""

BEHIND_VIEWS = 1000
"""A view that is so much later does not come by waiting."""


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

    async def seal(self, request: hostlink_pb2.SealMany) -> hostlink_pb2.SealedMany:
        """Seal what the guards allow, in one commit."""
        verdicts = await self._judge(request.view, [item.uid for item in request.items])
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
                else hostlink_pb2.Sealed(uid=item.uid, verdict=_VERDICTS[verdict])
                for item, verdict in zip(request.items, verdicts, strict=True)
            ]
        )

    async def write(self, request: hostlink_pb2.WriteMany) -> hostlink_pb2.WrittenMany:
        """Store what the guards allow, in one commit."""
        verdicts = await self._judge(request.view, [item.uid for item in request.items])
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
                else hostlink_pb2.Written(uid=item.uid, verdict=_VERDICTS[verdict])
                for item, verdict in zip(request.items, verdicts, strict=True)
            ]
        )

    async def read(self, request: hostlink_pb2.ReadMany) -> hostlink_pb2.Records:
        """Records as they are stored; those that are missing in the answer must be asked for again.

        Raises StoreRefused: an answer with empty records would be taken for "nothing stored".
        """
        verdicts = await self._judge(request.view, list(request.uids))
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

    async def _judge(self, view: int, uids: Sequence[str]) -> list[Verdict]:
        """What the guards say of each record before the disk is asked."""
        registry = self._replica.registry
        if registry.view < view < registry.view + BEHIND_VIEWS:  # the sender heard of the new view first
            await self._replica.until(lambda: self._replica.registry.view >= view, BEHIND_WAIT_S)
        verdict = self._again(view)
        if verdict is not Verdict.OK:
            return [verdict] * len(uids)
        verdicts = self._uids(uids)
        pairs = zip(uids, verdicts, strict=True)
        behind = [int(uid) for uid, found in pairs if found is Verdict.BEHIND and uid.isdecimal()]
        if behind:
            await self._replica.reached(max(behind), BEHIND_WAIT_S)
            verdicts = self._uids(uids)
        return verdicts

    def _uids(self, uids: Sequence[str]) -> list[Verdict]:
        registry = self._replica.registry
        return [guard_uid(uid, registry.agents, registry.revision) for uid in uids]

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
    return WriteItem(
        uid=item.uid,
        version=Version(item.version.epoch, item.version.seq),
        base=Version(item.base.epoch, item.base.seq) if item.HasField("base") else None,
        puts=dict(item.puts),
        deletes=tuple(item.deletes),
    )


def _version(version: Version) -> common_pb2.Version:
    return common_pb2.Version(epoch=version.epoch, seq=version.seq)
