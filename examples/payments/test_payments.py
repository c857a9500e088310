"""The agent and its script; and that a process that dies anywhere, ever again, charges once."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import card
import tenure
from payments import Payment
from tenure.testing import VirtualRuntime

HERE = Path(__file__).parent
DAY = 24 * 3600

# One life of the payment's process: it begins or goes on, is approved, and is killed at a commit, or ends.
LIFE = """
import asyncio, os, signal, sys
from pathlib import Path
import run
from tenure.storage import SQLiteStorage

class Deadly(SQLiteStorage):
    async def put(self, key, data, *, expected=None):
        if sys.argv[2] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        revision = await super().put(key, data, expected=expected)
        if sys.argv[2] == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return revision

run.SQLiteStorage = Deadly
directory = Path(sys.argv[1])
said = asyncio.run(run.main(directory, "pay", 40))
if said.startswith("suspended"):
    said = asyncio.run(run.main(directory, "approve"))
print(said)
"""


def lives(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the text above, to its end or its death."""
    command = [sys.executable, "-c", LIFE, *arguments]
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603


async def call(runtime: VirtualRuntime, payment: Payment, **arguments: Any) -> "asyncio.Task[str]":
    """A payment that waits for its approval."""
    task = asyncio.create_task(payment.call(Payment.pay(**arguments), timeout=9 * DAY))
    await runtime.idle()
    return task


async def test_it_charges_when_a_human_has_approved(tmp_path: Path) -> None:
    """Not before, and what it was worth then."""
    cards = tmp_path / "card.db"
    async with VirtualRuntime() as runtime:
        payment = await runtime.create(Payment, "p", config={"card": str(cards)})
        paying = await call(runtime, payment, amount=100, currency="CHF")
        await runtime.advance(DAY)
        assert card.charges(cards) == []
        await runtime.signal(payment, tenure.Signal.new("payment.approved", source="desk/ann"))
        await runtime.advance(1)
        assert await paying == await payment.receipt() == "R1"
        assert card.charges(cards) == [105]


async def test_what_is_refused_or_forgotten_is_not_charged(tmp_path: Path) -> None:
    """A refusal says by whom."""
    cards = tmp_path / "card.db"
    async with VirtualRuntime() as runtime:
        for name, refused in (("refused", True), ("forgotten", False)):
            payment = await runtime.create(Payment, name, config={"card": str(cards)})
            paying = await call(runtime, payment, amount=100)
            if refused:
                await runtime.signal(payment, tenure.Signal.new("payment.refused", source="desk/bob"))
            await runtime.advance(4 * DAY)
            assert await paying == ""
            assert runtime.state(payment).refused_by == ("desk/bob" if refused else "nobody answered")
        assert card.charges(cards) == []


def test_a_process_that_is_killed_at_every_commit_charges_once(tmp_path: Path) -> None:
    """Protocol 9: kill -9 before and after each commit: acceptance, steps, suspensions, wake-ups, end."""
    kills = 0
    while True:
        before = lives(str(tmp_path), "before")  # as many attempts as commits, and nothing is kept of each
        if before.returncode == 0:
            break
        after = lives(str(tmp_path), "after")  # one commit further
        assert {before.returncode, after.returncode} == {-signal.SIGKILL}, before.stderr + after.stderr
        kills += 2
        assert kills < 40, "it does not come on"
    assert kills >= 10
    assert lives(str(tmp_path), "never").stdout == "paid: R1\n"
    assert card.charges(tmp_path / "card.db") == [40]
    assert card.requests(tmp_path / "card.db") > 1, "it was asked for again, with the same key"
