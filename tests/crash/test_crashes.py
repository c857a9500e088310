"""Real servers under load: killed, frozen, without power, on full and broken disks. Long: `make soak`."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from faulty_servers import FAULTS, Fault, ForgetfulServers, Rounds


@pytest.fixture(scope="module")
async def rounds(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rounds]:
    async with ForgetfulServers(tmp_path_factory.mktemp("crash")) as servers:
        rounds = Rounds(servers)
        await rounds.prepare()
        yield rounds
        await rounds.load.stop()


@pytest.mark.cluster
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_what_was_acknowledged_outlives(rounds: Rounds, fault: Fault) -> None:
    await fault(rounds)
    await rounds.settle()
    assert not rounds.found
    assert rounds.verdicts[-1].operations > 50
    rounds.begin()


class Nothing(random.Random):
    """Dice of a cut that nothing survives but what was synced."""

    def choice(self, seq: object) -> float:  # type: ignore[override]
        return 0.0


@pytest.mark.cluster
async def test_a_disk_that_lies_about_its_syncs_is_caught(tmp_path: Path) -> None:
    """That the tests above can fail: acknowledged rows are lost, and the judge says so."""
    async with ForgetfulServers(tmp_path, rng=Nothing()) as servers:
        rounds = Rounds(servers)
        await rounds.prepare()
        for name in servers.servers:
            servers.lie(name)
        for _ in range(5):
            await rounds.load.progress()
        await rounds.power_off_all()
        await rounds.settle()
        assert any("not linearizable" in line for line in rounds.found)
