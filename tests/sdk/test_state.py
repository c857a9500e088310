"""States as bytes: an exact round trip, and what is checked when."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Literal
from uuid import UUID

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tenure
from tenure import _state, errors


class Colour(Enum):
    RED = 1
    BLUE = "blue"


class Part(pydantic.BaseModel):
    name: str
    weight: float = 0.0


class Everything(tenure.State):
    flag: bool = False
    number: int = 0
    real: float = 0.0
    text: str = ""
    raw: bytes = b""
    money: Decimal = Decimal(0)
    key: UUID = UUID(int=0)
    when: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    local: datetime = datetime(2026, 1, 1)  # noqa: DTZ001 - naive on purpose
    day: date = date(2026, 1, 1)
    clock: time = time(1, 2, 3)
    span: timedelta = timedelta(seconds=1)
    colour: Colour = Colour.RED
    word: Literal["a", "b"] = "a"
    maybe: int | None = None
    pair: tuple[int, str] = (0, "")
    names: list[str] = pydantic.Field(default_factory=list)
    seen: set[int] = pydantic.Field(default_factory=set)
    table: dict[int, list[str]] = pydantic.Field(default_factory=dict)
    part: Part = Part(name="x")
    parts: dict[str, Part] = pydantic.Field(default_factory=dict)
    path: Path = Path("/")
    secret: pydantic.SecretStr = pydantic.SecretStr("")


FIELDS = {
    "flag": st.booleans(),
    "number": st.integers(-(2**63), 2**64 - 1),
    "real": st.floats(allow_nan=False),
    "text": st.text(),
    "raw": st.binary(),
    "money": st.decimals(allow_nan=False, allow_infinity=False),
    "key": st.uuids(),
    "when": st.datetimes(timezones=st.just(UTC)),
    "local": st.datetimes(),
    "day": st.dates(),
    "clock": st.times(),
    "span": st.timedeltas(timedelta(days=-1000), timedelta(days=1000)),
    "colour": st.sampled_from(Colour),
    "word": st.sampled_from(["a", "b"]),
    "maybe": st.none() | st.integers(-5, 5),
    "pair": st.tuples(st.integers(-5, 5), st.text()),
    "names": st.lists(st.text(), max_size=3),
    "seen": st.sets(st.integers(-5, 5)),
    "table": st.dictionaries(st.integers(-5, 5), st.lists(st.text(), max_size=2), max_size=3),
    "parts": st.dictionaries(st.text(), st.builds(Part, name=st.text(), weight=st.floats(-5, 5)), max_size=2),
    "secret": st.text().map(pydantic.SecretStr),
}


def test_equal_states_have_equal_bytes() -> None:
    """The order in which a set was filled shows in its iteration, and not in what is committed."""
    one, two = {0, -4, 4, 5}, {5, 4, -4, 0}
    assert _state.encode(Everything(seen=one)) == _state.encode(Everything(seen=two))
    data = _state.encode(Everything(seen=one))
    assert _state.encode(_state.decode(Everything, data)) == data


@given(st.fixed_dictionaries({}, optional=FIELDS))
def test_the_round_trip_is_exact(values: dict[str, object]) -> None:
    """A state read back from its bytes equals the one that was written, and writes the same bytes."""
    state = Everything(**values)
    data = _state.encode(state)
    again = _state.decode(Everything, data)
    assert again == state
    assert _state.encode(again) == data


def test_too_large_a_number_is_refused() -> None:
    """msgpack has 64 bits: the commit says so instead of losing some."""
    with pytest.raises(errors.StateInvalid, match="Everything"):
        _state.encode(Everything(number=2**64))


def test_assignments_are_checked_at_once() -> None:
    """An unknown field and a wrong type are refused where they are assigned."""
    state = Everything()
    with pytest.raises(pydantic.ValidationError, match="number"):
        state.number = "many"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="nothing"):
        state.nothing = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (lambda s: s.names.append(3), "names.0"),
        (lambda s: setattr(s.part, "weight", "heavy"), "part.weight"),
        (lambda s: s.table.update({1: "text"}), "table.1"),
    ],
)
def test_changes_in_place_are_checked_at_the_commit(spoil: Callable[[Everything], None], field: str) -> None:
    """What assignment cannot see is found when the state is written, and named."""
    state = Everything()
    spoil(state)
    with pytest.raises(errors.StateInvalid, match=f"`{field}`"):
        _state.encode(state)


class Bounded(tenure.State):
    numbers: list[pydantic.PositiveInt] = pydantic.Field(default_factory=list)


def test_constraints_inside_containers_hold() -> None:
    """Constraints are checked at the commit, not only types."""
    state = Bounded()
    state.numbers.append(-1)
    with pytest.raises(errors.StateInvalid, match=r"`numbers\.0` should be greater than 0"):
        _state.encode(state)


def test_aliases_are_for_the_outside() -> None:
    """Stored states use field names; initial ones may use aliases too."""

    class Aliased(tenure.State):
        kind: str = pydantic.Field(default="", alias="type")

    state = _state.initial(Aliased, {"type": "a"})
    assert _state.decode(Aliased, _state.encode(state)) == state
