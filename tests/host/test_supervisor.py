"""PID 1 of the daemon's container, against real processes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenured.supervisor import plan


def test_restarts_at_once_unless_it_dies_young_again_and_again() -> None:
    """0.1 s doubling to 5 s, for lives under a second only; one long life forgives."""
    restarts = plan.Restarts()
    young, old = plan.SECOND // 2, 2 * plan.SECOND
    assert restarts.delay_after(old) == 0
    delays = [restarts.delay_after(young) / plan.SECOND for _ in range(9)]
    assert delays == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]
    assert restarts.delay_after(old) == 0
    assert restarts.delay_after(young) == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--", "host", "--name", "a"], ([], ["host", "--name", "a"])),
        (["--worker-modules", "a.b,c", "--", "host"], (["a.b", "c"], ["host"])),
        (["--worker-modules=a", "--", "host"], (["a"], ["host"])),
    ],
)
def test_parses_its_own_flags_and_leaves_the_rest(arguments: Any, expected: Any) -> None:
    """What stands after `--` is the daemon's."""
    assert plan.parse(arguments, {}) == expected


@pytest.mark.parametrize(
    "arguments", [[], ["host"], ["--"], ["--worker-modules", "--", "host"], ["--what", "--", "host"]]
)
def test_refuses_a_command_line_that_makes_no_sense(arguments: Any) -> None:
    """With a sentence that says what was expected."""
    with pytest.raises(plan.UsageError, match=r"expected|needs"):
        plan.parse(arguments, {})


def test_finds_the_run_directory() -> None:
    """Where the worker socket lies: the daemon's flag, then the environment, then the default."""
    assert plan.run_directory(["host", "--run", "/a"], {}) == "/a"
    assert plan.run_directory(["host", "--run=/b"], {"TENURE_RUN": "/c"}) == "/b"
    assert plan.run_directory(["host"], {"TENURE_RUN": "/c"}) == "/c"
    assert plan.run_directory(["host"], {}) == "/run/tenure"


def test_user_code_does_not_see_where_state_is_kept() -> None:
    """A password in the environment of `tenured supervise` is the daemon's."""
    environment = {
        "TENURE_STORE": "postgresql://a:secret@b/c",
        "TENURE_KEYS": "/keys",
        "TENURE_RUN": "/r",
        "PATH": "/bin",
    }
    assert plan.for_workers(environment) == {"TENURE_RUN": "/r", "PATH": "/bin"}


def test_imports_nothing_heavy() -> None:
    """It must start in less than 100 ms: no asyncio, no grpc, no subprocess."""
    program = "import sys, tenured.supervisor.process; print(' '.join(sys.modules))"
    out = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True).stdout
    assert not {"asyncio", "grpc", "subprocess", "logging", "msgspec", "google", "pathlib"} & set(out.split())


@pytest.fixture
def stand_in(tmp_path: Path) -> Any:
    """A `tenured` whose host does what a test says, so that the supervisor alone is tried."""

    def make(program: str) -> dict[str, str]:
        package = tmp_path / "fake" / "tenured"
        (package / "supervisor").mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(textwrap.dedent(program))
        return {"PYTHONPATH": str(tmp_path / "fake")}

    return make


HOST = """
import os, signal, sys, time
print("host", os.getpid(), os.getppid(), flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
while True:
    signal.pause()
"""

_SUPERVISE = """
import sys
sys.path.insert(0, {daemon!r})
from tenured.supervisor import process
sys.exit(process.main(["--", "host"]))
"""


async def _supervise(spawn: Callable[..., Any], stand_in: Callable[..., Any], program: str = HOST) -> Any:
    """The real supervisor; the daemon that it starts is a stand-in."""
    import tenured

    daemon = str(Path(tenured.__file__).parent.parent)
    return await spawn("-c", _SUPERVISE.format(daemon=daemon), env=stand_in(program))


def _hosts(process: Any) -> list[int]:
    return [int(pid) for pid in re.findall(r"^host (\d+) ", process.log.read_text(), re.MULTILINE)]


async def test_restarts_a_killed_daemon_at_once(
    spawn: Callable[..., Any], stand_in: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    """Daemon killed: a new one without any pause."""
    process = await _supervise(spawn, stand_in)
    first = (await eventually(lambda: _hosts(process)))[0]
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: len(_hosts(process)) == 2)
    assert "daemon ended: signal 9; next start at once" in process.log.read_text()


SPARE = """
import os, signal, sys
if "TENURE_GO_FD" in os.environ:
    print("spare", os.getpid(), flush=True)
    if not os.read(int(os.environ["TENURE_GO_FD"]), 1):
        sys.exit(0)
print("host", os.getpid(), os.getppid(), flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
while True:
    signal.pause()
"""


def _spares(process: Any) -> list[int]:
    return [int(pid) for pid in re.findall(r"^spare (\d+)", process.log.read_text(), re.MULTILINE)]


async def test_a_warm_spare_takes_over(
    spawn: Callable[..., Any], stand_in: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    """It has imported everything: the next daemon is the process that waited."""
    process = await _supervise(spawn, stand_in, SPARE)
    (spare,) = await eventually(lambda: _spares(process))
    os.kill(_hosts(process)[0], signal.SIGKILL)
    await eventually(lambda: _hosts(process)[1:] == [spare], 2)
    await eventually(lambda: len(_spares(process)) == 2)


async def test_a_spare_that_dies_is_replaced_and_disturbs_nobody(
    spawn: Callable[..., Any], stand_in: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    """The daemon goes on; without a spare its successor starts from nothing."""
    process = await _supervise(spawn, stand_in, SPARE)
    (spare,) = await eventually(lambda: _spares(process))
    os.kill(spare, signal.SIGKILL)
    await eventually(lambda: "the spare daemon ended: signal 9" in process.log.read_text())
    assert len(_hosts(process)) == 1
    await eventually(lambda: len(_spares(process)) == 2)


async def test_a_stop_ends_the_spare_too(
    spawn: Callable[..., Any], stand_in: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    """It must not take over from a daemon that was told to stop."""
    process = await _supervise(spawn, stand_in, SPARE)
    (spare,) = await eventually(lambda: _spares(process))
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 7
    await eventually(lambda: not Path(f"/proc/{spare}").exists(), 2)
    assert len(_hosts(process)) == 1


async def test_passes_sigterm_on_and_exits_with_the_daemons_status(
    spawn: Callable[..., Any], stand_in: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    """A requested stop is no death: nothing is started again."""
    process = await _supervise(spawn, stand_in)
    await eventually(lambda: _hosts(process))
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 7
    assert len(_hosts(process)) == 1


_IMPATIENT = """
from tenured.supervisor import process as module
module.Supervisor._patience = lambda self, now: 0.03
"""


async def test_survives_a_freeze_that_is_longer_than_its_patience(
    spawn: Callable[..., Any], stand_in: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    """A frozen node that comes back: PID 1 goes on, and still passes a stop on.

    It crashed: `signal.sigtimedwait` of Python 3.11 returns whatever lay in memory as a signal when its time ran out
    during a stop. The time has to pass while the process is stopped, hence the pauses.
    """
    import tenured

    daemon = str(Path(tenured.__file__).parent.parent)
    program = _SUPERVISE.replace("sys.exit(", _IMPATIENT + "sys.exit(", 1)
    process = await spawn("-c", program.format(daemon=daemon), env=stand_in(HOST))
    await eventually(lambda: _hosts(process))
    for _ in range(20):
        process.send_signal(signal.SIGSTOP)
        await asyncio.to_thread(threading.Event().wait, 0.06)
        process.send_signal(signal.SIGCONT)
        await asyncio.to_thread(threading.Event().wait, 0.02)
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 7
    assert len(_hosts(process)) == 1


async def test_takes_the_daemon_with_it_when_killed(
    spawn: Callable[..., Any], stand_in: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    """PID 1 killed: in a container the kernel ends the rest; here PR_SET_PDEATHSIG does."""
    process = await _supervise(spawn, stand_in)
    (host,) = await eventually(lambda: _hosts(process))
    process.kill()
    await process.wait()
    await eventually(lambda: not Path(f"/proc/{host}").exists(), 2)


async def test_spaces_out_the_restarts_of_a_daemon_that_cannot_start(
    spawn: Callable[..., Any], stand_in: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    """A broken daemon does not burn the processor."""
    process = await _supervise(
        spawn, stand_in, "import os\nprint('host', os.getpid(), '', flush=True)\nraise SystemExit(2)\n"
    )
    await eventually(lambda: "next start in 0.4 s" in process.log.read_text())
    assert process.log.read_text().count("next start at once") == 1


async def test_reaps_processes_that_are_left_to_it(
    spawn: Callable[..., Any], stand_in: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    """Orphans of the daemon become children of PID 1; zombies must not pile up."""
    program = """
import ctypes, os, signal, sys
print("host", os.getpid(), os.getppid(), flush=True)
child = os.fork()
if child == 0:
    grandchild = os.fork()
    if grandchild:
        os._exit(0)
    while os.getppid() != int(os.environ["SUPERVISOR"]):
        pass
    print("orphan", os.getpid(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
signal.pause()
"""
    # The supervisor of this test is no PID 1: PR_SET_CHILD_SUBREAPER makes it one for its descendants.
    subreaper = "import ctypes, os; ctypes.CDLL(None).prctl(36, 1); os.environ['SUPERVISOR'] = str(os.getpid())"
    import tenured

    daemon = str(Path(tenured.__file__).parent.parent)
    process = await spawn("-c", subreaper + _SUPERVISE.format(daemon=daemon), env=stand_in(program))
    orphan = await eventually(lambda: re.search(r"orphan (\d+)", process.log.read_text()))
    await eventually(lambda: not Path(f"/proc/{orphan.group(1)}").exists(), 2)
