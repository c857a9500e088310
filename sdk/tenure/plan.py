"""Several actions as one value: chains, graphs of steps, branches, and pieces side by side.

    PLACE = plan.Plan([
        plan.Step("price", Order.price(article=plan.given("article"))),
        plan.Step("stock", Order.stock(article=plan.given("article"))),
        plan.Step("total", plan.converge(operator.mul, "price", "stock")),
        plan.Step("book", Order.book(amount=plan.output("total"))),
    ])

    async def place(self, ctx: tenure.Context, article: str) -> int:
        done = await PLACE.run(self, ctx, article=article)
        return done["book"]

A plan is checked when it is made and never changes. It runs in a turn, on the draft: if a step fails, so does `run`,
and with it the turn, unless the action catches it. Steps that are ready together run at the same time only if every one
of them is a query or `pure`; otherwise they run one after the other, in the order in which they are written.
"""

from __future__ import annotations

import graphlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast

from tenure._context import Context
from tenure._instruction import Instruction
from tenure._methods import near
from tenure.errors import DefinitionError

if TYPE_CHECKING:
    from tenure._agent import Agent

__all__ = [
    "Branch",
    "Chain",
    "Cycle",
    "Given",
    "MissingStep",
    "Outcome",
    "Output",
    "Parallel",
    "Plan",
    "PlanInvalid",
    "Pure",
    "Step",
    "Work",
    "chain",
    "converge",
    "given",
    "output",
    "previous",
    "pure",
]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class PlanInvalid(DefinitionError):
    """A plan that cannot be run. `path`: the steps that it is about, in order."""

    def __init__(self, message: str, path: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.path = tuple(path)


class Cycle(PlanInvalid):
    """Steps that wait for each other. The first of `path` is also its last."""


class MissingStep(PlanInvalid):
    """A step needs one that there is not. `path`: both names."""


@dataclass(frozen=True, slots=True)
class Output:
    """What an earlier step returned, or a part of it: keys, attributes and indices. Made by `output`."""

    step: str
    """Empty: the step before, in a chain."""
    path: tuple[str | int, ...] = ()


@dataclass(frozen=True, slots=True)
class Given:
    """What `run` is given under this name. Made by `given`."""

    name: str


def output(step: str, *path: str | int) -> Any:
    """Stands for what a step returned, as a parameter of a later one; the later one comes after it."""
    return Output(step, path)


def given(name: str) -> Any:
    """Stands for a value that `run` is given by name, as a parameter of any step."""
    return Given(name)


previous: Any = Output("")
"""Stands for what the step before returned, in a chain."""


@dataclass(frozen=True, slots=True)
class Pure:
    """A function that touches no agent, on values and outputs of steps. Made by `pure` and `converge`."""

    function: Callable[..., Any]
    arguments: tuple[object, ...] = ()
    keywords: Mapping[str, object] = field(default_factory=dict[str, object])

    def __post_init__(self) -> None:
        object.__setattr__(self, "keywords", MappingProxyType(dict(self.keywords)))


def pure(function: Callable[..., Any], /, *arguments: object, **keywords: object) -> Pure:
    """A step without an agent: a function, or a coroutine function. You declare that it touches none."""
    return Pure(function, arguments, keywords)


def converge(function: Callable[..., Any], /, *steps: str) -> Pure:
    """A step that makes one value of what these steps returned, in this order."""
    return Pure(function, tuple(Output(step) for step in steps))


@dataclass(frozen=True, slots=True)
class Chain(Generic[R_co]):
    """Works one after the other; `previous` stands for what the one before returned. Made by `chain` and `then`."""

    works: tuple[Work, ...]
    timeout: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "works", tuple(self.works))
        if not self.works:
            raise PlanInvalid("a chain has at least one part")
        _check_timeout(self.timeout, "a chain")

    def then(self, following: Instruction[R], /) -> Chain[R]:
        """A longer chain."""
        return Chain((*self.works, following), self.timeout)

    async def run(self, agent: Agent[Any], context: Context | None = None, /, **given: object) -> R_co:
        """Run it in the turn of `agent`; what the last part returned. Raises NotInTurn, and what the parts raise."""
        from tenure import _plan  # noqa: PLC0415 - plans can be made without an event loop

        return cast(R_co, await _plan.run(self, agent, context, given))

    def __iter__(self) -> Iterator[Work]:
        return iter(self.works)

    def __len__(self) -> int:
        return len(self.works)


def chain(*works: Work, timeout: float | None = None) -> Chain[Any]:
    """Works one after the other. `timeout` in seconds, of all of them."""
    return Chain(works, timeout)


@dataclass(frozen=True, slots=True)
class Branch:
    """One work or another, by what a query or a pure function returns. Nothing, where there is no `otherwise`."""

    condition: Work
    then: Work
    otherwise: Work | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        _check_timeout(self.timeout, "a branch")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a piece of a parallel work with `collect` ended."""

    value: Any = None
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        """Whether it ended without an error."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class Parallel:
    """Named works that do not need each other. Returns what each returned, by name.

    The first error ends the rest; with `collect`, each ends by itself and an `Outcome` stands for it: what a failed one
    had changed is undone, what the others changed stays.
    """

    works: Mapping[str, Work]
    collect: bool = False
    timeout: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "works", MappingProxyType(dict(self.works)))
        _check_timeout(self.timeout, "a parallel work")


@dataclass(frozen=True, slots=True)
class Step:
    """A work with a name, in a plan. It comes after the steps in `after`, and those whose `output` it takes.

    `timeout` in seconds. Within a turn, no step has more time than the turn has left.
    """

    name: str
    work: Work
    after: Sequence[str] = ()
    timeout: float | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise PlanInvalid("a step needs a name")
        if isinstance(self.after, str):
            raise PlanInvalid(f"step {self.name!r}: after is a list of names, such as [{self.after!r}]", (self.name,))
        _check_work(self.work, self.name)
        object.__setattr__(self, "after", tuple(self.after))
        _check_timeout(self.timeout, f"step {self.name!r}")

    @property
    def needs(self) -> tuple[str, ...]:
        """The steps that come before it, without doubles."""
        outputs = [item.step for item in references(self.work) if isinstance(item, Output)]
        return tuple(dict.fromkeys((*self.after, *outputs)))


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order of what they need. Raises Cycle, MissingStep and PlanInvalid when it is made."""

    steps: Sequence[Step]
    timeout: float | None = None
    phases: tuple[tuple[str, ...], ...] = field(init=False, compare=False)
    """Names of the steps that are ready together, in the order in which they run."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        _check_timeout(self.timeout, "a plan")
        names = [step.name for step in self.steps]
        if doubled := [name for name in names if names.count(name) > 1]:
            raise PlanInvalid(f"two steps are called {doubled[0]!r}", doubled[:1])
        for step in self.steps:
            for need in step.needs:
                if not need:
                    raise PlanInvalid(f"step {step.name!r}: `previous` has a meaning in a chain only", (step.name,))
                if need not in names:
                    raise MissingStep(
                        f"step {step.name!r} needs {need!r}, which there is not; {near(need, names)}", (step.name, need)
                    )
        object.__setattr__(self, "phases", _phases(self.steps))

    async def run(self, agent: Agent[Any], context: Context | None = None, /, **given: object) -> dict[str, Any]:
        """Run it in the turn of `agent`; what each step returned. Raises NotInTurn, and what the steps raise."""
        from tenure import _plan  # noqa: PLC0415 - plans can be made without an event loop

        return cast(dict[str, Any], await _plan.run(self, agent, context, given))


Work: TypeAlias = "Instruction[Any] | Pure | Chain[Any] | Branch | Parallel | Plan"
"""What can be a part of a plan."""


def _check_work(work: object, name: str) -> None:
    if not isinstance(work, (Instruction, Pure, Chain, Branch, Parallel, Plan)):
        raise PlanInvalid(f"step {name!r}: its work is an instruction or a part of a plan, not {work!r}", (name,))


def references(value: object) -> Iterator[Output | Given]:
    """The stand-ins in a work or a value: those that whoever runs it has to replace."""
    match value:
        case Output() | Given():
            yield value
        case Chain(works=works):
            for number, work in enumerate(works):
                yield from (item for item in references(work) if not (number and item == previous))
        case Plan():  # its outputs are its own
            yield from (item for step in value.steps for item in references(step.work) if isinstance(item, Given))
        case _:
            for item in _inside(value):
                yield from references(item)


def _inside(value: object) -> Iterable[object]:
    inside: Iterable[object] = ()
    match value:
        case Instruction():
            inside = value.arguments.values()
        case Pure():
            inside = [*value.arguments, *value.keywords.values()]
        case Branch():
            inside = [value.condition, value.then, value.otherwise]
        case Parallel():
            inside = value.works.values()
        case dict():
            inside = cast(dict[object, object], value).values()
        case list() | tuple():
            inside = cast(Iterable[object], value)
        case _:
            pass
    return inside


def _phases(steps: Sequence[Step]) -> tuple[tuple[str, ...], ...]:
    order = {step.name: number for number, step in enumerate(steps)}
    sorter = graphlib.TopologicalSorter({step.name: step.needs for step in steps})
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        path: list[str] = error.args[1]
        raise Cycle(f"steps wait for each other: {' -> '.join(path)}", path) from None
    found: list[tuple[str, ...]] = []
    while sorter.is_active():
        ready = sorter.get_ready()
        found.append(tuple(sorted(ready, key=order.__getitem__)))
        sorter.done(*ready)
    return tuple(found)


def _check_timeout(seconds: float | None, what: str) -> None:
    if seconds is not None and seconds <= 0:
        raise PlanInvalid(f"{what}: timeout is a number of seconds above 0, not {seconds!r}")
