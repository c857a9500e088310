"""What a registry of 100,000 agents costs a server: memory, the stall of a snapshot, and a restart.

    python -m bench.registry [--json] [--runs N] [--agents N]

Each run is two processes, one after the other, on one directory: a server of a cluster of one, without its ports. The
first fills the registry through the log (100 hosts, agents in batches of 500, each assigned and Ready), notes how late
its loop is at most, ticking every millisecond and with 200 commands a second under way, without and with a snapshot
being written, and is killed. The second is timed from its start as a process until it has a leader and has applied
everything. There is no peer: etcd's rows are bytes to it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.harness import Line, emit, say

AGENTS = 100_000


def child(directory: Path, agents: int, phase: str) -> dict[str, float]:
    """Run one phase as a process. It ends as by kill -9: nothing is put away."""
    command = [sys.executable, "-m", "bench.registry_server", phase, str(directory), str(agents)]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline() if process.stdout is not None else ""
        took = time.monotonic() - began
        process.kill()
    if not line:
        raise SystemExit(f"phase {phase} ended without a result")
    return {**json.loads(line), "seconds": took}


def main() -> None:
    """Run, and print lines."""
    parser = argparse.ArgumentParser(description="What a registry of many agents costs a server.")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--runs", type=int, default=3, help="how often (default: 3)")
    parser.add_argument("--agents", type=int, default=AGENTS, help=f"how many (default: {AGENTS})")
    options = parser.parse_args()
    first: list[dict[str, float]] = []
    second: list[dict[str, float]] = []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory(prefix="tenure-bench-") as directory:
            first.append(child(Path(directory), options.agents, "fill"))
            second.append(child(Path(directory), options.agents, "restart"))
            say(f"{first[-1]} {second[-1]}")
    emit(lines(options.agents, first, second), as_json=options.json)


def lines(agents: int, first: list[dict[str, float]], second: list[dict[str, float]]) -> list[Line]:
    """The results, the worst of all runs each."""
    rows = (
        ("memory of a server with {} agents, filled through the log", "MB", [run["memory_mb"] for run in first]),
        ("memory of a server with {} agents, restarted", "MB", [run["memory_mb"] for run in second]),
        (
            "loop's worst delay while a snapshot of {} agents is written, 200 commands/s",
            "ms",
            [r["stall_ms"] for r in first],
        ),
        ("loop's worst delay without a snapshot, the same load and time", "ms", [run["idle_ms"] for run in first]),
        ("freezing {} agents", "ms", [run["freeze_ms"] for run in first]),
        ("a snapshot of {} agents, begin to durable", "s", [run["snapshot_s"] for run in first]),
        ("restart with {} agents, process start to serving", "s", [run["seconds"] for run in second]),
        ("processor time of that restart", "s", [run["cpu_s"] for run in second]),
        ("loop's worst delay during that restart", "ms", [run["stall_ms"] for run in second]),
    )
    return [Line(name.format(f"{agents:,}"), max(runs), unit, runs) for name, unit, runs in rows]


if __name__ == "__main__":
    main()
