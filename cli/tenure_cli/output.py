"""Options that several commands share, and the printing of results."""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from tenure_cli.errors import UsageError
from tenure_cli.ports import Rows
from tenure_cli.render import data
from tenure_cli.render.tables import Table


class Format(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


FormatOption = Annotated[Format, typer.Option("--output", "-o", help="How to print the result.")]
NamespaceOption = Annotated[str, typer.Option("--namespace", "-n", help="Only this namespace.")]
FilesOption = Annotated[
    list[str], typer.Option("--filename", "-f", help="A manifest, a directory of manifests, or - for standard input.")
]


def emit(chosen: Format, table: Callable[[bool], Table], values: Callable[[], Any], nothing: str) -> None:
    """Print a table, wide or not, or the values; `nothing` is said on standard error when the table is empty."""
    if chosen is Format.JSON:
        print(data.to_json(values()))
    elif chosen is Format.YAML:
        print(data.to_yaml(values()))
    else:
        made = table(chosen is Format.WIDE)
        if made.rows:
            print("\n".join(made.lines()))
        else:
            typer.echo(nothing, err=True)


def full_name(text: str, rows: Rows, namespace: str = "") -> str:
    """`namespace/name` of what a user typed; a bare name is enough when it is the only one. Raises UsageError."""
    if "/" in text:
        return text
    if namespace:
        return f"{namespace}/{text}"
    matches = sorted(row.spec.id for row in rows.agents.values() if row.spec.id.partition("/")[2] == text)
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(f"Several agents are called {text!r}: {', '.join(matches)}.", "Write NAMESPACE/NAME.")
    raise UsageError(f"There is no agent called {text!r}.", "`tenure get agents` lists them; write NAMESPACE/NAME.")
