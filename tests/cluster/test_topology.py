"""`tenure topology` on real processes."""

import asyncio
import json
from typing import Any

import pytest

from tests.cluster.cluster_local import Local

pytestmark = pytest.mark.cluster


async def test_the_topology_is_one_picture_and_a_lost_server_is_missing_in_it(whole: Local) -> None:
    """TOPO-01 to TOPO-06: everybody sees everybody; a server that is gone flips its cells and nobody else's."""

    async def asked() -> dict[str, Any]:
        shown = await whole.tenure("topology", "-o", "json")
        assert shown.status == 0, shown.err
        return json.loads(shown.out)

    found = await asked()
    assert len(found["connections"]) == 3
    assert all(all(cells.values()) for cells in found["connections"].values()), found
    assert found["partitions"] == []
    assert len(set(found["leaders"].values())) == 1
    follower = next(name for name in found["leaders"] if name != found["leaders"][name])
    process = whole.running.process(follower)
    await process.kill(restart=False)
    try:
        async with asyncio.timeout(60):
            while len((found := await asked())["partitions"]) != 2:  # when the others notice, no event tells
                pass
    finally:
        await process.start()
    assert [follower] in found["partitions"]
    assert follower not in found["connections"]
    assert not any(cells[follower] for cells in found["connections"].values())
    assert {node["name"]: node["role"] for node in found["nodes"]}[follower] == "unreachable"
