"""Helpers of the SDK's tests: its sample agents are importable as `sdk_agents`."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tenure.testing import VirtualRuntime

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
async def rt() -> AsyncIterator[VirtualRuntime]:
    """A local runtime in virtual time. Modules that need another kind have one of their own."""
    async with VirtualRuntime() as runtime:
        yield runtime


@pytest.fixture
async def cluster() -> AsyncIterator[Any]:
    """See `sdk_cluster.FakeCluster`."""
    from sdk_cluster import fake_cluster

    async with fake_cluster() as fake:
        yield fake


@pytest.fixture
def outside_anew() -> None:
    """For tests of steps: nobody outside has been asked for anything."""
    from step_support import nobody_was_asked

    nobody_was_asked()
