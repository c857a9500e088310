"""docs/protocols.md and the models name the same guards."""

import re
from pathlib import Path

from models import explore

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "protocols.md").read_text()
RULES = PAGE.split("## 6. Guards")[0] + PAGE.split("## 8. ")[1]
GUARDS = {guard for name in explore.MODELS for guard in explore.load(name).GUARDS}


def test_every_guard_of_a_rule_is_in_a_model() -> None:
    named = {name for group in re.findall(r"(?<!\w)\[([a-z][a-z0-9_, ]*)[\]:]", RULES) for name in group.split(", ")}
    assert len(named) > 100
    assert not named - GUARDS


def test_every_guard_of_a_model_is_on_the_page() -> None:
    words = set(re.findall(r"[a-z][a-z0-9_]*", PAGE))
    assert not GUARDS - words


def test_every_guard_that_is_needed_says_what_happens_without_it() -> None:
    table = PAGE.split("## 6. Guards")[1].split("Found **removable**")[0]
    for name in explore.MODELS:
        model = explore.load(name)
        rows = "".join(line for line in table.splitlines() if line.startswith(f"| {name[0].upper()} "))
        assert not {guard for guard in set(model.GUARDS) - model.SPARE if not re.search(rf"\b{guard}\b", rows)}


def test_every_model_is_small() -> None:
    folder = Path(explore.__file__).parent
    assert not [path.name for path in folder.glob("*.py") if len(path.read_text().splitlines()) > 400]
    assert {path.stem for path in folder.glob("?_*.py")} == set(explore.MODELS)
