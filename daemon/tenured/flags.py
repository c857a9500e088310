"""Values of flags, as servers and hosts read them once, at the start.

Every flag can be given as `TENURE_<FLAG>` (lists comma-separated); a flag wins over the environment.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

LOG_FORMATS = ("text", "json")


class ConfigError(Exception):
    """A flag that is missing or makes no sense; the message names it."""


class Reader:
    """Values by flag, else by environment, else by default. All raise ConfigError; flags are written with `_`."""

    def __init__(self, given: argparse.Namespace, environment: Mapping[str, str]) -> None:
        """`given`: None for what was not, a list for what may be repeated."""
        self._given: dict[str, str | list[str]] = {
            name: value for name, value in vars(given).items() if value is not None
        }
        self._environment = environment

    def text(self, flag: str, default: str | None = None) -> str:
        """Never empty."""
        value = self.optional(flag, default or "")
        if not value:
            raise ConfigError(f"{_flag(flag)} (or {_variable(flag)}) is missing")
        return value

    def optional(self, flag: str, default: str = "") -> str:
        """May be empty."""
        return str(self._given.get(flag, self._environment.get(_variable(flag), default)))

    def choice(self, flag: str, choices: tuple[str, ...], default: str = "") -> str:
        """One of them; by default the first."""
        value = self.text(flag, default or choices[0])
        if value not in choices:
            raise ConfigError(f"{_flag(flag)}: {value!r} is none of {', '.join(choices)}")
        return value

    def share(self, flag: str, default: float) -> float:
        """Between 0 and 1."""
        value = self.text(flag, str(default))
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number <= 1:
            raise ConfigError(f"{_flag(flag)}: {value!r} is no share between 0 and 1")
        return number

    def seconds(self, flag: str, default: float) -> float:
        """Any number."""
        value = self.text(flag, str(default))
        try:
            return float(value)
        except ValueError as error:
            raise ConfigError(f"{_flag(flag)}: {value!r} is no number of seconds") from error

    def count(self, flag: str, default: int) -> int:
        """A number from 0."""
        value = self.text(flag, str(default))
        if not value.isdecimal():
            raise ConfigError(f"{_flag(flag)}: {value!r} is no number")
        return int(value)

    def port(self, flag: str, default: int) -> int:
        """0 to 65535."""
        value = self.text(flag, str(default))
        if not value.isdecimal() or int(value) > 65535:
            raise ConfigError(f"{_flag(flag)}: {value!r} is not a port")
        return int(value)

    def listed(self, flag: str) -> list[str]:
        """May be empty."""
        value = self._given.get(flag, self._environment.get(_variable(flag), ""))
        return value if isinstance(value, list) else [item for item in value.split(",") if item]

    def pairs(self, flag: str, form: str = "NAME=VALUE") -> dict[str, str]:
        """By name; may be empty."""
        found: dict[str, str] = {}
        for item in self.listed(flag):
            name, equals, rest = item.partition("=")
            if not name or not equals:
                raise ConfigError(f"{_flag(flag)}: {item!r} is not {form}")
            found[name] = rest
        return found

    def addresses(self, flag: str) -> dict[str, str]:
        """host:port by name; may be empty."""
        form = "NAME=HOST:PORT"
        found = self.pairs(flag, form)
        for name, address in found.items():
            _, colon, port = address.rpartition(":")
            if not colon or not port.isdecimal():
                raise ConfigError(f"{_flag(flag)}: {f'{name}={address}'!r} is not {form}")
        return found


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _variable(name: str) -> str:
    return f"TENURE_{name.upper()}"
