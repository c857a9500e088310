"""How often a link that cannot be made is complained about."""

import logging
from types import SimpleNamespace

import pytest

from tenured.transport import backoff
from tenured.transport.backoff import Reconnect


async def test_a_peer_that_starts_later_is_no_warning_and_one_that_stays_away_is_one(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each cluster starts with refused connections; a user who reads twenty warnings looks for an error."""

    async def at_once(_: float) -> None: ...

    # Not asyncio's own: whatever else sleeps in this loop would go round for ever.
    monkeypatch.setattr(backoff, "asyncio", SimpleNamespace(sleep=at_once))
    caplog.set_level(logging.INFO)
    link, log = Reconnect(), logging.getLogger("test")
    for attempt in range(2 * backoff.LASTING):
        link.failed(log, "link to b", ("refused", "no route")[attempt % 2])
        await link.pause()
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [
        ("INFO", "link to b: refused"),
        ("INFO", "link to b: no route"),
        ("WARNING", "link to b: no route"),
        ("WARNING", "link to b: refused"),
    ]
    caplog.clear()
    link.succeeded()
    link.failed(log, "link to b", "refused")
    assert [one.levelname for one in caplog.records] == ["INFO"]
