"""The core has no shell here: tests feed values in and look at values that come out. Simulations use virtual time."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode: helper modules beside the tests have unique names


@pytest.fixture
def world() -> object:
    """A registry with its log index, and verbs that apply entries to it."""
    from core_world import World

    return World()
