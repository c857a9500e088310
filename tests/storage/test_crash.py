"""The store under a killed process and a full disk: whatever was answered "yes" is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tenured.core.cells import Version
from tenured.storage import Register

WRITER = Path(__file__).with_name("store_writer.py")


def start(path: Path, journal: int, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(WRITER), str(path), str(journal), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def stored(path: Path) -> dict[str, tuple[Version, bytes]]:
    store = Register(path)
    await store.open()
    readings = await store.read_many(["0", "1", "2", "3"])
    await store.close()
    return {reading.uid: (reading.version, reading.entries.get("s", b"")) for reading in readings}


def acknowledged(lines: list[str]) -> dict[str, int]:
    last: dict[str, int] = {}
    for line in lines:
        word, *rest = line.split()
        if word == "ok":
            last[rest[0]] = int(rest[1])
    return last


async def check(path: Path, lines: list[str]) -> None:
    found = await stored(path)
    assert acknowledged(lines), lines
    for uid, seq in acknowledged(lines).items():
        version, value = found[uid]
        assert version >= Version(1, seq)
        assert value == f"{uid}-{version.seq}-".encode() * 50


async def test_what_was_acknowledged_survives_kill_nine(tmp_path: Path) -> None:
    for round_number in range(5):
        path = tmp_path / str(round_number) / "state.db"
        path.parent.mkdir()
        with start(path, 15_000 << (4 * (round_number % 2))) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(200 + 150 * round_number)]
            process.kill()
            lines += process.stdout.readlines()
        await check(path, [line for line in lines if line.endswith("\n")])


async def test_a_full_disk_is_refused_with_a_sentence_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with start(path, 4 << 20, str(600 * 1024)) as process:
        assert process.stdout is not None
        lines = process.stdout.readlines()
    refusals = [line for line in lines if line.startswith("refused")]
    assert len(refusals) == 4
    assert all("disk of the state store" in line for line in refusals)
    assert lines[-1] == "end\n"
    await check(path, lines)
