"""For all tests, those of the examples too."""

import asyncio
import gc
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

# A slow machine fails no test: how long an example takes says nothing about it.
settings.register_profile("tests", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,  # noqa: ARG001 - pytest gives it
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that hung says where: pytest-timeout prints the threads, this the tasks."""
    report = yield
    if call.excinfo is not None and "pytest-timeout" in str(call.excinfo.value):
        report.sections.append(("tasks that had not ended", "\n".join(_waiting_tasks())))
    return report


def _waiting_tasks() -> Iterator[str]:
    for task in gc.get_objects():  # asyncio lists tasks only of a running loop, and it has stopped
        if isinstance(task, asyncio.Task) and not task.done():
            yield repr(task)
            awaited = task.get_coro()
            while awaited is not None:
                frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
                yield f"    {frame or awaited!r}"
                awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)
