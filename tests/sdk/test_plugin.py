"""The pytest plugin, in runs of its own."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

AGENTS = """
import asyncio
import tenure

class Work(tenure.State):
    count: int = 0

class Worker(tenure.Agent[Work]):
    @tenure.action
    def work(self) -> int:
        self.state.count += 1
        return self.state.count

    @tenure.action
    async def hang(self) -> None:
        await asyncio.Event().wait()
"""


def run_pytest(directory: Path, tests: str, *options: str) -> str:
    """What pytest says of a file of tests, in a process of its own."""
    (directory / "agents.py").write_text(AGENTS)
    (directory / "test_it.py").write_text(textwrap.dedent(tests))
    (directory / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options], cwd=directory, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


LEAKS = """
    import asyncio, pytest, agents

    async def test_leak(runtime):
        worker = await runtime.create(agents.Worker, "w")
        task = asyncio.ensure_future(worker.hang())
        await asyncio.sleep(0)
        task.cancel()

    async def test_unmet(runtime, faults):
        faults.crash_turn("Worker.wrok")
        assert await (await runtime.create(agents.Worker, "w")).work() == 1

    async def test_unmet_storage(runtime, faults):
        faults.fail_storage(after=7)

    async def test_a_failure_of_the_test_is_what_is_told(runtime):
        worker = await runtime.create(agents.Worker, "w")
        task = asyncio.ensure_future(worker.hang())
        await asyncio.sleep(0)
        assert 1 == 2

    def test_without_a_loop(runtime, signals, storage):
        async def story():
            assert await (await runtime.create(agents.Worker, "w")).work() == 1
        asyncio.run(story())
        signals.assert_none()

    async def test_good(runtime, signals, storage, faults, runtime_factory):
        assert await (await runtime.create(agents.Worker, "w")).work() == 1
        assert storage.writes == ["default/w", "default/w"]
"""


@pytest.mark.parametrize(
    "options",
    [("-o", "asyncio_mode=auto"), ("-o", "asyncio_mode=strict"), ("-p", "no:asyncio")],
    ids=" ".join,
)
def test_leaks_and_faults_that_never_happen_fail_the_test(tmp_path: Path, options: tuple[str, ...]) -> None:
    """With pytest-asyncio in either mode, and without it."""
    said = run_pytest(tmp_path, LEAKS, *options)
    assert "4 failed, 2 passed" in said
    assert "at the end of the test a turn still runs: default/w hang" in said
    assert "a fault that was ordered never happened: crash before_commit of Worker.wrok" in said
    assert "a fault that was ordered never happened: storage: full, after 7 more writes" in said
    assert "assert 1 == 2" in said


def test_it_works_with_anyio_and_with_fixtures_of_ones_own(tmp_path: Path) -> None:
    said = run_pytest(
        tmp_path,
        """
        import pytest, agents

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.fixture
        async def worker(runtime, anyio_backend):
            return await runtime.create(agents.Worker, "w")

        @pytest.fixture
        def runtime_options():
            return {"namespace": "shop"}

        class TestIt:
            @pytest.mark.anyio
            async def test_it(self, worker, runtime, signals):
                assert await worker.work() == 1
                assert worker.id == "shop/w"
        """,
        "-p", "no:asyncio",
    )  # fmt: skip
    assert "1 passed" in said


def test_the_plugin_costs_nothing_until_it_is_used(tmp_path: Path) -> None:
    """`tenure` is imported by the first fixture that needs it."""
    said = run_pytest(
        tmp_path,
        """
        import sys

        def test_before():
            assert "tenure_pytest" in sys.modules
            assert not {"tenure", "pydantic"} & set(sys.modules)

        def test_then(runtime):
            assert "tenure" in sys.modules
        """,
    )
    assert "2 passed" in said
