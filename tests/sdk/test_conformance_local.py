"""The local runtime does what every runtime must: without a storage, with one in memory, with one on a disk."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import tenure
from tenure._clock import VirtualClock
from tenure.signals import Signal
from tenure.storage import SQLiteStorage, Storage
from tenure.testing import Conformance, VirtualRuntime
from tenure.testing._conformance import FEATURES


class _Local(Conformance):
    features = FEATURES - {"restart", "call_ids"}

    async def emitted(self, subject: Any) -> Sequence[Signal]:
        return list(subject.signals)

    async def settled(self, subject: Any) -> None:
        await subject.idle()

    async def advance(self, subject: Any, seconds: float) -> None:
        await subject.advance(seconds)


class TestWithoutAStorage(_Local):
    """`tenure.local()`, in time that can be moved."""

    @pytest.fixture
    async def subject(self) -> AsyncIterator[tenure.LocalRuntime]:
        async with tenure.LocalRuntime(clock=VirtualClock()) as runtime:
            yield runtime


class _Stored(_Local):
    features = FEATURES - {"call_ids"}

    async def restart(self, subject: Any) -> None:
        await subject.restart()


class TestInMemory(_Stored):
    """As the fixture `runtime` is."""

    @pytest.fixture
    async def subject(self) -> AsyncIterator[VirtualRuntime]:
        async with VirtualRuntime() as runtime:
            yield runtime


class TestOnADisk(_Stored):
    """SQLite, with a sync for each turn."""

    @pytest.fixture
    async def subject(self, tmp_path: Path) -> AsyncIterator[VirtualRuntime]:
        storage: Storage = SQLiteStorage(tmp_path / "agents.db")
        async with VirtualRuntime(storage=storage) as runtime:
            yield runtime
        await storage.close()


class TestWithoutSomeFeatures(_Local):
    """A runtime that lacks features refuses them: the suite can tell."""

    features = frozenset({"signals"})

    @pytest.fixture
    async def subject(self) -> AsyncIterator[tenure.LocalRuntime]:
        async with tenure.LocalRuntime() as runtime:
            yield runtime

    async def test_what_a_runtime_cannot_do_it_refuses(self, subject: Any) -> None:
        """This runtime can, so the suite must complain."""
        with pytest.raises(AssertionError, match="NotSupported was expected"):
            await super().test_what_a_runtime_cannot_do_it_refuses(subject)
