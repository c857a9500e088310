"""When things happen again: cron expressions with a time zone.

    Cron("0 9 * * MON-FRI", timezone="Europe/Berlin").next_after(now)

Expressions are those of Debian's cron, evaluated by the cronsim library. Where clocks are set forward, a job whose time
is skipped runs at once after the gap; where they are set back, a job at a fixed time runs once, and one that runs every
hour or every few minutes goes on through both passes (cron(8) of Debian).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from tenure.errors import DefinitionError

_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FORM = f"it is minute, hour, day of month, month, day of week, such as '0 9 * * MON-FRI', or {', '.join(_ALIASES)}"


@dataclass(frozen=True, slots=True)
class Cron:
    """A repeated time. `expression`: minute, hour, day of month, month, day of week; or an alias such as "@daily".

    `timezone`: a name of the IANA database. Raises DefinitionError, saying which part cannot be.
    """

    expression: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        from cronsim import CronSim, CronSimError  # noqa: PLC0415 - only agents with a schedule need it

        try:
            zone = ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError
            raise DefinitionError(f"there is no time zone {self.timezone!r}; names are as Europe/Berlin") from error
        try:
            next(CronSim(self._fields(), datetime(2024, 1, 1, tzinfo=zone)))
        except CronSimError as error:
            raise DefinitionError(f"cron {self.expression!r}: {error}; {_FORM}") from error
        except StopIteration as error:
            raise DefinitionError(f"cron {self.expression!r} never comes") from error

    def next_after(self, moment: datetime) -> datetime:
        """The first time after `moment` (with a time zone), in UTC. Raises ValueError for a moment without one."""
        from cronsim import CronSim  # noqa: PLC0415 - as above

        if moment.tzinfo is None:
            raise ValueError("a moment needs a time zone")
        after = moment.astimezone(ZoneInfo(self.timezone))
        return next(CronSim(self._fields(), after)).astimezone(UTC)

    def missed(self, last: datetime, now: datetime, *, limit: int = 1000) -> list[datetime]:
        """Times after `last` up to and including `now`, oldest first, at most `limit`, in UTC."""
        found: list[datetime] = []
        at = self.next_after(last)
        while at <= now and len(found) < limit:
            found.append(at)
            at = self.next_after(at)
        return found

    def _fields(self) -> str:
        return _ALIASES.get(self.expression, self.expression)
