"""The Raft log on a disk whose sync failed once: what the next process reads back must not be believed as it is.

Found by the soak: after a failed sync, a restart, and then a power cut, a server refused to start.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from faulty_servers import powered

from tenured.raft.files import DiskFiles
from tenured.raft.wal import open_log
from tools import powercut

SCRIPT = """
import sys
from pathlib import Path
from tenured.raft.files import DiskFiles
from tenured.raft.records import Added, Entry, encode_record
from tenured.raft.wal import open_log

disk, shadow, fails = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "fails"
state, log = open_log(DiskFiles(disk), "a")
end = state.end or 1
def add(index):
    log.write([encode_record(Added(Entry(b"\\x00x" * 400, index, 1)))])
add(end)
log.sync()
add(end + 1)
if fails:
    (shadow / "broken").touch()
try:
    log.sync()
except OSError:
    (shadow / "broken").unlink()
print(end + 1, flush=True)
sys.stdin.read()
"""


def run_and_kill(disk: Path, shadow: Path, how: str) -> int:
    command = [sys.executable, "-c", SCRIPT, str(disk), str(shadow), how]
    environment = powered(disk, shadow)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        last = int(process.stdout.readline())
        process.kill()
    return last


@pytest.mark.parametrize("seed", range(4))
def test_what_is_read_back_after_a_failed_sync_is_written_anew(tmp_path: Path, seed: int) -> None:
    disk, shadow = tmp_path / "disk", tmp_path / "shadow"
    powercut.fresh(disk, shadow)
    run_and_kill(disk, shadow, "fails")
    last = run_and_kill(disk, shadow, "works")
    powercut.cut(disk, shadow, random.Random(seed))
    state, log = open_log(DiskFiles(disk), "a")
    log.close()
    assert state.end - 1 == last
