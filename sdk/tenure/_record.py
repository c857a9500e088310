"""What is kept of an agent: its state, and beside it slices of what else must be committed with it.

In one map of msgpack: the fields of the state by name, and slices under names that begin with `@`, which no field can
have. `@version` is the version of the class that wrote it (1, where it is missing).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic

from tenure import _codec, _state
from tenure._state import S
from tenure.errors import DefinitionError, StateInvalid, StateUnreadable, VersionSkew

if TYPE_CHECKING:
    from tenure._agent import Agent
    from tenure.skills import Skill
    from tenure.skills._roster import Roster

Content = dict[str, Any]
VERSION = "@version"
SKILLS = "@skills/"
"""How the names of entries of skills begin."""
SCHEDULES = "@schedules"
"""Schedules that a class or its skills declare, as they stand."""


@dataclass(slots=True)
class Record(Generic[S]):
    """An agent's state and its slices, by name."""

    state: S
    slices: dict[str, Any] = field(default_factory=dict[str, Any])
    skills: Roster | None = None
    """None: the class takes none, and there are none."""


@dataclass(frozen=True, slots=True)
class Migration:
    """What `@tenure.migration` makes: from the content of one version to that of the next."""

    from_version: int
    function: Callable[[Content], Content]


def migration(*, from_version: int) -> Callable[[Callable[[Content], Content]], Migration]:
    """Bring a stored state from one version of its class to the next: on a static method of the stored fields.

        class Cart(tenure.Agent[CartState], version=2):
            @tenure.migration(from_version=1)
            @staticmethod
            def add_currency(content):
                return {**content, "currency": "EUR"}

    Raises DefinitionError for a version below 1.
    """
    if from_version < 1:
        raise DefinitionError(f"@tenure.migration(from_version={from_version}): versions begin with 1")
    return lambda function: Migration(from_version, function)


def migrations_of(cls: type[Any]) -> dict[int, Migration]:
    """Migrations of a class and its bases, by the version that they begin with. Raises DefinitionError."""
    found: dict[int, Migration] = {}
    for base in reversed(cls.__mro__):
        own = [value for value in vars(base).values() if isinstance(value, Migration)]
        if len({one.from_version for one in own}) < len(own):
            raise DefinitionError(f"{base.__name__} has two migrations from one version")
        found.update({one.from_version: one for one in own})
    return found


def encode(cls: type[Agent[S]], record: Record[S], *, checked: bool) -> bytes:
    """The bytes to commit. `checked`: as for `_state.encode`. Raises StateInvalid."""
    slices = record.slices
    version = cls.__tenure_version__
    hook = cls.__tenure_checkpoint__
    if record.skills is not None:
        slices = {**slices, **record.skills.entries()}
    if not slices and version == 1 and hook is None:
        return _state.encode(record.state, checked=checked)
    content = _codec.unpack_map(_state.encode(record.state, checked=checked))
    if hook is not None:
        content = dict(hook(record.state))
    extra = {VERSION: version} if version != 1 else {}
    return _codec.pack({**content, **slices, **extra})


def own_slices(slices: Mapping[str, Any]) -> dict[str, Any]:
    """Of all that a record has beside the state: what is in `Record.slices`."""
    return {
        name: value
        for name, value in slices.items()
        if name not in (VERSION, SCHEDULES) and not name.startswith(SKILLS)
    }


def first_roster(cls: type[Agent[Any]]) -> Roster | None:
    """The skills of a new agent; None: its class takes none."""
    if cls.__tenure_skills__ is None:
        return None
    from tenure.skills import _roster  # noqa: PLC0415 - most agents have no skills

    return _roster.first(cls.__tenure_skills__)


def decode(cls: type[Agent[S]], kind: type[S], data: bytes, skills: Roster | None = None) -> Record[S]:
    """A record from committed bytes, brought to the present version of the class.

    `skills`: those that it is known to have, which are not read again.

    Raises StateUnreadable (no msgpack), StateInvalid (does not fit, or there is no migration), VersionSkew (written by
    a later version of the class: it is never cut down).
    """
    if cls.__tenure_version__ == 1 and cls.__tenure_restore__ is None and b"@" not in data:
        return Record(_state.decode(kind, data), skills=skills or first_roster(cls))
    try:
        content = _codec.unpack_map(data)
    except ValueError as error:
        raise StateUnreadable(f"the stored state of {cls.__name__} cannot be read: {error}") from error
    slices = {name: content.pop(name) for name in list(content) if name.startswith("@")}
    content = migrated(cls, content, slices.pop(VERSION, 1))
    skills = _take_skills(cls, slices, skills)
    if cls.__tenure_restore__ is not None:
        return Record(cls.__tenure_restore__(content), slices, skills)
    return Record(_state.of_content(kind, content), slices, skills)


def _take_skills(cls: type[Agent[Any]], slices: dict[str, Any], known: Roster | None) -> Roster | None:
    """Those of a record, out of its slices. Raises StateInvalid, VersionSkew."""
    own = [name for name in slices if name.startswith(SKILLS) or name == SCHEDULES]
    if known is None and (own or cls.__tenure_skills__ is not None):
        from tenure.skills import _roster  # noqa: PLC0415 - as above

        return _roster.thaw(cls.__tenure_skills__ or _roster.Declared(cls), slices)
    for name in own:
        del slices[name]
    return known


def migrated(cls: type[Agent[Any] | Skill[Any]], content: Content, version: object) -> Content:
    """The fields of a state of some version as those of the present one. Raises what `decode` raises."""
    wanted = cls.__tenure_version__
    if not isinstance(version, int):
        raise StateUnreadable(f"the stored state of {cls.__name__} has the version {version!r}")
    if version > wanted:
        raise VersionSkew(
            f"the stored state was written by version {version} of {cls.__name__}, and this is version {wanted}",
            next_step="Deploy the later version again: an older one would lose what it does not know.",
        )
    known: Mapping[int, Migration] = migrations_of(cls) if version < wanted else {}
    for step in range(version, wanted):
        if step not in known:
            raise StateInvalid(
                f"{cls.__name__} has no @tenure.migration(from_version={step}) and is of version {wanted}"
            )
        try:
            content = known[step].function(content)
        except Exception as error:
            raise StateInvalid(f"the migration of {cls.__name__} from version {step} failed: {error}") from error
    return content
