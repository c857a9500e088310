"""The pytest plugin of Tenure: fixtures for tests of agents. docs/sdk/testing.md has them with examples.

It stands beside `tenure`, not in it, so that pytest can load it without importing `tenure`: that happens with the first
fixture that is used, after coverage and others have begun.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from tenure.storage import Storage
    from tenure.testing import FakeStorage, LocalFaults, SignalSpy, VirtualRuntime


class RuntimeFactory(Protocol):
    """What the fixture `runtime_factory` gives."""

    def __call__(self, *, storage: Storage | None = None, **options: Any) -> VirtualRuntime:
        """Another runtime of this test; the options are those of `tenure.testing.VirtualRuntime`."""
        ...


_made: pytest.StashKey[list[VirtualRuntime]] = pytest.StashKey()
"""The runtimes of a test."""


@pytest.fixture
def runtime_factory(request: pytest.FixtureRequest) -> Generator[RuntimeFactory]:
    """Runtimes for one test, each isolated, in time that stands still. They are closed when the test function ends."""
    from tenure.testing import VirtualRuntime  # noqa: PLC0415 - see above

    node: pytest.Item = request.node
    made = node.stash[_made] = []  # each time that the test is run

    def make(*, storage: Storage | None = None, **options: Any) -> VirtualRuntime:
        options.setdefault("validate_effects", _validates(request.config))
        runtime = VirtualRuntime(storage=storage, **options)
        made.append(runtime)
        return runtime

    yield make
    # Of a test that is a coroutine, `_checked` has looked after them, in its event loop.
    if left := [runtime for runtime in made if runtime.open]:
        _fail([problem for runtime in left for problem in _still_running(runtime.running) + _unmet(runtime)])


@pytest.hookimpl
def pytest_addoption(parser: pytest.Parser) -> None:
    """Settings of the fixtures."""
    what = "run every turn of `runtime` twice, and fail tests in which the second run does something else"
    parser.getgroup("tenure").addoption("--tenure-validate-effects", action="store_true", help=what)
    parser.addini("tenure_validate_effects", what, type="bool", default=False)


def _validates(config: pytest.Config) -> bool:
    return bool(config.getoption("tenure_validate_effects") or config.getini("tenure_validate_effects"))


@pytest.fixture
def runtime_options() -> Mapping[str, Any]:
    """What `runtime` is made with. Override it: `return {"namespace": "shop", "executors": {Page: recorded}}`."""
    return {}


@pytest.fixture
def storage() -> FakeStorage:
    """The storage of `runtime`: in memory, and it fails when it is told to."""
    from tenure.testing import FakeStorage  # noqa: PLC0415 - see above

    return FakeStorage()


@pytest.fixture
def runtime(
    runtime_factory: RuntimeFactory, runtime_options: Mapping[str, Any], storage: FakeStorage
) -> VirtualRuntime:
    """A local runtime of this test alone, in time that stands still until `await runtime.advance(seconds)`.

    The test fails if a turn still runs at its end, or if a fault that it ordered never happened.
    """
    return runtime_factory(**{"storage": storage, **runtime_options})


@pytest.fixture
def signals(runtime: VirtualRuntime) -> SignalSpy:
    """Every signal of `runtime`."""
    return runtime.spy()


@pytest.fixture
def faults(runtime: VirtualRuntime) -> LocalFaults:
    """What goes wrong in `runtime`."""
    return runtime.faults


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Let tests that are coroutines look after their runtimes at their end, in their own event loop."""
    made = item.stash.get(_made, None)
    if made is None or not isinstance(item, pytest.Function) or not inspect.iscoroutinefunction(item.obj):
        return (yield)
    test = item.obj
    item.obj = _checked(test, made)
    try:
        return (yield)
    finally:
        item.obj = test


@pytest.hookimpl
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    """Run a test that is a coroutine and uses a runtime, where no other plugin is responsible for it."""
    mine = pyfuncitem.stash.get(_made, None) is not None and inspect.iscoroutinefunction(pyfuncitem.obj)
    if not mine or pyfuncitem.get_closest_marker("anyio"):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names if name in pyfuncitem.funcargs}))
    return True


def _checked(test: Callable[..., Awaitable[None]], made: list[VirtualRuntime]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def checked(*arguments: Any, **fixtures: Any) -> None:
        problems: list[str] = []
        try:
            await test(*arguments, **fixtures)
            for runtime in made:
                problems += _still_running(await runtime.unfinished()) + _unmet(runtime)
        finally:
            for runtime in made:
                await runtime.close()
        _fail(problems)

    return checked


def _still_running(names: list[str]) -> list[str]:
    return [f"at the end of the test a turn still runs: {name}" for name in names]


def _unmet(runtime: VirtualRuntime) -> list[str]:
    return [f"a fault that was ordered never happened: {one}" for one in runtime.faults.unmet()] + runtime.differences


def _fail(problems: list[str]) -> None:
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)
