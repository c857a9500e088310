"""The disk that forgets: it forgets what was not synced, and nothing else."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tools import powercut

WRITER = """
import os, sys
place = sys.argv[1]
def put(name, data, sync):
    fd = os.open(f"{place}/{name}", os.O_CREAT | os.O_WRONLY)
    os.write(fd, data)
    if sync: os.fdatasync(fd)
    os.close(fd)
def sync_names():
    fd = os.open(place, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
put("synced", b"a" * 10_000, True)
put("half", b"b" * 5000, True)
put("old", b"o", True)
sync_names()
os.rename(f"{place}/old", f"{place}/new")
fd = os.open(f"{place}/half", os.O_WRONLY | os.O_APPEND)
os.write(fd, b"c" * 5000)
put("nameless", b"d" * 100, True)
print("ready", flush=True)
sys.stdin.read()
"""


def killed(directory: Path) -> tuple[Path, Path]:
    disk, shadow = directory / "disk", directory / "shadow"
    powercut.fresh(disk, shadow)
    run_and_kill([WRITER, str(disk)], disk, shadow)
    return disk, shadow


def run_and_kill(arguments: list[str], disk: Path, shadow: Path) -> None:
    """A script on that disk, killed when it is ready."""
    environment = {**os.environ, **powercut.environment(disk, shadow)}
    with subprocess.Popen(
        [sys.executable, "-c", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)


class Dice(random.Random):
    """Always the same: nothing survives that was not synced, or everything does."""

    def __init__(self, keep: float) -> None:
        super().__init__(0)
        self.keep = keep

    def choice(self, seq):  # noqa: ANN001, ANN201
        return self.keep


def test_what_was_not_synced_is_gone(tmp_path: Path) -> None:
    disk, shadow = killed(tmp_path)
    loss = powercut.cut(disk, shadow, Dice(0.0))
    found = {path.name: path.read_bytes() for path in disk.iterdir()}
    assert found == {"synced": b"a" * 10_000, "half": b"b" * 5000, "old": b"o"}
    assert loss.pages > 0
    assert loss.names == 3  # old, new, nameless


def test_it_may_also_survive(tmp_path: Path) -> None:
    disk, shadow = killed(tmp_path)
    powercut.cut(disk, shadow, Dice(1.0))
    found = {path.name: path.read_bytes() for path in disk.iterdir()}
    assert found == {
        "synced": b"a" * 10_000, "half": b"b" * 5000 + b"c" * 5000, "new": b"o", "nameless": b"d" * 100
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_what_was_synced_survives_any_dice(tmp_path: Path, seed: int) -> None:
    disk, shadow = killed(tmp_path)
    powercut.cut(disk, shadow, random.Random(seed))
    assert (disk / "synced").read_bytes() == b"a" * 10_000
    assert (disk / "half").read_bytes()[:5000] == b"b" * 5000


BROKEN = """
import os, sys
place, shadow = sys.argv[1:]
fd = os.open(f"{place}/log", os.O_CREAT | os.O_RDWR | os.O_APPEND)
if not os.fstat(fd).st_size:
    os.write(fd, b"a" * 5000)
    os.fsync(fd)
    names = os.open(place, os.O_RDONLY)
    os.fsync(names)
    os.write(fd, b"b" * 5000)
    open(f"{shadow}/broken", "w").close()
    try:
        os.fsync(fd)
    except OSError:
        os.unlink(f"{shadow}/broken")
else:
    os.write(fd, b"c" * 5000)
    os.fsync(fd)
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_a_failed_sync_was_to_cover_is_on_no_disk_though_the_next_sync_says_yes(tmp_path: Path) -> None:
    disk, shadow = tmp_path / "disk", tmp_path / "shadow"
    powercut.fresh(disk, shadow)
    for _ in range(2):
        run_and_kill([BROKEN, str(disk), str(shadow)], disk, shadow)
    assert (disk / "log").read_bytes() == b"a" * 5000 + b"b" * 5000 + b"c" * 5000  # as a process reads it
    powercut.cut(disk, shadow, Dice(0.0))
    assert (disk / "log").read_bytes() == b"a" * 5000 + b"\0" * 5000 + b"c" * 5000
