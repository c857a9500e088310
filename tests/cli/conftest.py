"""Fixtures for the command line: no cluster; programs of three lines stand in for daemons."""

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tenure_cli.dev.processes import Process, Spec, Watchdog


@pytest.fixture
def lines() -> list[tuple[str, str]]:
    """What the processes of a test wrote, as (name, line)."""
    return []


@pytest.fixture
def make_process(tmp_path: Path, lines: list[tuple[str, str]]) -> Iterator[Callable[..., Process]]:
    """A factory of managed processes that run a short Python program."""
    dog = Watchdog()
    made = []

    def make(program: str, name: str = "stub") -> Process:
        command = [sys.executable, "-u", "-S", "-c", textwrap.dedent(program)]
        log = tmp_path / "logs" / f"{name}.log"
        process = Process(
            Spec(name, command, Path(tmp_path), {}, log), dog, lambda who, line: lines.append((who, line))
        )
        made.append(process)
        return process

    yield make
    for process in made:
        process.signal(9)
    dog.close()
