"""`tenure failovers` and `tenure failover confirm`."""

import asyncio
from typing import Annotated

import typer

from tenure_cli.errors import CliError
from tenure_cli.output import Format, FormatOption, emit
from tenure_cli.ports import Cluster, snapshot
from tenure_cli.render import data
from tenure_cli.render import failovers as render
from tenure_cli.runtime import Runtime, runtime
from tenure_proto.v1 import registry_pb2

WATCH_PAUSE_S = 0.5
NOTHING = "No host was ever lost: there are no failovers."

app = typer.Typer(help="Failover of lost hosts: `tenure failovers` lists them.", no_args_is_help=True)


def failovers(
    context: typer.Context,
    output: FormatOption = Format.TABLE,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, and print what changes.")] = False,
) -> None:
    """List hosts that were lost: cause, agents, how many are Ready again, and how long it took.

    TOOK runs from the last sign of life of the host until every agent was Ready elsewhere, marked Unavailable, or gone.
    The last 200 are kept.

    Examples:

        tenure failovers

        tenure failovers -o wide

        tenure failovers --watch
    """
    shell = runtime(context)
    shell.run(_failovers(shell, output, watch=watch))


async def _failovers(shell: Runtime, output: Format, *, watch: bool) -> None:
    async with shell.cluster("") as cluster:
        if watch:
            await _watch(shell, cluster, output)
            return
        answer = await cluster.failovers()
        emit(
            output,
            lambda wide: render.failovers(answer.failovers, shell.clock(), wide=wide),
            lambda: data.listing("Failover", [data.row(record) for record in answer.failovers], answer.revision),
            NOTHING,
        )


async def _watch(shell: Runtime, cluster: Cluster, output: Format) -> None:
    """As kubectl does: the whole table, then each row that changed. JSON: one object a line."""
    shown: dict[int, registry_pb2.FailoverRecord] = {}
    header = True
    async for _ in cluster.watch():
        answer = await cluster.failovers()
        changed = [record for record in answer.failovers if shown.get(record.id) != record]
        shown = {record.id: record for record in answer.failovers}
        if output in (Format.JSON, Format.YAML):
            for record in reversed(changed):
                typer.echo(data.to_json(data.row(record)).replace("\n", " "))
        elif changed:
            lines = render.failovers(changed, shell.clock(), wide=output is Format.WIDE).lines()
            typer.echo("\n".join(lines if header else lines[1:]))
            header = False
        await asyncio.sleep(WATCH_PAUSE_S)  # what comes meanwhile is in the next answer


@app.command("confirm")
def confirm(
    context: typer.Context,
    hosts: Annotated[
        list[str] | None, typer.Argument(help="Only these hosts; default: all that are held back.")
    ] = None,
) -> None:
    """Say that silent hosts are gone, so that their agents are moved now.

    When many hosts fall silent at once nothing is moved at first, because the network is the likelier cause. After a
    grace period it goes on by itself, if the leader hears some host all the while. This ends the wait. It is safe
    even if you are wrong: a host whose lease has ended serves nothing, and its agents start elsewhere.

    Examples:

        tenure failover confirm

        tenure failover confirm host-1 host-2
    """
    shell = runtime(context)
    shell.run(_confirm(shell, hosts or []))


async def _confirm(shell: Runtime, hosts: list[str]) -> None:
    async with shell.cluster("") as cluster:
        rows = await snapshot(cluster)
        held = sorted({host.name for host in rows.live_hosts() if host.silence == "Held"})
        wrong = sorted(set(hosts) - set(held))
        if wrong or not held:
            what = f"The failover of {', '.join(wrong)} is not held back." if wrong else "Nothing is held back."
            raise CliError(what, f"Held back: {', '.join(held) or 'none'}. `tenure get hosts` shows all hosts.")
        answer = await cluster.confirm_failover(hosts)
        print(f"confirmed: {', '.join(answer.hosts)}; their agents are moved now (`tenure failovers --watch`)")
