"""A call as a value: which method, with which arguments."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias, TypeVar, cast, overload

from tenure.errors import UnknownMethod, UsageError

if TYPE_CHECKING:
    from tenure._methods import Method
    from tenure.plan import Chain

R = TypeVar("R")
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

    def of(self, alias: str) -> Instruction[R_co]:
        """The same, of the skill that is attached under this alias. Raises UsageError for what is of no skill."""
        from tenure.skills import SkillMethod  # noqa: PLC0415 - most agents have no skills

        if not isinstance(self._target, SkillMethod):
            raise UsageError(f"{self!r} is no action of a skill: it has no alias")
        return Instruction(cast("Target[R_co]", self._target.of(alias)), self._arguments)

    def encode(self) -> bytes:
        """The arguments for the wire. Raises InvalidArguments, naming the parameter and what was expected."""
        return self._target.encode_arguments(self._arguments)

    def then(self, following: Instruction[R], /) -> Chain[R]:
        """One after the other, as one value: see `tenure.plan`."""
        from tenure.plan import chain  # noqa: PLC0415 - not everybody makes plans

        return chain(self, following)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Instruction):
            return NotImplemented
        return (self.name, self.kind, self.arguments) == (other.name, other.kind, other.arguments)

    def __hash__(self) -> int:
        return hash((self.name, self.kind, tuple(sorted(self._arguments))))

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={value!r}" for name, value in self._arguments.items())
        return f"{self._target.label}({inner})"


Shape: TypeAlias = "Method[..., R] | tuple[Method[..., R], Mapping[str, object]] | Instruction[R]"
"""How an instruction may be written."""
Allowed: TypeAlias = "Collection[Method[..., Any]] | None"


@overload
def instruction(what: Shape[R], /, *, allowed: Allowed = None) -> Instruction[R]: ...
@overload
def instruction(what: list[Shape[Any]], /, *, allowed: Allowed = None) -> Chain[Any]: ...
def instruction(what: Any, /, *, allowed: Allowed = None) -> Any:
    """An instruction from whatever says one: an action, an action with parameters, an instruction; a chain from a list.

    `allowed`: only these actions and queries. Raises UnknownMethod for another one, with what is allowed, UsageError
    for anything else, InvalidArguments for parameters that are missing or unknown, PlanInvalid for an empty list.
    """
    if isinstance(what, list):
        from tenure.plan import chain  # noqa: PLC0415 - not everybody makes plans

        return chain(*(instruction(one, allowed=allowed) for one in cast("list[Shape[Any]]", what)))
    made = _one(what)
    if allowed is not None and made.target not in allowed:
        names = ", ".join(sorted(method.label for method in allowed)) or "nothing"
        raise UnknownMethod(f"{made.target.label} is not allowed here; allowed: {names}")
    return made


def _one(what: Shape[Any]) -> Instruction[Any]:
    from tenure._methods import Method  # noqa: PLC0415 - methods make instructions

    if isinstance(what, Instruction):
        return what
    if isinstance(what, Method):
        return what()
    match what:
        case (Method() as method, Mapping() as parameters):
            return method(**parameters)
        case _:
            raise UsageError(f"an instruction is an action, (action, parameters) or Action(...), not {what!r}")


def checked(value: object, where: str) -> Instruction[Any]:
    """The instruction. Raises UsageError, with the way out, for anything else."""
    if isinstance(value, Instruction):
        return value  # pyright: ignore[reportUnknownVariableType] - of whatever reply
    name = getattr(value, "label", "")  # of a method that was not called
    way = f"call it: {name}(...)" if name else "names as text are for call_by_name"
    raise UsageError(f"{where} takes an instruction, such as Counter.increment(by=1), not {value!r}; {way}")
