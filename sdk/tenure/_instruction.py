"""A call as a value: which method, with which arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, Literal, Protocol, TypeVar

R_co = TypeVar("R_co", covariant=True)

Kind = Literal["action", "query", "by_name"]


class Target(Protocol[R_co]):
    """What an instruction needs of its method: how its arguments and its reply cross a wire."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def label(self) -> str:
        """Class and name, for messages."""
        ...

    def encode_arguments(self, arguments: Mapping[str, object]) -> bytes: ...
    def decode_reply(self, data: bytes) -> R_co: ...


class Instruction(Generic[R_co]):
    """An action or a query with its arguments, not run yet: `Counter.increment(by=2)`."""

    __slots__ = ("_arguments", "_target")

    def __init__(self, target: Target[R_co], arguments: Mapping[str, object]) -> None:
        self._target = target
        self._arguments = dict(arguments)

    @property
    def name(self) -> str:
        """Name of the method."""
        return self._target.name

    @property
    def kind(self) -> Kind:
        """Whether it is an action or a query."""
        return self._target.kind

    @property
    def target(self) -> Target[R_co]:
        """The method itself."""
        return self._target

    @property
    def arguments(self) -> dict[str, object]:
        """Parameter names and values, as they were given. A copy."""
        return dict(self._arguments)

    def encode(self) -> bytes:
        """The arguments for the wire. Raises InvalidArguments, naming the parameter and what was expected."""
        return self._target.encode_arguments(self._arguments)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Instruction):
            return NotImplemented
        return (self.name, self.kind, self.arguments) == (other.name, other.kind, other.arguments)

    def __hash__(self) -> int:
        return hash((self.name, self.kind, tuple(sorted(self._arguments))))

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={value!r}" for name, value in self._arguments.items())
        return f"{self._target.label}({inner})"
