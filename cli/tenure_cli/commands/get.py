"""`tenure get` and `tenure describe`."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Annotated, Any

import typer

from tenure_cli.errors import CliError, UsageError
from tenure_cli.output import Format, FormatOption, NamespaceOption, emit, full_name
from tenure_cli.ports import Cluster, Rows, snapshot
from tenure_cli.render import choose, data, describe, tables
from tenure_cli.render.choose import By, Chosen
from tenure_cli.render.tables import Table
from tenure_cli.runtime import Runtime, runtime

KINDS = {
    "agents": ("agents", "agent", "ag"),
    "hosts": ("hosts", "host", "ho"),
    "servers": ("servers", "server", "sv"),
    "pools": ("pools", "pool", "po"),
}


def kind_of(word: str) -> str:
    """The kind that a word means. Raises UsageError."""
    for kind, words in KINDS.items():
        if word in words:
            return kind
    close = get_close_matches(word, [alias for words in KINDS.values() for alias in words], n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(KINDS)}."
    raise UsageError(f"There is no kind {word!r}.", hint)


def get(  # noqa: PLR0913, PLR0917 - one for each flag
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="agents (ag), hosts (ho), servers (sv) or pools (po)")],
    name: Annotated[str, typer.Argument(help="Only this one.")] = "",
    output: FormatOption = Format.TABLE,
    namespace: NamespaceOption = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, and print what changes.")] = False,
    selector: Annotated[list[str] | None, typer.Option("--selector", "-l", help="Agents with this KEY=VALUE.")] = None,
    capability: Annotated[str, typer.Option("--capability", help="Agents that offer it.")] = "",
    by: Annotated[By | None, typer.Option("--by", help="Count agents by this, instead of listing them.")] = None,
) -> None:
    """List agents, hosts, servers or pools.

    Examples:

        tenure get agents

        tenure get ag counter-1 -o yaml

        tenure get agents --by node

        tenure get agents --capability ocr -l team=books

        tenure get hosts --watch

        tenure get servers
    """
    shell = runtime(context)

    async def work() -> None:
        view = _View(kind_of(kind), name, namespace, Chosen(_labels(selector or []), capability), by)
        if view.kind != "agents" and (selector or capability or by):
            raise UsageError("--selector, --capability and --by are for agents.", "Use `tenure get agents`.")
        await _get(shell, view, output, watch=watch)

    shell.run(work())


def _labels(words: Sequence[str]) -> dict[str, str]:
    pairs = [pair.partition("=") for word in words for pair in word.split(",")]
    wrong = next((key + equals for key, equals, _ in pairs if not key or not equals), None)
    if wrong is not None:
        raise UsageError(f"{wrong!r} is no label.", "Write -l KEY=VALUE, several with a comma between.")
    return {key: value for key, _, value in pairs}


async def _get(shell: Runtime, view: "_View", output: Format, *, watch: bool) -> None:
    kind, namespace = view.kind, view.namespace
    async with shell.cluster(namespace) as cluster:
        if kind == "servers":
            await _servers(cluster, output)
        elif watch:
            await _watch(shell, cluster, view, output)
        else:
            rows = view.only(await snapshot(cluster))
            emit(
                output,
                lambda wide: view.table(rows, shell.clock(), wide=wide),
                lambda: view.values(rows),
                f"There are no {kind}{f' in namespace {namespace}' if namespace else ''}.",
            )


class _View:
    """One kind of rows, perhaps only one of them, perhaps of one namespace."""

    def __init__(self, kind: str, name: str, namespace: str, chosen: Chosen, by: By | None) -> None:
        self.kind, self.name, self.namespace, self.chosen, self.by = kind, name, namespace, chosen, by

    def only(self, rows: Rows) -> Rows:
        """The rows without those that were not asked for. Raises CliError when a name was given and is not there."""
        chosen = Rows(rows.agents, rows.hosts, rows.pools, rows.revision, rows.cluster_time)
        if self.kind == "agents":
            wanted = full_name(self.name, rows, self.namespace) if self.name else ""
            chosen.agents = {
                uid: row
                for uid, row in rows.agents.items()
                if (not wanted or row.spec.id == wanted)
                and (not self.namespace or row.spec.id.startswith(f"{self.namespace}/"))
                and self.chosen.takes(row, rows)
            }
            if wanted and not chosen.agents:
                raise _missing("agent", wanted, [row.spec.id for row in rows.agents.values()])
        elif self.name and self.kind == "hosts":
            chosen.hosts = {key: row for key, row in rows.hosts.items() if row.name == self.name}
            if not chosen.hosts:
                raise _missing("host", self.name, [row.name for row in rows.hosts.values()])
        elif self.name:
            chosen.pools = {key: row for key, row in rows.pools.items() if key == self.name}
            if not chosen.pools:
                raise _missing("pool", self.name, list(rows.pools))
        return chosen

    def table(self, rows: Rows, now: float, *, wide: bool) -> Table:
        """The table of this kind."""
        if self.by is not None:
            return choose.counted(rows, self.by)
        makers: dict[str, Callable[[], Table]] = {
            "agents": lambda: tables.agents(rows, now, namespace=self.namespace, wide=wide),
            "hosts": lambda: tables.hosts(rows, now, wide=wide),
            "pools": lambda: tables.pools(rows),
        }
        return makers[self.kind]()

    def values(self, rows: Rows) -> Any:
        """Plain values: one, when a name was given, otherwise a list."""
        if self.by is not None:
            return data.listing("Count", choose.counts(rows, self.by), rows.revision)
        if self.kind == "agents":
            items = [data.agent(row) for row in sorted(rows.agents.values(), key=lambda row: row.spec.id)]
        elif self.kind == "hosts":
            items = [data.row(row) for row in sorted(rows.hosts.values(), key=lambda row: row.name)]
        else:
            items = [data.row(rows.pools[name]) for name in sorted(rows.pools)]
        if self.name and len(items) == 1:
            return items[0]
        return data.listing(self.kind.capitalize().removesuffix("s"), items, rows.revision)


async def _servers(cluster: Cluster, output: Format) -> None:
    status = await cluster.status()
    emit(output, lambda _: tables.servers(status), lambda: data.row(status), "The cluster names no server.")


async def _watch(shell: Runtime, cluster: Cluster, view: _View, output: Format) -> None:
    """As kubectl does: the whole table, then each row that changed. JSON: one object a line."""
    shown: dict[str, tuple[str, ...]] = {}
    async for rows in cluster.watch():
        chosen = view.only(rows)
        table = view.table(chosen, shell.clock(), wide=output is Format.WIDE)
        if output in (Format.JSON, Format.YAML):
            typer.echo(data.to_json(view.values(chosen)).replace("\n", " "))
            continue
        for cells, line in zip((table.columns, *table.rows), table.lines(), strict=True):
            # The age changes by itself.
            content = tuple(cell for name, cell in zip(table.columns, cells, strict=True) if name != "AGE")
            if shown.get(cells[0]) != content:
                shown[cells[0]] = content
                typer.echo(line)


def _missing(kind: str, name: str, names: list[str]) -> CliError:
    close = get_close_matches(name, names, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"`tenure get {kind}s` lists what there is."
    return CliError(f"There is no {kind} {name!r}.", hint)


def describe_(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="agent (ag)")],
    name: Annotated[str, typer.Argument(help="NAMESPACE/NAME")],
    output: FormatOption = Format.TABLE,
    namespace: NamespaceOption = "",
) -> None:
    """Show everything about one agent: where it is and why, since when, who held it before, its methods.

    Example:

        tenure describe agent shop/counter-1
    """
    shell = runtime(context)
    shell.run(_describe(shell, kind, name, output, namespace))


async def _describe(shell: Runtime, word: str, name: str, output: Format, namespace: str) -> None:
    if kind_of(word) != "agents":
        raise UsageError(f"`tenure describe` shows agents, not {word}.", f"Use `tenure get {word} -o yaml`.")
    async with shell.cluster(namespace or name.partition("/")[0] if "/" in name else namespace) as cluster:
        rows = await snapshot(cluster)
        row = rows.agent(full_name(name, rows, namespace))
        if row is None:
            raise _missing("agent", name, [other.spec.id for other in rows.agents.values()])
        if output in (Format.JSON, Format.YAML):
            emit(output, lambda _: Table((), ()), lambda: data.agent(row), "")
        else:
            print("\n".join(describe.agent(row, rows, shell.clock())))
