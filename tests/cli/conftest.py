"""Fixtures for the command line: a fake cluster behind `tenure_cli.ports.Cluster`, and programs of three lines."""

import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tenure_cli import contexts, main
from tenure_cli.dev import state
from tenure_cli.dev.processes import Process, Spec, Watchdog
from tenure_cli.ports import Cluster
from tenure_cli.runtime import Runtime
from tenure_proto.v1 import registry_pb2
from tests.cli.cli_fake_cluster import NOW, FakeCluster


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


@pytest.fixture
def cluster() -> FakeCluster:
    """A healthy cluster: three servers, one pool, one host, one agent."""
    fake = FakeCluster()
    servers = [
        registry_pb2.ServerStatus(name=f"server-{index}", role=role, connected=True, store="ready", version="0.1.0")
        for index, role in enumerate(("follower", "leader", "follower"))
    ]
    fake.answer = registry_pb2.StatusResponse(
        cluster="shop/counter", leader="server-1", term=4, servers=servers, quorum_ready=3,
        certificate_expires_wall=NOW + 86_400,
    )  # fmt: skip
    fake.rows.pools["default"] = registry_pb2.PoolRow(spec=registry_pb2.PoolSpec(name="default", modules=["agents"]))
    fake.add_host()
    fake.add_agent()
    return fake


@pytest.fixture
def home(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment in which one local cluster, `dev`, runs (its lock is held)."""
    environment = {"XDG_STATE_HOME": str(tmp_path / "state")}
    directory = tmp_path / "state" / "tenure" / "dev" / "dev"
    lock = state.DirectoryLock(directory)
    (directory / state.CLUSTER_FILE).write_text("{}")
    yield environment
    lock.release()


@pytest.fixture
def tenure(cluster: FakeCluster, home: dict[str, str]) -> Callable[..., Result]:
    """Run the command line against the fake cluster."""

    @asynccontextmanager
    async def connect(context: contexts.Context, namespace: str) -> AsyncIterator[Cluster]:
        yield cluster

    def run(*words: str, stdin: str | None = None, prog_name: str = "root") -> Result:
        shell = Runtime(environment=home, connect=connect, clock=lambda: NOW)
        return CliRunner().invoke(main.app, list(words), input=stdin, obj=shell, prog_name=prog_name)

    return run
