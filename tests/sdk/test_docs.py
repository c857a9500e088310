"""Every Python example on the pages of the SDK runs, in the order of its page."""

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

PAGES = sorted(Path(__file__).resolve().parents[2].joinpath("docs").glob("sdk/*.md"))
EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
async def test_the_examples_of_a_page_run(page: Path) -> None:
    """`await` stands at the top level there, as in a notebook. Names of earlier examples are known in later ones."""
    text = page.read_text()  # noqa: ASYNC240 - one small file
    names: dict[str, Any] = {"__name__": f"docs_{page.stem}"}
    for found in EXAMPLE.finditer(text):
        line = text.count("\n", 0, found.start(1))
        code = compile("\n" * line + found[1], str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)
        if inspect.iscoroutine(result):
            await result


def test_every_page_is_listed() -> None:
    """On the page that lists them."""
    listed = (PAGES[0].parent / "README.md").read_text()
    assert [page.name for page in PAGES if page.name != "README.md" and f"({page.name})" not in listed] == []
    assert len(PAGES) > 1
