"""`make demo`: a host loses its power, and the agent that it held goes on elsewhere, with its state.

The power cut is SIGSTOP to the host's whole process group, daemon, worker and all: silence. No socket is closed,
nothing is reset, nobody is told.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tenure.errors import TenureError
from tenure_cli import contexts, paths
from tenure_cli.connect import connect
from tenure_cli.dev import state
from tenure_cli.errors import CliError
from tenure_cli.ports import Cluster, snapshot
from tenure_cli.runtime import explain

NAME = "demo"
AGENT = "shop/counter-1"
EXAMPLE = Path("examples/counter")
BEFORE = 100
"""Where the counter stands when the power goes."""
AFTER = 20
"""Calls that must be answered afterwards."""
CALL_S = 30.0
WIDTH = 110
"""Columns that the table needs, also where no terminal is."""


@dataclass(frozen=True)
class Outcome:
    """What was seen. Calls are acknowledged ones; each added one to the counter."""

    agent: str
    host_before: str
    host_after: str
    epoch_before: int
    epoch_after: int
    count_before: int
    count_after: int
    acknowledged: int
    recovery_ms: float

    @property
    def lost(self) -> int:
        """Acknowledged calls that the counter does not show."""
        return max(0, self.acknowledged - self.count_after)

    @property
    def doubled(self) -> int:
        """Additions that nobody asked for."""
        return max(0, self.count_after - self.acknowledged)

    @property
    def good(self) -> bool:
        """The agent moved, under a higher epoch, and the counter is right."""
        moved = self.host_after != self.host_before and self.epoch_after > self.epoch_before
        return moved and self.lost == 0 and self.doubled == 0


def table(outcome: Outcome) -> Table:
    """The table of the issue."""
    made = Table(title="A host lost its power", show_header=True, header_style="bold")
    for column in ("agent", "held by", "epoch", "counter", "calls lost", "calls doubled", "recovery"):
        made.add_column(column, justify="left" if column in ("agent", "held by") else "right")
    made.add_row(
        outcome.agent,
        f"{outcome.host_before} → {outcome.host_after}",
        f"{outcome.epoch_before} → {outcome.epoch_after}",
        f"{outcome.count_before} → {outcome.count_after}",
        str(outcome.lost),
        str(outcome.doubled),
        f"{outcome.recovery_ms:.0f} ms",
    )
    return made


async def show(cluster: Cluster, processes: state.Processes, console: Console) -> Outcome:
    """Count to 100, cut the power of the holder, keep calling. Raises CliError and the SDK's errors."""
    row = (await snapshot(cluster)).agent(AGENT)
    if row is None:
        raise CliError(f"The example has no agent {AGENT}.")
    reply = await cluster.call(AGENT, "increment", {"by": 1}, CALL_S)
    acknowledged = 1
    while reply.value < BEFORE:
        reply = await cluster.call(AGENT, "increment", {"by": 1}, CALL_S)
        acknowledged += 1
    count, holder, epoch = reply.value, reply.host, reply.epoch
    console.print(f"{AGENT} stands at {count}, held by {holder}. Cutting the power of {holder} …")
    os.killpg(processes.find(holder).pid, signal.SIGSTOP)
    cut = time.monotonic()
    first = await cluster.call(AGENT, "increment", {"by": 1}, CALL_S)
    recovery_ms = (time.monotonic() - cut) * 1000
    console.print(f"… {first.host} answers after {recovery_ms:.0f} ms: {first.value}. Calling on.")
    for _ in range(AFTER - 1):
        await cluster.call(AGENT, "increment", {"by": 1}, CALL_S)
    final = await cluster.call(AGENT, "value", {}, CALL_S)
    return Outcome(AGENT, holder, final.host, epoch, final.epoch, count, final.value, acknowledged + AFTER, recovery_ms)


async def _show(environment: Mapping[str, str], console: Console) -> Outcome:
    directory = paths.dev_directory(environment, NAME)
    processes = state.read_processes(directory)
    context = contexts.DevContext(NAME, directory / state.CLUSTER_FILE, "the demo")
    async with connect(context, "") as cluster:
        outcome = await show(cluster, processes, console)
    # The power comes back: what was frozen is gone, and `tenure dev` starts the host anew.
    os.killpg(processes.find(outcome.host_before).pid, signal.SIGKILL)
    return outcome


def _tenure(environment: Mapping[str, str], *words: str) -> None:
    command = [sys.executable, "-P", "-m", "tenure_cli.main", *words]
    if subprocess.run(command, env=dict(environment), check=False).returncode:  # noqa: S603 - our own program
        raise CliError(f"`tenure {' '.join(words)}` failed.", "What it printed above says why.")


def run(*, once: bool, console: Console) -> int:
    """The whole demo; the exit status."""
    with ExitStack() as stack:
        environment: dict[str, str] = dict(os.environ)
        if once:
            environment["XDG_STATE_HOME"] = stack.enter_context(tempfile.TemporaryDirectory(prefix="tenure-"))
        elif state.is_running(paths.dev_directory(environment, NAME)):
            _tenure(environment, "dev", "stop", "--name", NAME)
        console.print("Starting 3 servers and 3 hosts on this machine …")
        if once:
            stack.callback(_stop, environment)
        _tenure(environment, "dev", "-f", str(EXAMPLE), "--name", NAME, "--fresh", "--detach")
        outcome = asyncio.run(_show(environment, console))
        console.print(table(outcome))
        console.print("The counter is right." if outcome.good else "[bold red]This is not as it should be.[/]")
        if not once:
            _farewell(console)
    return 0 if outcome.good else 1


def _stop(environment: Mapping[str, str]) -> None:
    if state.is_running(paths.dev_directory(environment, NAME)):
        _tenure(environment, "dev", "stop", "--name", NAME)


def _farewell(console: Console) -> None:
    console.print(
        f"\nThe cluster is still up (the host has its power back). Talk to it:\n\n"
        f"  . .venv/bin/activate\n"
        f"  tenure get agents\n"
        f"  tenure call {AGENT} increment --by 2\n"
        f"  tenure describe agent {AGENT}\n"
        f"  tenure dev stop --name {NAME}\n"
    )


def main() -> int:
    """`python -m tenure_cli.demo [--once]`."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end by itself; status 0 only if all is right")
    arguments = parser.parse_args()
    console = Console(highlight=False, width=max(WIDTH, Console().width))
    try:
        return run(once=arguments.once, console=console)
    except (CliError, TenureError) as error:
        sentence, step, _ = explain(error)
        console.print(f"Error: {sentence} {step}".rstrip(), style="bold red", markup=False)
        return 1


if __name__ == "__main__":
    sys.exit(main())
