"""`tenure doctor`."""

from typing import Annotated

import typer

from tenure.errors import TenureError
from tenure_cli import checks
from tenure_cli.checks import Verdict
from tenure_cli.errors import CliError
from tenure_cli.output import Format, NamespaceOption
from tenure_cli.ports import snapshot
from tenure_cli.render import data
from tenure_cli.runtime import Runtime, explain, runtime

# By the code of the SDK's error: which of the first checks it failed.
_CERTIFICATE = ("Unauthenticated", "PermissionDenied")


def doctor(
    context: typer.Context,
    namespace: NamespaceOption = "",
    output: Annotated[Format, typer.Option("--output", "-o", help="table or json.")] = Format.TABLE,
) -> None:
    """Check one thing after the other, from this machine to the agents, and say what to do about the first trouble.

    Context, certificate, servers, quorum, hosts, workers, agents. Exit status 1 when something is wrong.
    """
    shell = runtime(context)
    verdicts: list[Verdict] = []
    shell.run(_examine(shell, namespace, verdicts))
    good = all(verdict.good for verdict in verdicts)
    if output is Format.JSON:
        print(data.to_json([vars(verdict) for verdict in verdicts]))
    else:
        for verdict in verdicts:
            print(f"{'✓' if verdict.good else '✗'} {verdict.name}: {verdict.detail}")
            if verdict.next_step:
                print(f"    next: {verdict.next_step}")
    if not good:
        raise typer.Exit(1)


async def _examine(shell: Runtime, namespace: str, verdicts: list[Verdict]) -> None:
    try:
        chosen = shell.context()
    except CliError as error:
        verdicts.append(Verdict("context", False, error.sentence, error.next_step))
        return
    verdicts.append(Verdict("context", True, f"{chosen.label} ({chosen.why})"))
    try:
        async with shell.connect(chosen, namespace) as cluster:
            status = await cluster.status()
            rows = await snapshot(cluster)
    except (CliError, TenureError) as error:
        sentence, step, _ = explain(error)
        name = "certificate" if getattr(error, "code", "") in _CERTIFICATE else "servers"
        verdicts.append(Verdict(name, False, sentence, step or "Look at the logs of the servers."))
        return
    verdicts += checks.examine(status, rows, shell.clock())
