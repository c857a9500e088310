"""An open store in a directory of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tenured.storage import Register


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Register]:
    register = Register(tmp_path / "state.db")
    await register.open()
    await register.admit()
    yield register
    await register.close()
