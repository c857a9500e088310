"""Cron expressions: time zones, the two days a year, and what cannot be."""

from datetime import UTC, datetime

import pytest

from tenure.errors import DefinitionError
from tenure.schedule import Cron

BERLIN = "Europe/Berlin"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "after", "comes"),
    [
        (Cron("*/5 * * * *"), "2026-01-01T00:00", "2026-01-01T00:05"),
        (Cron("0 9 * * MON-FRI", BERLIN), "2026-01-02T08:00", "2026-01-05T08:00"),
        (Cron("@daily", "America/New_York"), "2026-07-01T04:00", "2026-07-02T04:00"),
        # 2026-03-29: 02:00 to 03:00 does not exist in Berlin. A job at 02:30 runs at once after the gap.
        (Cron("30 2 * * *", BERLIN), "2026-03-28T12:00", "2026-03-29T01:00"),
        (Cron("30 2 * * *", BERLIN), "2026-03-29T01:00", "2026-03-30T00:30"),
        # 2026-10-25: 02:00 to 03:00 comes twice. A job at a fixed time runs once, an hourly one at each.
        (Cron("30 2 * * *", BERLIN), "2026-10-25T00:30", "2026-10-26T01:30"),
        (Cron("30 * * * *", BERLIN), "2026-10-25T00:30", "2026-10-25T01:30"),
    ],
)
def test_the_next_time(cron: Cron, after: str, comes: str) -> None:
    assert cron.next_after(utc(after)) == utc(comes)


def test_what_was_missed() -> None:
    hourly = Cron("@hourly")
    last, now = utc("2026-01-01T00:10"), utc("2026-01-01T03:00")
    assert hourly.missed(last, now) == [utc("2026-01-01T01:00"), utc("2026-01-01T02:00"), now]
    assert len(Cron("* * * * *").missed(last, utc("2027-01-01T00:00"), limit=5)) == 5
    assert hourly.missed(now, now) == []


@pytest.mark.parametrize(
    ("expression", "zone", "words"),
    [
        ("61 * * * *", "UTC", "minute"),
        ("* * *", "UTC", r"\* \* \*"),
        ("", "UTC", "cron ''"),
        ("0 0 31 2 *", "UTC", "cron"),
        ("@daily", "Mars/Olympus", "no time zone 'Mars/Olympus'"),
        ("@daily", "../etc/passwd", "time zone"),
    ],
)
def test_what_cannot_be_is_refused_at_once(expression: str, zone: str, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        Cron(expression, zone)


def test_a_moment_needs_a_time_zone() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Cron("@daily").next_after(datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point
