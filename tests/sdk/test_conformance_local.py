"""The local runtime does what every runtime must: without a storage, with one in memory, with one on a disk."""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import tenure
from tenure._clock import VirtualClock
from tenure.signals import Signal
from tenure.storage import SQLiteStorage, Storage
from tenure.testing import Conformance, FakeStorage, VirtualRuntime
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


class Forgetful(FakeStorage):
    """Says that it has written."""

    async def put(self, key: str, data: bytes, *, expected: int | None = None) -> int:
        return await super().put(key, data, expected=expected) if expected == 0 else (expected or 0) + 1


def doubles(runtime: VirtualRuntime) -> None:
    """Each signal leaves twice."""
    engine = runtime._engine
    keep = engine.keep
    engine.keep = lambda signal: (keep(signal), keep(signal))[0]  # type: ignore[method-assign]


def ignores(runtime: VirtualRuntime) -> None:
    """Directives are taken, and nothing comes of them."""
    runtime._engine.executors = dict.fromkeys(runtime._engine.executors, lambda *_: None)


@pytest.mark.parametrize(
    ("name", "sabotage"),
    [
        ("what_was_acknowledged_survives", lambda _: None),
        ("signals_leave_with_the_commit", doubles),
        ("instructions_follow_the_commit", ignores),
        ("a_delay_fires_once_in_its_time", ignores),
        ("an_agent_can_end_itself", ignores),
    ],
)
async def test_the_suite_finds_what_is_wrong(name: str, sabotage: Callable[[VirtualRuntime], None]) -> None:
    """A runtime that does not do as it says fails."""
    async with VirtualRuntime(storage=Forgetful()) as runtime:
        sabotage(runtime)
        with pytest.raises(AssertionError):
            await getattr(_Stored(), f"test_{name}")(runtime)


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
