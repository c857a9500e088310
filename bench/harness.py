"""What the benches share: a local cluster of real processes, statistics, and lines of results.

A line is one object: {line, ours, unit, peer, theirs, runs}. `ours` is what the line's name says (p50, worst, …),
`runs` every single value it was made from. `theirs` is null unless the peer was measured in the same run: on another
day the same machine is up to twice as fast.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from tenure_cli.connect import connect
from tenure_cli.dev.bring_up import started
from tenure_cli.dev.cluster import DevCluster, Options
from tenure_cli.dev.plan import PoolPlan
from tenure_cli.dev.setup import Setup
from tenure_cli.ports import Cluster
from tenure_proto.v1 import registry_pb2

ROOT = Path(__file__).resolve().parent
NAMESPACE = "bench"
NO_PEER = "none in this run"


@dataclass(frozen=True)
class Line:
    """One result."""

    line: str
    ours: float
    unit: str
    runs: Sequence[float]
    peer: str = NO_PEER
    theirs: float | None = None


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; `share` from 0 to 1. Raises ValueError without values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]


def arguments(description: str, runs: int) -> argparse.Namespace:
    """`--json`, `--runs`, `--log`, and nothing else."""
    return parser(description, runs).parse_args()


def parser(description: str, runs: int) -> argparse.ArgumentParser:
    """`--json`, `--runs`, `--log`; a bench may add more."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", action="store_true", help="one object a line")
    made.add_argument("--runs", type=int, default=runs, help=f"how often (default: {runs})")
    made.add_argument("--log", action="store_true", help="print the processes' logs to standard error")
    return made


def emit(lines: Sequence[Line], *, as_json: bool) -> None:
    """Print the results."""
    for line in lines:
        if as_json:
            values = asdict(line) | {"ours": round(line.ours, 3), "runs": [round(run, 3) for run in line.runs]}
            values["theirs"] = None if line.theirs is None else round(line.theirs, 3)
            order = ("line", "ours", "unit", "peer", "theirs", "runs")
            print(json.dumps({name: values[name] for name in order}), flush=True)
        else:
            peer = f"   {line.peer}: {line.theirs:g} {line.unit}" if line.theirs is not None else ""
            print(f"{line.line:<72} {line.ours:>10.4g} {line.unit:<5} n={len(line.runs)}{peer}", flush=True)


def say(text: str) -> None:
    """Progress, beside the results."""
    print(text, file=sys.stderr, flush=True)


def agent_spec(name: str, cls: str = "BenchCounter", durability: str = "") -> registry_pb2.AgentSpec:
    """A counter's row, or that of another class of bench/counters.py."""
    empty = msgspec.msgpack.encode({})
    spec = registry_pb2.AgentSpec(
        id=f"{NAMESPACE}/{name}", pool="default", state=empty, config=empty, critical=True, cpu_milli=1,
        memory_bytes=1 << 20, strategy="LoadBalanced", durability=durability,
    )  # fmt: skip
    setattr(spec, "class", cls)
    return spec


@asynccontextmanager
async def local_cluster(
    agents: Sequence[str | registry_pb2.AgentSpec],
    *,
    log: bool = False,
    profile: str = "Balanced",
    servers: int = 3,
    hosts: int = 3,
    root: Path = ROOT,
    modules: Sequence[str] = ("counters",),
) -> AsyncGenerator[tuple[DevCluster, Cluster]]:
    """Servers and hosts as processes, in a directory of their own, with these agents (counters, if named) Ready."""
    pool = PoolPlan(modules=tuple(modules))
    setup = Setup(
        namespace=NAMESPACE,
        cluster="bench",
        profile=profile,
        pools=(pool,),
        pool_rows=(registry_pb2.PoolSpec(name=pool.name, modules=pool.modules),),
        agents=tuple(agent_spec(each) if isinstance(each, str) else each for each in agents),
        python_root=root,
        notices=(),
    )
    with tempfile.TemporaryDirectory(prefix="tenure-bench-") as directory:
        options = Options(
            Path(directory) / "dev",
            setup.namespace,
            setup.cluster,
            setup.pools,
            servers=servers,
            nodes=hosts,
            profile=setup.profile,
            python_root=setup.python_root,
        )

        def sink(name: str, line: str) -> None:
            if log:
                say(f"{name} {line}")

        async with started(options, setup, connect, sink, say) as (running, cluster):
            yield running, cluster
