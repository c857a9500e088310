"""The envelope: CloudEvents 1.0.2."""

from __future__ import annotations

import builtins
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec

from tenure.errors import TenureError
from tenure.signals._ids import new_id

if TYPE_CHECKING:
    from pydantic_core import core_schema

    from tenure.signals._extension import Extension

SPEC_VERSION = "1.0"
"""The only version of CloudEvents there is; 1.0.2 is an edition of its text."""
TYPE_LIMIT = 255
_TYPE = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_SOURCE = re.compile(r"[^\s<>\"{}|\\^`]+")
_ATTRIBUTE = re.compile(r"[a-z0-9]{1,20}")
_CORE = frozenset(
    {"id", "source", "type", "specversion", "subject", "time", "datacontenttype", "dataschema", "data", "data_base64"}
)
_NOTHING: Mapping[str, object] = MappingProxyType({})

Scalar = str | int | bool | bytes | datetime
"""What an extension attribute may be."""
E_ = TypeVar("E_", bound="Extension")


class SignalInvalid(TenureError, ValueError):
    """A signal is not what CloudEvents, its type or one of its extensions asks for."""


class Signal(msgspec.Struct, frozen=True, kw_only=True, eq=True):
    """A message between agents: a CloudEvents 1.0 envelope. A value: `replace` and `extended` return another one.

    `Signal.new(type, data, source=...)` fills in what it can; the constructor wants everything that the
    specification wants, and both check it. Raises SignalInvalid.
    """

    id: str
    """Unique within the source. Ids of `new` are UUIDs of version 7: they sort by time."""
    source: str
    """Who says so, a URI reference; of an agent `namespace/name`."""
    type: str
    """Words of letters, digits, _ and - joined by dots: "order.paid". What routes look at."""
    data: object = None
    subject: str = ""
    """What it is about, within the source; empty: nothing said."""
    time: datetime | None = None
    """When it happened; with a time zone."""
    datacontenttype: str = ""
    """Media type of `data`; empty: any value that JSON or msgpack can write."""
    dataschema: str = ""
    """URI of the schema of `data`."""
    extensions: Mapping[str, object] = _NOTHING
    """Attributes beside those above, by name. Ones that nobody here knows are kept as they are."""

    def __post_init__(self) -> None:
        if not self.id:
            raise SignalInvalid("`id` is empty")
        check_type(self.type)
        if not _SOURCE.fullmatch(self.source):
            raise SignalInvalid(f"`source` is a URI reference such as shop/orders, not {self.source!r}")
        if self.time is not None and self.time.tzinfo is None:
            raise SignalInvalid("`time` has no time zone")
        for name, value in self.extensions.items():
            if name in _CORE or not _ATTRIBUTE.fullmatch(name):
                raise SignalInvalid(f"an extension attribute is 1 to 20 of a-z and 0-9, not {name!r}")
            if not isinstance(value, Scalar):
                raise SignalInvalid(
                    f"the extension attribute `{name}` is text, a number, bytes or a time, not {value!r}"
                )

    @classmethod
    def new(  # noqa: PLR0913 - the attributes of CloudEvents
        cls,
        type: str,  # noqa: A002 - the CloudEvents word
        data: object = None,
        *,
        source: str,
        id: str = "",  # noqa: A002
        subject: str = "",
        time: datetime | None = None,
        datacontenttype: str = "",
        dataschema: str = "",
        extensions: Mapping[str, object] | None = None,
    ) -> Self:
        """A signal with a new id and the present time, unless given. Raises SignalInvalid."""
        return cls(
            id=id or new_id(),
            source=source,
            type=type,
            data=data,
            subject=subject,
            time=time or datetime.now(UTC),
            datacontenttype=datacontenttype,
            dataschema=dataschema,
            extensions=dict(extensions or {}),
        )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> core_schema.CoreSchema:
        """So that a signal can be a parameter of an action, or a field: a map of attributes on the wire."""
        from pydantic_core import core_schema  # noqa: PLC0415 - only who has such a parameter needs it

        from tenure.signals import _serial  # noqa: PLC0415 - it needs this module

        return core_schema.no_info_plain_validator_function(
            _serial.from_map,
            json_schema_input_schema=core_schema.dict_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(_serial.to_map),
        )

    def extended(self, *extensions: Extension) -> Self:
        """The signal with these extensions; one of the same kind is replaced. Raises SignalInvalid."""
        attributes = dict(self.extensions)
        for extension in extensions:
            for name in extension.attribute_names():
                attributes.pop(name, None)
            attributes.update(extension.attributes())
        return msgspec.structs.replace(self, extensions=attributes)

    def extension(self, kind: builtins.type[E_]) -> E_ | None:
        """One of its extensions; None if it has no attribute of that kind. Raises SignalInvalid if it has bad ones."""
        return kind.of(self.extensions)


def check_type(type_: str) -> None:
    """Raise SignalInvalid unless the text can be the type of a signal."""
    if len(type_) > TYPE_LIMIT or not _TYPE.fullmatch(type_):
        raise SignalInvalid(f"`type` is words of letters, digits, _ and - joined by dots, not {type_[:80]!r}")
