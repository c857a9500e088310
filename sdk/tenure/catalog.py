"""What there is: actions, queries, agents and sensors found in modules, to list, filter and search.

known = catalog.find([shop])
known.list(category="billing", limit=20)
known.search("send invoice")
known.get("k3f0qz7m").target
"""

from __future__ import annotations

import base64
import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal, TypeGuard, cast

from tenure._agent import Agent
from tenure._definition import collect, describe
from tenure._methods import Method, methods_of, near
from tenure.errors import UsageError

__all__ = ["Catalog", "Entry", "IdConflict", "find"]

Kind = Literal["action", "query", "agent", "skill", "sensor"]


class IdConflict(UsageError):
    """Two different entries with the same id, or with ids of the same slug."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that can be used, as people and models are told of it."""

    id: str
    """Where it is defined: `shop.agents.Order.add`."""
    kind: Kind
    name: str
    description: str = ""
    category: str = ""
    tags: tuple[str, ...] = ()
    risk: str = "low"
    visibility: str = "public"
    read_only: bool = False
    """It changes no state."""
    target: Any = field(default=None, compare=False, repr=False)
    """The class or the method itself; None where the entry comes from elsewhere."""

    @property
    def slug(self) -> str:
        """Eight characters that stand for the id, the same in every run."""
        digest = hashlib.blake2b(self.id.encode(), digest_size=5).digest()
        return base64.b32encode(digest).decode().lower()


class Catalog:
    """Entries by id. Adding an equal one again changes nothing; a different one under the same id is refused."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries: dict[str, Entry] = {}
        self._slugs: dict[str, str] = {}
        self.merge(entries)

    def merge(self, entries: Iterable[Entry]) -> None:
        """Add entries, e.g. of another catalogue; all or, if one is refused, none. Raises IdConflict."""
        added, slugs = dict(self._entries), dict(self._slugs)
        for entry in entries:
            if (known := added.setdefault(entry.id, entry)) != entry:
                raise IdConflict(
                    f"{entry.id} is in the catalogue already, as another {known.kind}: {known.description!r}"
                )
            if (other := slugs.setdefault(entry.slug, entry.id)) != entry.id:
                raise IdConflict(f"{entry.id} and {other} have the same slug {entry.slug}: rename one of them")
        self._entries, self._slugs = added, slugs

    def get(self, key: str) -> Entry:
        """By id or slug, internal ones too. Raises UsageError, naming near ones."""
        entry = self._entries.get(self._slugs.get(key, key))
        if entry is None:
            raise UsageError(f"there is no {key!r} in the catalogue; {near(key, self._entries)}")
        return entry

    def list(
        self,
        *,
        kind: Kind | None = None,
        name: str | None = None,
        category: str | None = None,
        tag: str | None = None,
        internal: bool = False,
        limit: int | None = None,
        offset: int = 0,
    ) -> tuple[Entry, ...]:
        """Entries that fit all that is asked for, sorted by id. `name`: a part of it, whatever the case.

        Internal ones only with `internal`. Raises UsageError for a negative limit or offset.
        """
        if offset < 0 or (limit is not None and limit < 0):
            raise UsageError("limit and offset are 0 or more")
        fits = _fits(kind, name, category, tag, internal=internal)
        found = sorted(filter(fits, self._entries.values()), key=lambda entry: entry.id)
        return tuple(found[offset : None if limit is None else offset + limit])

    def search(
        self, words: str, *, kind: Kind | None = None, internal: bool = False, limit: int = 10
    ) -> tuple[Entry, ...]:
        """The entries that have most of these words, best first: in the name, tags, category, or description."""
        asked = list(dict.fromkeys(_words(words)))
        scored = [(_score(entry, asked), entry) for entry in self.list(kind=kind, internal=internal)]
        best = sorted((one for one in scored if one[0] > 0), key=lambda one: (-one[0], one[1].id))
        return tuple(entry for _, entry in best[:limit])

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries or key in self._slugs


def find(modules: Iterable[ModuleType]) -> Catalog:
    """The agent classes of these modules, their actions and queries, actions on module level, and sensors.

    Names with an underscore in front are left out. Raises DefinitionError for a class that cannot be what it says.
    """
    modules = tuple(modules)
    found: dict[str, Entry] = {}
    for cls in collect(modules).values():
        about = describe(cls)
        where = f"{cls.__module__}.{cls.__qualname__}"
        found[where] = Entry(where, "agent", cls.__name__, about.description, tags=about.capabilities, target=cls)
        for name, method in methods_of(cls).items():
            if not name.startswith("_"):
                found |= _method(method, _owner(cls, name))
    for module in modules:
        for name, value in vars(module).items():
            if isinstance(value, Method) and not name.startswith("_"):
                method = cast(Method[..., Any], value)
                found |= _method(method, method.function.__module__)
    return Catalog([*found.values(), *_skills(modules), *_sensors(modules)])


def _skills(modules: Iterable[ModuleType]) -> Iterator[Entry]:
    from tenure import skills  # noqa: PLC0415 - a catalogue of none needs none of it

    def is_skill(value: object) -> TypeGuard[type[skills.Skill[Any]]]:
        """Not one without a key, which is a base for others."""
        return isinstance(value, type) and issubclass(value, skills.Skill) and bool(value.key)

    for module in modules:
        for name, kind in vars(module).items():
            if name.startswith("_") or not is_skill(kind):
                continue
            where = f"{kind.__module__}.{kind.__qualname__}"
            text = "" if kind.__doc__ == skills.Skill.__doc__ else inspect.cleandoc(kind.__doc__ or "")
            yield Entry(where, "skill", kind.key, text, tags=kind.__tenure_capabilities__, target=kind)
            for short, method in methods_of(kind).items():
                yield from _method(method, where, short).values()


def _sensors(modules: Iterable[ModuleType]) -> Iterator[Entry]:
    from tenure import sensors  # noqa: PLC0415 - it brings asyncio

    def is_sensor(value: object) -> TypeGuard[type[sensors.Sensor[Any]]]:
        """Not one without a config, which is a base for others."""
        return isinstance(value, type) and issubclass(value, sensors.Sensor) and value.__config__ is not None

    for module in modules:
        for name, value in vars(module).items():
            if is_sensor(value) and not name.startswith("_"):
                about, where = sensors.describe(value), f"{value.__module__}.{value.__qualname__}"
                yield Entry(where, "sensor", about.name, about.description, about.category, about.tags, target=value)


def _owner(cls: type[Agent[Any]], name: str) -> str:
    """The class that defines a method, or the module, of one that was attached."""
    method: Method[..., Any] = next(vars(base)[name] for base in cls.__mro__ if name in vars(base))
    return f"{method.function.__module__}.{method.function.__qualname__}".rpartition(".")[0]


def _method(method: Method[..., Any], owner: str, short: str = "") -> dict[str, Entry]:
    about = method.about
    entry = Entry(
        f"{owner}.{short or method.name}",
        "query" if method.kind == "query" else "action",
        method.name,
        inspect.cleandoc(method.description),
        read_only=method.kind == "query",
        target=method,
        **{name: getattr(about, name) for name in ("category", "tags", "risk", "visibility")} if about else {},
    )
    return {entry.id: entry}


def _fits(
    kind: Kind | None, name: str | None, category: str | None, tag: str | None, *, internal: bool
) -> Callable[[Entry], bool]:
    def fits(entry: Entry) -> bool:
        return (
            (internal or entry.visibility == "public")
            and kind in {None, entry.kind}
            and (name is None or name.lower() in entry.name.lower())
            and category in {None, entry.category}
            and (tag is None or tag in entry.tags)
        )

    return fits


_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_]+")


def _words(text: str) -> list[str]:
    """`send_invoice`, `SendInvoice` and `Send invoice` are the same two words."""
    return [word.lower() for word in _WORD.findall(text)]


def _score(entry: Entry, asked: Iterable[str]) -> float:
    places = ((8.0, entry.name), (4.0, " ".join(entry.tags)), (3.0, entry.category), (1.0, entry.description))
    texts = [(weight, _words(text)) for weight, text in places]
    return sum(max(weight * _match(word, words) for weight, words in texts) for word in asked)


def _match(asked: str, words: list[str]) -> float:
    """1 for the word itself, a half for one that begins like it, as plurals do."""
    if asked in words:
        return 1.0
    return 0.5 if any(len(min(asked, word, key=len)) > 2 and _alike(asked, word) for word in words) else 0.0


def _alike(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)
