"""Dead letters, timers and their contents, as a user reads them. `at`, `born` and `now` in seconds since 1970."""

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import msgspec

from tenure_cli.plain import NotPlain, to_plain
from tenure_cli.render import data
from tenure_cli.render.tables import NONE, Table, age

MESSAGE_SHOWN = 60
"""Characters of an error's message in a table; wide has all."""
Letter = Mapping[str, Any]


def letters(found: Sequence[tuple[str, Letter]], now: float, *, wide: bool) -> Table:
    """AGENT ID AGE VERDICT WHAT FROM ATTEMPTS ERROR; wide adds SIDE TO and the whole message."""
    columns: tuple[str, ...] = ("AGENT", "ID", "AGE", "VERDICT", "WHAT", "FROM", "ATTEMPTS", "ERROR")
    if wide:
        columns = (*columns[:-1], "SIDE", "TO", "ERROR")
    return Table(columns, tuple(_letter(agent, letter, now, wide=wide) for agent, letter in found))


def _letter(agent: str, letter: Letter, now: float, *, wide: bool) -> tuple[str, ...]:
    error = error_of(letter)
    if not wide and len(error) > MESSAGE_SHOWN:
        error = f"{error[: MESSAGE_SHOWN - 1]}…"
    more = (str(letter["side"]), str(letter["to"]) or NONE) if wide else ()
    return (
        *(agent, str(letter["id"]), age(float(letter["at"]), now), str(letter["verdict"])),
        *(str(letter["what"]) or NONE, str(letter["from"]) or NONE, str(letter["attempts"])),
        *more,
        error.replace("\n", " ") or NONE,
    )


def error_of(letter: Letter) -> str:
    """`ActionFailed: ValueError in increment: ...`."""
    return ": ".join(str(letter[name]) for name in ("code", "message") if letter.get(name))


_VERDICTS = {
    "not applied": "not applied: it had no effect, and can be sent again",
    "unknown": "unknown: it may have taken effect, and sent again it may do so twice",
    "pending": "pending: its receiver has not said yet whether it took effect",
}


def letter(agent: str, found: Letter, now: float) -> list[str]:
    """Everything about one letter, in lines."""
    at, born = float(found["at"]), float(found.get("born") or 0)
    fields = [
        ("Agent", agent),
        ("Letter", str(found["id"])),
        ("Put aside", f"{moment(at)} ({age(at, now)} ago), by its {found['side']}"),
        ("Born", f"{moment(born)} ({age(born, now)} ago)" if born else NONE),
        ("Verdict", _VERDICTS.get(str(found["verdict"]), str(found["verdict"]))),
        ("What", str(found["what"]) or NONE),
        ("From", str(found["from"]) or NONE),
        ("To", str(found["to"]) or NONE),
        ("Attempts", str(found["attempts"])),
        ("Error", error_of(found) or NONE),
    ]
    width = max(len(name) for name, _ in fields) + 3
    lines = [f"{name + ':':<{width}}{value}" for name, value in fields]
    body = data.to_yaml(readable(found.get("body", b"")))
    lines += ["Body:", *(f"  {line}" for line in body.splitlines())]
    if found.get("details"):
        lines += ["Details:", *(f"  {line}" for line in str(found["details"]).rstrip().splitlines())]
    return lines


def letter_values(agent: str, found: Letter) -> dict[str, Any]:
    """Plain values; the body also as it is, so that nothing is lost."""
    values = {"agent": agent, **found}
    if "body" in found:
        values["body"] = readable(found["body"])
        values["bodyBase64"] = base64.b64encode(found["body"]).decode()
    return values


def readable(body: bytes, depth: int = 0) -> Any:
    """What a signal carries: msgpack within msgpack is shown as values, other bytes as text or base64."""
    try:
        value = msgspec.msgpack.decode(body)
    except (msgspec.DecodeError, ValueError):
        value = None
    if isinstance(value, dict | list) and depth < 4:
        return _opened(cast("object", value), depth)
    try:
        return body.decode()
    except UnicodeDecodeError:
        return {"$bytes": base64.b64encode(body).decode()}


def _opened(value: object, depth: int) -> Any:
    if isinstance(value, bytes):
        return readable(value, depth + 1) if value else ""
    if isinstance(value, list):
        return [_opened(item, depth) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {str(key): _opened(item, depth) for key, item in cast("dict[object, object]", value).items()}
    try:
        return to_plain(value)
    except NotPlain:
        return str(value)


def timers(found: Sequence[Mapping[str, Any]], now: float, cluster_now: float) -> Table:
    """NAME DUE CLOCK EVERY WHAT, the earliest first."""
    ordered = sorted(found, key=lambda each: left(each, now, cluster_now))
    return Table(
        ("NAME", "DUE", "CLOCK", "EVERY", "WHAT"),
        tuple(
            (
                *(str(each["name"]), due(each, now, cluster_now), str(each["clock"])),
                *(str(each.get("every") or NONE), str(each.get("what") or NONE)),
            )
            for each in ordered
        ),
    )


def left(timer: Mapping[str, Any], now: float, cluster_now: float) -> float:
    """Seconds until it fires; a timer of cluster time stands still while there is no leader."""
    return float(timer["at"]) - (now if timer["clock"] == "wall" else cluster_now)


def due(timer: Mapping[str, Any], now: float, cluster_now: float) -> str:
    """`in 3m5s`, and the time where it is of the wall clock."""
    seconds = left(timer, now, cluster_now)
    text = f"in {age(1.0, 1.0 + seconds)}" if seconds >= 1 else "now"
    return f"{text} ({moment(float(timer['at']))})" if timer["clock"] == "wall" else text


def moment(wall: float) -> str:
    """In UTC."""
    try:
        return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{wall:g} s"
