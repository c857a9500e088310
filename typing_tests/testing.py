"""What users' type checkers see of `tenure.testing` and of the fixtures. Checked as surface.py is."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_type

import tenure
from tenure.testing import Conformance, FakeStorage, LocalFaults, Recorder, SignalSpy, VirtualRuntime
from tenure_pytest import RuntimeFactory


class CounterState(tenure.State):
    count: int = 0


class Counter(tenure.Agent[CounterState]):
    @tenure.action
    def increment(self, by: int = 1) -> int:
        self.state.count += by
        return self.state.count


@dataclass(frozen=True, slots=True)
class Page(tenure.Directive):
    number: str


async def test_it(
    runtime: VirtualRuntime,
    signals: SignalSpy,
    faults: LocalFaults,
    storage: FakeStorage,
    runtime_factory: RuntimeFactory,
) -> None:
    counter = await runtime.create(Counter, "c")
    assert_type(await counter.increment(by=2), int)
    await counter.increment(by="2")  # type: ignore[arg-type]
    assert_type(runtime.now, datetime)
    found = await signals.wait_for("counter.*", where=lambda signal: signal.source == "default/c", within=5)
    assert_type(found, tenure.Signal)
    faults.crash_turn(Counter.increment, when="after_commit")
    faults.crash_turn("Counter.increment", when="sometimes")  # type: ignore[arg-type]
    faults.fail_storage(after=3)
    storage.conflict()
    pages = Recorder(Page)
    assert_type(pages.directives, list[Page])
    assert_type(runtime_factory(executors=pages.executors), VirtualRuntime)


def options() -> Mapping[str, Any]:
    return {"executors": {Page: Recorder(Page)}}


class TestMine(Conformance):
    features = frozenset({"signals"})

    async def settled(self, subject: tenure.LocalRuntime) -> None:
        await subject.idle()
