"""The public surface: what `import tenure` gives, what it costs, and how each misuse reads."""

import re
import resource
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

import tenure
from tenure import errors

DOCS = Path(__file__).parents[2] / "docs"


def test_all_is_complete() -> None:
    """`__all__` lists every public name, once; ruff keeps it in order."""
    names = [name for name in dir(tenure) if not name.startswith("_") and name != "TYPE_CHECKING"]
    public = [name for name in names if not isinstance(getattr(tenure, name), ModuleType)]
    assert sorted(public) == sorted(tenure.__all__)
    assert sorted(errors.__all__) == errors.__all__


@pytest.mark.parametrize("name", tenure.__all__)
def test_everything_public_is_documented(name: str) -> None:
    """Every class and function says what it is."""
    value = getattr(tenure, name)
    if isinstance(value, type) or callable(value):
        assert value.__doc__


def test_the_import_is_light() -> None:
    """`import tenure` loads no gRPC, no kopf, nothing of the daemon; nor does the worker."""
    for module in ("tenure", "tenure.worker.supervisor"):
        code = f"import sys, {module}; print(*sorted(name.split('.')[0] for name in sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert not {"grpc", "kopf", "google", "tenured", "tenure_api", "cryptography"} & set(done.stdout.split())


def test_the_import_is_quick() -> None:
    """`import tenure` costs at most 150 ms where pydantic with one model alone costs 110 (both over an empty program).

    The ratio is asserted, of CPU time, best of eight, in turns: the machine is shared and its speed varies.
    """

    def seconds(code: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    model = "import pydantic\nclass Model(pydantic.BaseModel): x: int = 0"
    rounds = [(seconds("pass"), seconds("import tenure"), seconds(model)) for _ in range(8)]
    empty, ours, pydantic_alone = (min(column) for column in zip(*rounds, strict=True))
    assert (ours - empty) <= (pydantic_alone - empty) * 150 / 110


def test_the_catalogue_in_the_docs_is_that_of_the_code() -> None:
    """docs/errors.md has one row for every code, with the outcome that the code assumes."""
    rows = [line.split("|") for line in (DOCS / "errors.md").read_text().splitlines() if line.startswith("| `")]
    documented = {row[1].strip().strip("`"): row[4].strip() for row in rows}
    catalogue = errors.catalogue()
    assert set(documented) == set(catalogue)
    for code, repeated in documented.items():
        assert (repeated == "yes") == issubclass(catalogue[code], errors.Transient), code


def test_the_tree_in_the_docstring_is_that_of_the_code() -> None:
    """Every exception class of the module stands in the tree that its docstring draws."""
    drawn = {line.split("──")[1].split()[0] for line in (errors.__doc__ or "").splitlines() if "──" in line}
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert drawn == classes & set(errors.__all__) - {"TenureError"}


def test_an_unknown_code_from_the_wire_is_kept() -> None:
    """A code of a later version becomes a CallError that still says its code."""
    error = errors.from_code("FromTheFuture", "what is this", outcome="unknown")
    assert type(error) is tenure.CallError
    assert (error.code, error.outcome) == ("FromTheFuture", "unknown")
    assert "unknown" in str(error)


def test_the_guide_runs() -> None:
    """The Python of docs/sdk.md that needs no cluster does what it says."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "sdk.md").read_text(), re.DOTALL)
    agent, local, pure, remote = blocks
    assert "tenure.connect" in remote
    program = (
        f"{agent}\nimport asyncio\nasync def main():\n{textwrap.indent(local, '    ')}\nasyncio.run(main())\n{pure}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
