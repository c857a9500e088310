"""Fakes: a storage that fails by script, and executors that only write down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from tenure._effects import Directive
from tenure.storage import Checkpoint, Journal, MemoryStorage, Storage, StorageError, StorageUnreadable

if TYPE_CHECKING:
    from tenure._local import LocalRuntime

D = TypeVar("D", bound=Directive)


@dataclass(slots=True, eq=False)
class _Failure:
    """Of writes: after so many good ones, so often."""

    kind: str
    after: int
    times: int | None
    error: Exception | None = None
    seconds: float = 0.0
    happened: int = 0

    def now(self) -> bool:
        """Whether it is this write's turn. Counts."""
        if self.after > 0:
            self.after -= 1
            return False
        if self.times is not None and self.happened >= self.times:
            return False
        self.happened += 1
        return True


class FakeStorage:
    """A storage in memory, or around another one, that fails when it is told to. A write is a `put` or an `append`.

    Each script says after how many good writes it begins (0: with the next) and how often it happens (`times=None`:
    until `heal`).
    """

    def __init__(self, inner: Storage | None = None) -> None:
        self.inner: Storage = inner if inner is not None else MemoryStorage()
        self.writes: list[str] = []
        """Keys of the writes that arrived, in order."""
        self.sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
        """What slow writes wait with; the runtimes of `tenure.testing` put their own time here."""
        self._script: list[_Failure] = []
        self._torn: set[str] = set()

    # --- the script ---

    def full(self, *, after: int = 0, times: int | None = 1, error: StorageError | None = None) -> None:
        """Refuse writes: StorageError("the disk is full"), or `error`. Nothing is written then."""
        self._script.append(_Failure("full", after, times, error or StorageError("the disk is full")))

    def slow(self, seconds: float, *, after: int = 0, times: int | None = 1) -> None:
        """Take so long for a write."""
        self._script.append(_Failure("slow", after, times, seconds=seconds))

    def conflict(self, *, after: int = 0) -> None:
        """Let somebody else write the same key first, once: who expects a revision gets RevisionConflict."""
        self._script.append(_Failure("conflict", after, 1))

    def tear(self, key: str) -> None:
        """Make a key unreadable: StorageUnreadable for everything but `delete`, until `heal`."""
        self._torn.add(key)

    def heal(self) -> None:
        """Forget all scripts; what was torn can be read again."""
        self._script.clear()
        self._torn.clear()

    def unmet(self) -> list[str]:
        """What was scripted and has not happened."""
        return [f"storage: {one.kind}, after {one.after} more writes" for one in self._script if not one.happened]

    # --- a storage ---

    async def get(self, key: str) -> Checkpoint | None:
        """See `Storage`."""
        self._readable(key)
        return await self.inner.get(key)

    async def put(self, key: str, data: bytes, *, expected: int | None = None) -> int:
        """See `Storage`."""
        self._readable(key)
        if await self._write(key) and expected is not None:
            other = await self.inner.get(key)
            await self.inner.put(key, other.data if other is not None else data)
        return await self.inner.put(key, data, expected=expected)

    async def load(self, key: str, *, after: int = 0) -> Journal:
        """See `Storage`."""
        self._readable(key)
        return await self.inner.load(key, after=after)

    async def append(self, key: str, entries: Sequence[bytes], *, expected: int | None = None) -> int:
        """See `Storage`."""
        self._readable(key)
        if await self._write(key) and expected is not None:
            await self.inner.append(key, [b"of somebody else"])
        return await self.inner.append(key, entries, expected=expected)

    async def delete(self, key: str) -> None:
        """See `Storage`."""
        await self.inner.delete(key)
        self._torn.discard(key)

    async def keys(self) -> list[str]:
        """See `Storage`."""
        return await self.inner.keys()

    async def close(self) -> None:
        """See `Storage`."""
        await self.inner.close()

    def _readable(self, key: str) -> None:
        if key in self._torn:
            raise StorageUnreadable(f"what is stored under {key} is torn")

    async def _write(self, key: str) -> bool:
        """What the script says about this write; True: somebody else is faster. Raises the scripted error."""
        self.writes.append(key)
        due = [one for one in self._script if one.now()]
        for one in due:
            if one.seconds:
                await self.sleep(one.seconds)
        for one in due:
            if one.error is not None:
                raise one.error
        return any(one.kind == "conflict" for one in due)


class Recorder(Generic[D]):
    """An executor that writes down what it was asked to do: `local(executors=Recorder(Page).executors)`.

    `error`: raised after the writing down, as an executor does whose way is barred.
    """

    def __init__(self, kind: type[D], *, error: Exception | None = None) -> None:
        self.kind = kind
        self.error = error
        self.seen: list[tuple[str, D]] = []
        """Who asked (`namespace/name`), and for what, in order."""

    def __call__(self, _runtime: LocalRuntime, agent_id: str, directive: D) -> None:
        self.seen.append((agent_id, directive))
        if self.error is not None:
            raise self.error

    @property
    def directives(self) -> list[D]:
        """What was asked for, in order."""
        return [directive for _, directive in self.seen]

    @property
    def executors(self) -> Mapping[type[Directive], Recorder[D]]:
        """For `executors=`; several: `{**pages.executors, **rings.executors}`."""
        return {self.kind: self}
