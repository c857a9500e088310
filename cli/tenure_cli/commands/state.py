"""`tenure state get|put|export|import`: states of agents, past their actions."""

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from tenure.errors import CallError
from tenure_cli import statefiles
from tenure_cli.arguments import parse_value
from tenure_cli.commands.importing import Summary, run_import
from tenure_cli.errors import CliError, UsageError
from tenure_cli.output import (
    AgentArgument,
    Format,
    FormatOption,
    NamespaceOption,
    complete_agents,
    print_values,
    the_agent,
)
from tenure_cli.plain import NotPlain, to_plain
from tenure_cli.ports import Cluster, Rows, snapshot
from tenure_cli.render import data
from tenure_cli.runtime import Runtime, explain, runtime
from tenure_proto.v1 import registry_pb2

TIMEOUT_S = 15.0
AT_ONCE = 16
STDIO = "-"
_AT = re.compile(r"(\d+)\.(\d+)\Z")

app = typer.Typer(
    help="States of agents: read, write, save to a file, bring back.", no_args_is_help=True, rich_markup_mode=None
)
FileOption = Annotated[str, typer.Option("--filename", "-f", help="A file; - for standard input or output.")]


@app.command("get")
def get(context: typer.Context, agent: AgentArgument, output: FormatOption = Format.TABLE) -> None:
    """Print the state of an agent, as JSON. Its class, version and place in the record go to standard error.

    What JSON has no word for is written as {"$bytes": ...}, {"$time": ...}, {"$float": ...} or {"$map": ...}.

    Examples:

        tenure state get shop/counter-1

        tenure state get shop/counter-1 -o yaml          (with class, version and place)
    """
    shell = runtime(context)
    shell.run(_get(shell, agent, output))


async def _get(shell: Runtime, agent: str, output: Format) -> None:
    async with shell.cluster(agent.partition("/")[0] if "/" in agent else "") as cluster:
        name = (await the_agent(cluster, agent))[0].spec.id
        found = await _state_of(cluster, name)
    state = _plain(name, found["state"])
    if output in (Format.JSON, Format.YAML):
        print_values({"id": name, **found, "at": list(found["at"]), "state": state}, output)
    elif output is Format.NAME:
        print(name)
    else:
        epoch, seq = found["at"]
        shell.say(f"{name}: {found['class']} of version {found['version']}, at {epoch}.{seq}")
        print(data.to_json(state))


async def _state_of(cluster: Cluster, name: str) -> dict[str, Any]:
    return cast("dict[str, Any]", await cluster.control(name, "state.get", {}, TIMEOUT_S))


def _plain(name: str, state: object) -> Any:
    try:
        return to_plain(state)
    except NotPlain as error:
        raise CliError(f"The state of {name} cannot be shown: {error}.", "Read it by a query of the agent.") from error


@app.command("put")
def put(
    context: typer.Context,
    agent: AgentArgument,
    file: FileOption = "",
    fields: Annotated[list[str] | None, typer.Option("--set", help="FIELD=VALUE; the other fields stay.")] = None,
    at: Annotated[str, typer.Option("--at", help="Only if the state is still at EPOCH.SEQ, as `get` said.")] = "",
) -> None:
    """Write the state of an agent: a whole one from a file, or some fields with --set. No action runs.

    The state has to fit the class, else nothing is changed. With --set, and with --at, nothing is changed either if
    the agent has changed its state meanwhile.

    Examples:

        tenure state put shop/counter-1 --set count=40

        tenure state get shop/counter-1 > state.json

        tenure state put shop/counter-1 -f state.json --at 3.17
    """
    shell = runtime(context)
    shell.run(_put(shell, agent, file, fields or [], at))


async def _put(shell: Runtime, agent: str, file: str, fields: Sequence[str], at: str) -> None:
    if bool(file) == bool(fields):
        raise UsageError("Give a file with -f, or fields with --set.", "For example: --set count=40")
    expected = _place(at)
    changes = dict(_field(text) for text in fields)
    state = _whole_state(file) if file else {}
    async with shell.cluster(agent.partition("/")[0] if "/" in agent else "") as cluster:
        name = (await the_agent(cluster, agent))[0].spec.id
        if changes:
            found = await _state_of(cluster, name)
            expected = expected or list(found["at"])
            state = {**found["state"], **changes}
        answer = await cluster.control(name, "state.put", {"state": state, "at": expected}, TIMEOUT_S)
    epoch, seq = cast("dict[str, Any]", answer)["at"]
    print(f"{name}: written, at {epoch}.{seq}")


def _place(text: str) -> list[int] | None:
    match = _AT.match(text)
    if text and match is None:
        raise UsageError(f"{text!r} is no place in a record.", "Write EPOCH.SEQ, for example --at 3.17.")
    return [int(part) for part in match.groups()] if match else None


def _field(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"{text!r} sets no field.", "Write FIELD=VALUE, for example --set count=40.")
    try:
        return name, statefiles.state_of({"value": parse_value(value)})["value"]
    except ValueError as error:
        raise UsageError(f"{text}: {error}.") from error


def _whole_state(file: str) -> dict[str, Any]:
    try:
        return statefiles.state_of(json.loads(_read(file)))
    except json.JSONDecodeError as error:
        raise UsageError(f"{file}:{error.lineno}: this is no JSON: {error.msg}.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file}: {error}.") from error


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == STDIO else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}.") from error


# --- many ------------------------------------------------------------------------------------------------------------


@app.command("export")
def export(
    context: typer.Context,
    agents: Annotated[
        list[str] | None, typer.Argument(help="NAMESPACE/NAME of agents.", autocompletion=complete_agents)
    ] = None,
    file: FileOption = STDIO,
    every: Annotated[bool, typer.Option("--all", help="All agents, with -n those of one namespace.")] = False,
    namespace: NamespaceOption = "",
) -> None:
    """Save states to a file: one agent a line, as JSON, with class, version, id, state, and what it was created with.

    Each state is the agent's last committed one, read one after the other: they are not all of the same moment. The
    file takes its place when it is complete; an agent that could not be read is named, and the command ends with
    status 1.

    Examples:

        tenure state export --all -f states.jsonl

        tenure state export shop/counter-1 shop/counter-2 -f two.jsonl
    """
    shell = runtime(context)
    shell.run(_export(shell, agents or [], file, namespace, every=every))


async def _export(shell: Runtime, agents: Sequence[str], file: str, namespace: str, *, every: bool) -> None:
    if bool(agents) == every:
        raise UsageError("Name agents, or say --all.", "For example: tenure state export --all -f states.jsonl")
    async with shell.cluster(namespace) as cluster:
        rows = await snapshot(cluster)
        chosen = await _chosen(cluster, rows, agents, namespace)
        answers = await _read_all(shell, cluster, chosen)
    lines = [line for line, error in answers if error is None]
    _write(file, "".join(f"{line}\n" for line in lines))
    failed = [(row.spec.id, error) for row, (_, error) in zip(chosen, answers, strict=True) if error is not None]
    for name, error in failed:
        shell.say(f"{name} was not exported: {error}")
    where = "" if file == STDIO else f" to {file}"
    shell.say(f"{len(lines)} of {len(chosen)} agents exported{where}")
    if failed:
        raise typer.Exit(1)


async def _chosen(cluster: Cluster, rows: Rows, agents: Sequence[str], namespace: str) -> list[registry_pb2.AgentRow]:
    if agents:
        return [(await the_agent(cluster, agent, namespace))[0] for agent in dict.fromkeys(agents)]
    mine = [row for row in rows.agents.values() if not namespace or row.spec.id.startswith(f"{namespace}/")]
    return sorted((row for row in mine if not row.deleting), key=lambda row: row.spec.id)


async def _read_all(
    shell: Runtime, cluster: Cluster, chosen: Sequence[registry_pb2.AgentRow]
) -> list[tuple[str, str | None]]:
    """The line of each agent, or why there is none; progress on a terminal."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def read(row: registry_pb2.AgentRow) -> tuple[str, str | None]:
        async with gate:
            try:
                return statefiles.write(row, await _state_of(cluster, row.spec.id)), None
            except CallError as error:
                return "", explain(error)[0]
            except (NotPlain, ValueError) as error:
                return "", f"{error}"
            finally:
                advance()

    with shell.progress("Exporting", len(chosen)) as advance:
        return list(await asyncio.gather(*map(read, chosen)))


def _write(file: str, text: str) -> None:
    """Whole or not at all. Raises CliError."""
    if file == STDIO:
        sys.stdout.write(text)
        return
    part = Path(f"{file}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, file)  # noqa: PTH105 - Path.replace says the same
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise CliError(f"{file} cannot be written: {error}.") from error


@app.command("import")
def import_(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="A file of `tenure state export`; - for standard input.")],
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for agents that are created.")] = 60.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file against the cluster; change nothing.")
    ] = False,
) -> None:
    """Bring saved states back: agents that are missing are created, then each gets its state.

    The whole file is checked first, against the classes of the cluster too; with one line that is wrong, nothing is
    changed. An agent that has the state already is left alone, so the command can be repeated.

    Examples:

        tenure state import states.jsonl --dry-run

        tenure state import states.jsonl
    """
    shell = runtime(context)

    async def work() -> None:
        lines = statefiles.read(file, _read(file))
        async with shell.cluster(lines[0].id.partition("/")[0] if lines else "") as cluster:
            summary = await run_import(shell, cluster, file, lines, wait, dry_run=dry_run)
        _conclude(shell, summary, file, dry_run=dry_run)

    shell.run(work())


def _conclude(shell: Runtime, summary: Summary, file: str, *, dry_run: bool) -> None:
    for name, why in summary.failed:
        shell.say(f"{name} was not imported: {why}")
    verbs = ("to create", "to compare") if dry_run else ("created", "changed")
    print(
        f"{summary.total} agents: {summary.created} {verbs[0]}, {summary.changed} {verbs[1]}, "
        f"{summary.unchanged} unchanged, {len(summary.failed)} failed"
    )
    if summary.failed:
        raise CliError("Not all states were imported.", f"`tenure state import {file}` once more goes on where it is.")
