"""The protocols hold in small configurations, and each guard is caught when it is left out (docs/protocols.md, 7).

`make models` explores the bigger configurations too.
"""

from typing import Any

import pytest

from models import explore

MODELS = {name: explore.load(name) for name in explore.MODELS}
BASE = [
    pytest.param(model, config, id=f"{name}-{n}")
    for name, model in MODELS.items()
    for n, config in enumerate(model.FAST)
]
GUARDS = [pytest.param(model, guard, id=f"{name}-{guard}") for name, model in MODELS.items() for guard in model.GUARDS]


@pytest.mark.parametrize(("model", "config"), BASE)
def test_the_protocol_holds(model: type[explore.Model[Any]], config: explore.Config) -> None:
    found = explore.bfs(model(**config))
    assert (found.complete, found.error) == (True, None), found.trace


@pytest.mark.parametrize(("model", "guard"), GUARDS)
def test_a_guard_that_is_left_out_is_caught(model: type[explore.Model[Any]], guard: str) -> None:
    found = explore.without(model, guard)
    if guard in model.SPARE:
        assert (found.complete, found.error) == (True, None), "it is needed after all: say so in docs/protocols.md"
    else:
        assert found.error, f"{found.states} states"


@pytest.mark.parametrize(("model", "guard"), GUARDS)
def test_with_the_guard_the_same_configuration_holds(model: type[explore.Model[Any]], guard: str) -> None:
    found = explore.bfs(model(**model.GUARDS[guard]), limit=800)  # to its end by `make models`
    assert found.error is None, found.trace
