"""The command line's entrance: which commands there are, and the options before them."""

import os
from typing import Annotated

import typer

from tenure_cli.commands import about, call, change, doctor, failover, get, new, operate, place, state, topology
from tenure_cli.commands import dev as dev_commands
from tenure_cli.connect import connect
from tenure_cli.runtime import Runtime, runtime

HELP = """Talk to a Tenure cluster: on Kubernetes, or one that `tenure dev` runs on this machine.

Which cluster: --context, else TENURE_URL, else a running `tenure dev`, else the kubeconfig; -v says which and why.

First steps:

    tenure dev -f examples/counter

    tenure get agents

    tenure call shop/counter-1 increment --by 2

    tenure logs -f shop/counter-1

    tenure explain shop/counter-1

    tenure doctor
"""

app = typer.Typer(
    help=HELP, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=True
)


@app.callback()
def options(
    context: typer.Context,
    chosen: Annotated[str, typer.Option("--context", help="dev/NAME, kube/NAME, or a name (`tenure contexts`).")] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say which context was chosen, and why.")] = False,
) -> None:
    """Options before the command."""
    shell = runtime(context)
    shell.context_flag = chosen
    shell.verbose = verbose


app.command("get")(get.get)
app.command("describe")(get.describe_)
app.command("call", context_settings=call.CALL_SETTINGS)(call.call)
app.command("logs")(call.logs)
app.command("apply")(change.apply)
app.command("delete")(change.delete)
app.command("create")(change.create)
app.command("place")(place.place)
app.command("explain")(place.explain)
app.command("placements")(place.placements)
app.command("resources")(place.resources)
app.command("topology")(topology.topology)
app.command("quarantine")(place.quarantine)
app.command("unquarantine")(place.unquarantine)
app.command("failovers")(failover.failovers)
app.add_typer(failover.app, name="failover")
app.add_typer(operate.app, name="dlq")
app.command("resume")(operate.resume)
app.command("skip")(operate.skip)
app.command("redrive")(operate.redrive)
app.command("timers")(operate.timers)
app.add_typer(state.app, name="state")
app.command("doctor")(doctor.doctor)
app.command("contexts")(about.list_contexts)
app.command("version")(about.version)
app.add_typer(dev_commands.app, name="dev")
app.add_typer(new.app, name="new")


def main() -> None:
    """`tenure`, and `kubectl tenure`."""
    app(obj=Runtime(environment=os.environ, connect=connect))


if __name__ == "__main__":
    main()
