"""Options that several commands share, and the printing of results."""

import asyncio
from collections.abc import Callable
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Any

import typer

from tenure.errors import TenureError
from tenure_cli.errors import CliError, UsageError
from tenure_cli.ports import Cluster, Rows, snapshot
from tenure_cli.render import data
from tenure_cli.render.tables import Table
from tenure_cli.runtime import Runtime
from tenure_proto.v1 import registry_pb2

COMPLETION_S = 2.0
"""The shell waits for it."""


class Format(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


FormatOption = Annotated[Format, typer.Option("--output", "-o", help="How to print the result.")]
NamespaceOption = Annotated[str, typer.Option("--namespace", "-n", help="Only this namespace.")]
FilesOption = Annotated[
    list[str], typer.Option("--filename", "-f", help="A manifest, a directory of manifests, or - for standard input.")
]


def emit(
    chosen: Format, table: Callable[[bool], Table], values: Callable[[], Any], nothing: str, names: int = 1
) -> None:
    """Print a table, wide or not, or the values; `nothing` is said on standard error when the table is empty.

    `-o name` prints the first `names` columns, which name a row.
    """
    if chosen is Format.JSON:
        print(data.to_json(values()))
    elif chosen is Format.YAML:
        print(data.to_yaml(values()))
    else:
        made = table(chosen is Format.WIDE)
        if made.rows and chosen is Format.NAME:
            print("\n".join(" ".join(row[:names]) for row in made.rows))
        elif made.rows:
            print("\n".join(made.lines()))
        else:
            typer.echo(nothing, err=True)


def print_values(values: Any, output: Format) -> None:
    """As JSON or YAML."""
    print(data.to_yaml(values) if output is Format.YAML else data.to_json(values))


async def the_agent(cluster: Cluster, name: str, namespace: str = "") -> tuple[registry_pb2.AgentRow, Rows]:
    """The agent that a user named, and the registry. Raises CliError with the near name."""
    rows = await snapshot(cluster)
    wanted = full_name(name, rows, namespace)
    row = rows.agent(wanted)
    if row is None:
        close = get_close_matches(wanted, [other.spec.id for other in rows.agents.values()], n=1)
        hint = f"Did you mean {close[0]!r}?" if close else "`tenure get agents` lists what there is."
        raise CliError(f"There is no agent {wanted!r}.", hint)
    return row, rows


def complete_agents(context: typer.Context, incomplete: str) -> list[str]:
    """Names of agents that begin so: for the shell's completion, which says nothing of what goes wrong."""

    async def ask() -> list[str]:
        async with asyncio.timeout(COMPLETION_S):
            shell = context.find_object(Runtime)
            if shell is None:
                return []
            async with shell.cluster("") as cluster:
                return sorted(row.spec.id for row in (await snapshot(cluster)).agents.values())

    try:
        return [name for name in asyncio.run(ask()) if name.startswith(incomplete)]
    except (CliError, TenureError, TimeoutError, OSError):
        return []


AgentArgument = Annotated[str, typer.Argument(help="NAMESPACE/NAME", autocompletion=complete_agents)]


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
