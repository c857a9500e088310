"""Extensions with a schema, and signals whose data has one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import pydantic

from tenure import _codec
from tenure.errors import DefinitionError
from tenure.signals._signal import Signal, SignalInvalid, check_type

Policy = Literal["required", "optional", "forbidden"]
"""What a kind of signal says of an extension."""


class Extension(pydantic.BaseModel):
    """A group of extension attributes: `class Tenant(Extension, prefix="tenant"): name: str` is `tenantname`.

    Fields are text, numbers, booleans, bytes or times; attribute names are the prefix and the field's name in lower
    case, without underscores, 20 characters at most. Raises DefinitionError for others.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")
    __prefix__: ClassVar[str] = ""

    def __init_subclass__(cls, *, prefix: str = "", **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.__prefix__ = prefix

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        for name in cls.attribute_names():
            if not (name.isascii() and name.isalnum() and name == name.lower() and len(name) <= 20):
                raise DefinitionError(f"{cls.__name__}: {name!r} is no name of an attribute: 1 to 20 of a-z and 0-9")

    @classmethod
    def attribute_names(cls) -> dict[str, str]:
        """Names on the wire, each with the field that it carries."""
        return {cls.__prefix__ + field.replace("_", "").lower(): field for field in cls.model_fields}

    def attributes(self) -> dict[str, object]:
        """What it adds to a signal; fields that have no value add nothing."""
        content = self.model_dump(mode="python", exclude_none=True)
        return {name: content[field] for name, field in self.attribute_names().items() if field in content}

    @classmethod
    def of(cls, attributes: Mapping[str, object]) -> Self | None:
        """Read it from a signal's attributes; None if none is there. Raises SignalInvalid."""
        found = {field: attributes[name] for name, field in cls.attribute_names().items() if name in attributes}
        if not found:
            return None
        try:
            return cls.model_validate(found)
        except pydantic.ValidationError as error:
            raise SignalInvalid(f"extension {cls.__name__}: {_codec.explain(error)}") from error


class SignalData(pydantic.BaseModel):
    """Data of one type of signal: `class OrderPaid(SignalData, type="order.paid"): order: int`.

    `extensions` says per kind whether a signal of this type must, may or must not carry it; of others nothing is said.
    """

    __signal_type__: ClassVar[str] = ""
    __dataschema__: ClassVar[str] = ""
    __policies__: ClassVar[Mapping[type[Extension], Policy]] = {}

    def __init_subclass__(
        cls,
        *,
        type: str = "",  # noqa: A002 - the CloudEvents word
        dataschema: str = "",
        extensions: Mapping[type[Extension], Policy] | None = None,
        **keywords: Any,
    ) -> None:
        super().__init_subclass__(**keywords)
        if type:
            try:
                check_type(type)
            except SignalInvalid as error:
                raise DefinitionError(f"{cls.__name__}: {error}") from error
            cls.__signal_type__ = type
        cls.__dataschema__ = dataschema or cls.__dataschema__
        cls.__policies__ = dict(extensions) if extensions is not None else cls.__policies__

    def signal(self, *extensions: Extension, source: str, subject: str = "") -> Signal:
        """A signal with this data. Raises SignalInvalid when an extension is missing or forbidden."""
        made = Signal.new(
            _type_of(type(self)),
            self.model_dump(mode="python", round_trip=True),
            source=source,
            subject=subject,
            dataschema=self.__dataschema__,
        ).extended(*extensions)
        self._check_extensions(made)
        return made

    @classmethod
    def of(cls, signal: Signal) -> Self:
        """The data of a signal of this type. Raises SignalInvalid: another type, or what does not fit."""
        wanted = _type_of(cls)
        if signal.type != wanted:
            raise SignalInvalid(f"{cls.__name__} is the data of {wanted!r}, not of {signal.type!r}")
        cls._check_extensions(signal)
        try:
            return cls.model_validate(signal.data)
        except pydantic.ValidationError as error:
            raise SignalInvalid(f"{wanted}: {_codec.explain(error)}") from error

    @classmethod
    def _check_extensions(cls, signal: Signal) -> None:
        for kind, policy in cls.__policies__.items():
            present = signal.extension(kind) is not None
            if policy == "required" and not present:
                raise SignalInvalid(f"{signal.type} must carry the extension {kind.__name__}")
            if policy == "forbidden" and present:
                raise SignalInvalid(f"{signal.type} must not carry the extension {kind.__name__}")


def _type_of(cls: type[SignalData]) -> str:
    if not cls.__signal_type__:
        raise DefinitionError(f'{cls.__name__} names no type: class {cls.__name__}(SignalData, type="...")')
    return cls.__signal_type__
