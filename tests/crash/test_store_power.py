"""The state store without power: whatever was answered "yes" is there, SQLite's files and the journal's included."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tenured.core.cells import Version
from tenured.storage import Register
from tools import powercut

WRITER = Path(__file__).parents[1] / "storage" / "store_writer.py"


async def stored(path: Path) -> dict[str, tuple[Version, bytes]]:
    store = Register(path)
    await store.open()
    readings = await store.read_many(["0", "1", "2", "3"])
    await store.close()
    return {reading.uid: (reading.version, reading.entries.get("s", b"")) for reading in readings}


def acknowledged(disk: Path, shadow: Path, answers: int, journal: int) -> dict[str, int]:
    """The last version of each record that the writer was told "yes" for, before its power went."""
    powercut.fresh(disk, shadow)
    environment = {**os.environ, **powercut.environment(disk, shadow)}
    with subprocess.Popen(
        [sys.executable, str(WRITER), str(disk / "state.db"), str(journal)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(answers)]
        process.kill()
        lines += process.stdout.readlines()
    return {line.split()[1]: int(line.split()[2]) for line in lines if line.startswith("ok ") and line.endswith("\n")}


@pytest.mark.parametrize("seed", range(10))
async def test_what_the_store_acknowledged_outlives_a_power_cut(tmp_path: Path, seed: int) -> None:
    disk, shadow = tmp_path / "disk", tmp_path / "shadow"
    last = acknowledged(disk, shadow, 100 + 97 * seed, 4 << 20 if seed % 3 == 0 else 20_000)
    powercut.cut(disk, shadow, random.Random(seed))
    assert last
    found = await stored(disk / "state.db")
    for uid, seq in last.items():
        version, value = found[uid]
        assert version >= Version(1, seq)
        assert value == f"{uid}-{version.seq}-".encode() * 50
