"""The process manager of `tenure dev`: what is started is kept running, and nothing is left behind."""

import asyncio
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tenure_cli.dev import processes, state
from tenure_cli.dev.cluster import DevCluster, Options
from tenure_cli.errors import CliError

Make = Callable[..., processes.Process]
Lines = list[tuple[str, str]]

FOREVER = "import time\nprint('up', flush=True)\ntime.sleep(600)"
DEADLINE_S = 20.0


async def until(predicate: Callable[[], object], what: str) -> None:
    """Poll a condition of the operating system that offers no event."""
    end = time.monotonic() + DEADLINE_S
    while not predicate():
        assert time.monotonic() < end, f"not within {DEADLINE_S} s: {what}"
        await asyncio.sleep(0.01)


def process_state(pid: int) -> str:
    """The state letter of /proc, or '' when the process is gone (a zombie is gone)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return stat.rpartition(")")[2].split()[0].replace("Z", "")


async def test_a_killed_process_is_started_again_and_logged(make_process: Make, lines: Lines) -> None:
    """The manager restarts what dies, and its lines reach the sink and the log file."""
    process = make_process(FOREVER)
    await process.start()
    first = process.pid
    await until(lambda: ("stub", "up") in lines, "the first line")
    await process.kill(restart=True)
    assert process.pid not in (0, first)
    await until(lambda: lines.count(("stub", "up")) == 2, "the second life's line")
    assert process.spec.log.read_text().count("up\n") == 2
    await process.stop(1)
    assert process.pid == 0


async def test_a_power_cut_freezes_the_whole_group(make_process: Make, lines: Lines) -> None:
    """SIGSTOP reaches children too, and stop() ends a frozen group."""
    process = make_process(
        """
        import os, time
        child = os.fork()
        if child: print(child, flush=True)
        time.sleep(600)
        """
    )
    await process.start()
    await until(lambda: lines, "the child's pid")
    child = int(lines[0][1])
    process.freeze()
    await until(lambda: process_state(process.pid) == process_state(child) == "T", "both stopped")
    pid = process.pid
    await process.stop(1)
    await until(lambda: process_state(pid) == process_state(child) == "", "both gone")


async def test_stop_lets_a_process_end_by_itself(make_process: Make, lines: Lines) -> None:
    """SIGTERM first: what a process does on it is done before stop() returns."""
    process = make_process(
        """
        import signal, sys, time
        def leave(*_):
            print('bye', flush=True)
            sys.exit(0)
        signal.signal(signal.SIGTERM, leave)
        print('up', flush=True)
        time.sleep(600)
        """
    )
    await process.start()
    await until(lambda: ("stub", "up") in lines, "up")
    await process.stop(10)
    assert lines[-1] == ("stub", "bye")


async def test_a_process_that_ignores_sigterm_is_killed(make_process: Make, lines: Lines) -> None:
    """After the grace the group is killed."""
    process = make_process("import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('up')\ntime.sleep(600)")
    await process.start()
    await until(lambda: lines, "up")
    began = time.monotonic()
    await process.stop(0.2)
    assert process.pid == 0
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_nothing_outlives_the_manager(tmp_path: Path, number: signal.Signals) -> None:
    """However the manager dies, the watchdog kills the groups, frozen ones too, and removes the files."""
    marker = tmp_path / "cluster.json"
    marker.write_text("{}")
    program = textwrap.dedent(
        f"""
        import asyncio, sys
        from pathlib import Path
        from tenure_cli.dev.processes import Process, Spec, Watchdog
        async def main():
            dog = Watchdog()
            dog.remove_at_end(Path({str(marker)!r}))
            command = [sys.executable, "-c", "import time; time.sleep(600)"]
            spec = Spec("stub", command, Path("/"), {{}}, Path({str(tmp_path / "l")!r}))
            process = Process(spec, dog, lambda *_: None)
            await process.start()
            process.freeze()
            print(process.pid, flush=True)
            await asyncio.sleep(600)
        asyncio.run(main())
        """
    )
    manager = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert manager.stdout is not None
    pid = int(await manager.stdout.readline())
    await until(lambda: process_state(pid) == "T", "the stub is frozen")
    manager.send_signal(number)
    await manager.wait()
    await until(lambda: process_state(pid) == "", "the stub is gone")
    await until(lambda: not marker.exists(), "the file is gone")


def test_a_log_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its limit a log is turned over, and one older file is kept."""
    monkeypatch.setattr(processes, "LOG_BYTES", 100)
    log = processes.LogFile(tmp_path / "a.log")
    for number in range(100):
        log.write(f"line {number}")
    log.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.log", "a.log.1"]
    assert all(file.stat().st_size < 150 for file in tmp_path.iterdir())
    assert (tmp_path / "a.log").read_text().endswith("line 99\n")


async def test_a_second_cluster_in_a_directory_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    """The files by which the first one is found stay its own."""
    lock = state.DirectoryLock(tmp_path)
    files = [tmp_path / name for name in (state.CLUSTER_FILE, state.PROCESSES_FILE)]
    for file in files:
        file.write_text("{}")
    with pytest.raises(CliError, match="already runs"):
        async with DevCluster(Options(tmp_path, "shop", "other", ()), lambda _name, _line: None):
            pass
    assert all(file.exists() for file in files)
    lock.release()
