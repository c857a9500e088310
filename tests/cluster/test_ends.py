"""Agents that end themselves, on three real servers and their hosts, while hosts are killed."""

import pytest

from tenure import errors
from tests.cluster.cluster_local import Local

pytestmark = pytest.mark.cluster


async def test_what_it_sent_arrives_once_though_its_host_dies(local: Local) -> None:
    """The reply, then `kill -9` of the host: its next holder goes on with the end. Its name is free afterwards."""
    ear = await local.on(0, class_="Ear")
    name = await local.on(1, class_="Mayfly")
    for word in ("one", "two"):
        host = await local.host_of(name)
        assert await local.call(name, "speak", to=ear, what=word) == word
        local.kill_host(host)
        with pytest.raises(errors.NotFound):
            await local.call(name, "said")
        await local.until_rows(lambda rows: rows.revision and rows.agent(name) is None, f"{name} is gone")
        await local.running_agent(id=name, class_="Mayfly")
    await local.until_answer(ear, "heard", lambda found: len(found) >= 2, "all of it")
    assert await local.call(ear, "heard") == ["one", "two"]
