"""Porcupine as an outside judge: is a history of registry operations linearizable?

The program is Go (main.go; versions and sums are committed), built on demand and kept in `~/.cache/tenure`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.k8s import binaries, cache
from tools.k8s.shell import Steps, run

SOURCES = Path(__file__).resolve().parent
_ENVIRONMENT = {"CGO_ENABLED": "0", "GOFLAGS": "-trimpath -buildvcs=false -mod=readonly", "GOTOOLCHAIN": "local"}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a client on one row. Times in nanoseconds of one clock; of an unknown outcome `end` is void.

    kind: put, delete, read. outcome: created, configured, unchanged, gone, present, absent, unknown.
    """

    client: int
    key: str
    kind: str
    value: int
    call: int
    end: int
    outcome: str
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge said. `decided` is False when it ran out of time."""

    linearizable: bool
    decided: bool
    operations: int
    unknown: int
    keys: int
    bad: tuple[str, ...]
    seconds: float


def program() -> Path:
    """The judge, built if need be. Raises HarnessError when Go or the modules cannot be had."""
    sources = [SOURCES / name for name in ("main.go", "go.mod", "go.sum")]
    target = cache.directory().parent / "judge" / cache.key(sources, repr(_ENVIRONMENT)) / "judge"
    if target.exists():
        return target
    with cache.lock("judge"):
        if not target.exists():
            shutil.rmtree(target.parents[1], ignore_errors=True)
            target.parent.mkdir(parents=True)
            partial = target.with_suffix(".part")
            steps = Steps()
            steps("building the judge of histories")
            run(binaries.find_go(steps), "build", "-o", partial, ".", cwd=SOURCES, env=_ENVIRONMENT)
            partial.rename(target)
    return target


def judge(history: Iterable[Operation], limit_s: float = 60) -> Verdict:
    """Whether one order of these operations explains all answers. Raises ValueError when the history makes no sense."""
    lines = "\n".join(json.dumps(_line(operation)) for operation in history)
    done = subprocess.run(
        [program(), "-limit", f"{limit_s}s"], input=lines, capture_output=True, text=True, check=False
    )
    if not done.stdout:
        raise ValueError(f"the judge cannot read the history: {done.stderr.strip()}")
    said = json.loads(done.stdout)
    return Verdict(**{**said, "bad": tuple(said["bad"])})


def _line(operation: Operation) -> dict[str, object]:
    fields = asdict(operation)
    fields["return"] = fields.pop("end")
    return fields
