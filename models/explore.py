"""Explore a protocol model: breadth first, for the shortest counterexample, or by seeded random walks.

A model is pure: `init()` is its first state, `steps(state)` yields every `(label, successor)`, `check(state)` names
what is wrong with a state, and a model with `live = True` says in `goal(state)` what must stay reachable. States are
hashable values. A label that starts with "!" is a fault: from every reachable state some goal must be reachable
without another fault (no deadlock; not a bound on time). `off` names the guards that are left out.

    python -m models.explore                   every model: all configurations, walks, each guard left out once
    python -m models.explore c_turns           one model
    python -m models.explore c_turns prev      the shortest counterexample without that guard
    python -m models.explore --fast            the part that runs as a test
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
import time
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

MODELS = (
    "a_lease",
    "b_register",
    "c_turns",
    "d_migrate",
    "e_sessions",
    "f_raft",
    "g_steps",
    "h_time",
    "i_records",
    "j_calls",
    "k_volatile",
    "l_poison",
    "m_ends",
    "n_asleep",
    "o_replies",
    "p_waits",
)
"""The models of docs/protocols.md, by module."""
WALK_S = 10.0
LIMIT = 2_000_000
"""States; a configuration that has more is not explored to its end, which counts as failed."""

S = TypeVar("S", bound=Hashable)
T = TypeVar("T")
Config = Mapping[str, Any]
Step = tuple[str, S]


class Model(Generic[S]):
    """A protocol. Class attributes in small letters are its configuration, changed by keyword."""

    GUARDS: ClassVar[Mapping[str, Config]] = {}
    """Guard: the configuration in which leaving it out shows."""
    FAST: ClassVar[tuple[Config, ...]] = ({},)
    """Explored to the end, in the test too."""
    SMALL: ClassVar[tuple[Config, ...]] = ()
    """Explored to the end."""
    BIG: ClassVar[Config] = {}
    """Walked at random."""
    SPARE: ClassVar[frozenset[str]] = frozenset()
    """Guards that were found removable."""
    live: ClassVar[bool] = False

    def __init__(self, off: frozenset[str] = frozenset(), **config: Any) -> None:
        """Raises AttributeError for a name that is no part of the configuration, KeyError for an unknown guard."""
        for guard in off:
            _ = self.GUARDS[guard]
        self.off = off
        for name, value in config.items():
            getattr(self, name)
            setattr(self, name, value)

    def on(self, guard: str) -> bool:
        """Whether a guard is in force."""
        return guard not in self.off

    def init(self) -> S:
        """Return the first state."""
        raise NotImplementedError

    def steps(self, s: S) -> Iterator[Step[S]]:
        """Yield what can happen next."""
        raise NotImplementedError

    def check(self, s: S) -> str | None:
        """Say what is wrong with a state."""
        raise NotImplementedError

    def goal(self, s: S) -> bool:
        """Say whether everything has come to a good end."""
        raise NotImplementedError


def put(items: tuple[T, ...], i: int, new: T) -> tuple[T, ...]:
    """Replace one item."""
    return (*items[:i], new, *items[i + 1 :])


class Found(NamedTuple):
    """Result of one exploration."""

    states: int
    depth: int
    complete: bool
    error: str | None
    trace: list[str]


def bfs(model: Model[S], limit: int = LIMIT) -> Found:
    """Explore breadth first, to the end or to the first (so shortest) counterexample."""
    start = model.init()
    index: dict[S, int] = {start: 0}
    states, parent, depth = [start], [(-1, "")], [0]
    back: list[list[int]] | None = [[]] if model.live else None

    def found(at: int, error: str | None, *, complete: bool = False) -> Found:
        trace, j = list[str](), at
        while j > 0:
            j, label = parent[j]
            trace.append(label)
        return Found(len(states), depth[-1], complete, error, trace[::-1])

    i = 0
    while i < len(states):
        for label, n in model.steps(states[i]):
            j = index.get(n)
            if j is None:
                j = index[n] = len(states)
                states.append(n)
                parent.append((i, label))
                depth.append(depth[i] + 1)
                if back is not None:
                    back.append([])
                if error := model.check(n):
                    return found(j, error)
            if back is not None and label[0] != "!":
                back[j].append(i)
        i += 1
        if len(states) > limit:
            return found(0, None)
    if back is not None:
        alive = _reaching([j for j, s in enumerate(states) if model.goal(s)], back)
        stuck = next((j for j in range(len(states)) if j not in alive), None)
        if stuck is not None:
            return found(stuck, "stuck: no good end can be reached any more")
    return found(0, None, complete=True)


def _reaching(goals: list[int], back: list[list[int]]) -> set[int]:
    """States from which a goal can be reached."""
    todo, alive = list(goals), set(goals)
    while todo:
        for j in back[todo.pop()]:
            if j not in alive:
                alive.add(j)
                todo.append(j)
    return alive


def walk(model: Model[S], seed: int, seconds: float, length: int = 120) -> Found:
    """Walk at random, again and again, for so many seconds."""
    rng, count, stop, longest = random.Random(seed), 0, time.monotonic() + seconds, 0
    while time.monotonic() < stop:
        s, trace = model.init(), list[str]()
        for _ in range(length):
            options = list(model.steps(s))
            if not options:
                break
            label, s = rng.choice(options)
            trace.append(label)
            count += 1
            if error := model.check(s):
                return Found(count, len(trace), False, error, trace)
        longest = max(longest, len(trace))
    return Found(count, longest, False, None, [])


def load(name: str) -> type[Model[Any]]:
    """Return the model of a module of this package."""
    module = importlib.import_module(f"models.{name}")
    return next(v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__ and _is(v))


def _is(kind: type[Any]) -> bool:
    return bool(getattr(kind, "GUARDS", None))


def without(model: type[Model[Any]], guard: str) -> Found:
    """Explore with one guard left out, in the configuration in which that shows."""
    return bfs(model(frozenset({guard}), **model.GUARDS[guard]))


def _one(name: str, guard: str) -> bool:
    f = without(load(name), guard)
    print(f"{name} without {guard}: {f.error or 'no counterexample'} ({f.states:,} states)")
    print("\n".join(f"  {i:2} {label}" for i, label in enumerate(f.trace, 1)))
    return False


def _everything(name: str, *, fast: bool) -> bool:
    """Run one model; true when something is not as it should be."""
    model, failed, began = load(name), False, time.monotonic()
    for config in model.FAST if fast else (*model.FAST, *model.SMALL):
        at = time.monotonic()
        f = bfs(model(**config))
        failed |= not f.complete
        seconds = time.monotonic() - at
        what = f.error or ("holds" if f.complete else "NOT EXPLORED TO ITS END")
        print(
            f"{name} {dict(config)}: {f.states:,} states, depth {f.depth}, {seconds:.1f} s: {what}",
            *f.trace,
            flush=True,
        )
    if not fast:
        f = walk(model(**model.BIG), seed=1, seconds=WALK_S)
        failed |= bool(f.error)
        print(f"{name} at random {dict(model.BIG)}: {f.states:,} steps: {f.error or 'holds'}", *f.trace, flush=True)
    for guard in model.GUARDS:
        at = time.monotonic()
        f = without(model, guard)
        failed |= bool(f.error) == (guard in model.SPARE)
        seconds = time.monotonic() - at
        found = f"{f.error} ({len(f.trace)} steps)" if f.error else "removable"
        print(f"  without {guard:16} {f.states:9,} states {seconds:5.1f} s: {found}", flush=True)
    print(f"{name}: {'FAILED' if failed else 'as it should be'}, {time.monotonic() - began:.0f} s", flush=True)
    return failed


def main() -> int:
    """Run the command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m models.explore", description="Explore the protocol models.")
    parser.add_argument("model", nargs="?", choices=MODELS)
    parser.add_argument("guard", nargs="?")
    parser.add_argument("--fast", action="store_true", help="only the part that runs as a test")
    args = parser.parse_args()
    if args.guard:
        return _one(args.model, args.guard)
    names = [args.model] if args.model else MODELS
    failed = [name for name in names if _everything(name, fast=args.fast)]
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
