"""`tenure dev` and `make demo` as a user starts them."""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "counter"
DEADLINE_S = 120.0


@dataclass
class User:
    """Somebody with a state directory of their own, in the root of a checkout."""

    environment: dict[str, str]

    @property
    def directory(self) -> Path:
        """Of the local cluster `dev`."""
        return Path(self.environment["XDG_STATE_HOME"]) / "tenure" / "dev" / "dev"

    async def run(self, *words: str, module: str = "tenure_cli.main") -> tuple[int, str]:
        """Run a command to its end; status, and what it printed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", module, *words, cwd=ROOT, env=self.environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(DEADLINE_S):
            out, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode()

    def mine(self) -> list[str]:
        """Command lines of processes that belong to this directory."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if str(self.directory) in command:
                    found.append(command)
        return found


@pytest.fixture
def user() -> Iterator[User]:
    """Not pytest's directory: the path of a unix socket is short."""
    with tempfile.TemporaryDirectory(prefix="tn-") as home:
        yield User({"PATH": os.environ["PATH"], "HOME": home, "XDG_STATE_HOME": home, "COLUMNS": "200"})


@pytest.fixture
async def detached(user: User) -> AsyncIterator[User]:
    """`tenure dev -f examples/counter --detach`, stopped at the end if it still runs."""
    status, out = await user.run("dev", "-f", str(EXAMPLE), "--servers", "1", "--hosts", "2", "--detach")
    assert status == 0, out
    yield user
    await user.run("dev", "stop")


async def test_the_example_runs_as_the_readme_says(detached: User) -> None:
    """get, call, doctor, status; and a second one in the same place is refused."""
    status, out = await detached.run("get", "agents")
    assert status == 0
    assert "shop/counter-1" in out
    assert await detached.run("call", "shop/counter-1", "increment", "--by", "2") == (0, "2\n")
    status, out = await detached.run("call", "shop/counter-1", "increment", "--by", "0")
    assert status == 1
    assert "ValueError in increment: by must be positive" in out
    status, out = await detached.run("doctor")
    assert status == 0, out
    status, out = await detached.run("dev", "status", "-o", "json")
    assert [item["name"] for item in json.loads(out)["processes"]] == ["server-0", "host-1", "host-2"]
    status, out = await detached.run("dev", "-f", str(EXAMPLE), "--detach")
    assert status == 1
    assert "runs already" in out
    assert (await detached.run("call", "shop/counter-1", "value"))[0] == 0


async def test_the_agents_of_the_manifests_are_spread_over_the_hosts(detached: User) -> None:
    """Whichever host was there first."""
    status, out = await detached.run("get", "agents", "-o", "json")
    assert status == 0, out
    assert {agent["host"] for agent in json.loads(out)["items"]} == {"host-1", "host-2"}


async def test_the_data_is_kept_over_a_restart(detached: User) -> None:
    """stop, start: the count is still there, `--fresh` forgets it."""
    assert await detached.run("call", "shop/counter-1", "increment", "--by", "7") == (0, "7\n")
    words = ("dev", "-f", str(EXAMPLE), "--servers", "1", "--hosts", "2", "--detach")
    assert (await detached.run("dev", "stop"))[0] == 0
    assert detached.mine() == []
    assert (await detached.run(*words))[0] == 0
    assert await detached.run("call", "shop/counter-1", "value") == (0, "7\n")
    assert (await detached.run("dev", "stop"))[0] == 0
    assert (await detached.run(*words, "--fresh"))[0] == 0
    assert await detached.run("call", "shop/counter-1", "value") == (0, "0\n")


async def test_a_reload_keeps_the_state(user: User, tmp_path: Path) -> None:
    """`--reload`: the new code, the old count, the same epoch."""
    for name in ("agents.py", "agents.yaml", "cluster.yaml"):
        shutil.copy(EXAMPLE / name, tmp_path)
    source = tmp_path / "agents.py"
    words = ("dev", "-f", str(tmp_path), "--servers", "1", "--hosts", "1", "--reload", "--detach")
    status, out = await user.run(*words)
    assert status == 0, out
    try:
        assert await user.run("call", "shop/counter-1", "increment", "--by", "4") == (0, "4\n")
        source.write_text(source.read_text().replace("return self.state.count", "return -self.state.count"))
        end = time.monotonic() + DEADLINE_S
        while (seen := await user.run("call", "shop/counter-1", "value")) != (0, "-4\n"):
            assert time.monotonic() < end, seen
        status, out = await user.run("get", "agents", "counter-1", "-o", "json")
        assert json.loads(out)["epoch"] == "1"
    finally:
        await user.run("dev", "stop")


async def test_nothing_is_left_when_it_is_killed(detached: User) -> None:
    """SIGKILL to `tenure dev`, one host frozen: the watchdog ends all of it."""
    found = json.loads((detached.directory / "processes.json").read_text())
    host = next(item for item in found["processes"] if item["name"] == "host-1")
    os.killpg(host["pid"], signal.SIGSTOP)
    os.kill(found["manager"], signal.SIGKILL)
    end = time.monotonic() + 20
    while detached.mine():
        assert time.monotonic() < end, detached.mine()
        await asyncio.sleep(0.05)
    status, out = await detached.run("dev", "status")
    assert status == 1
    assert "No local cluster called 'dev' runs." in out


async def test_the_demo_ends_well(user: User) -> None:
    """`make demo ONCE=1`: a host loses its power; nothing is lost, nothing doubled, nothing left behind."""
    status, out = await user.run("--once", module="tenure_cli.demo")
    assert status == 0, out
    assert "The counter is right." in out
    assert "100 → 120" in out
    assert user.mine() == []
