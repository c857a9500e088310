"""`tenure contexts` and `tenure version`."""

import json
import shutil
from importlib import metadata
from typing import Annotated, Any, cast

import typer

from tenure_cli import contexts
from tenure_cli.errors import CliError
from tenure_cli.kube.kubectl import Kubectl
from tenure_cli.output import Format
from tenure_cli.render import data
from tenure_cli.render.tables import Table
from tenure_cli.runtime import Runtime, runtime


def list_contexts(
    context: typer.Context, output: Annotated[Format, typer.Option("--output", "-o")] = Format.TABLE
) -> None:
    """List the clusters that --context can name; * marks the one that is chosen without it."""
    shell = runtime(context)
    shell.run(_contexts(shell, output))


async def _contexts(shell: Runtime, output: Format) -> None:
    try:
        chosen = contexts.choose(shell.context_flag, shell.environment).label
    except CliError:
        chosen = ""
    found = [(item.label, "local cluster", item.why) for item in contexts.running_dev(shell.environment)]
    if url := shell.environment.get("TENURE_URL"):
        found.append((url, "address", "TENURE_URL"))
    current, names = await _kube_contexts(shell)
    found += [(f"kube/{name}", "Kubernetes", "current context" if name == current else "") for name in names]
    rows = tuple(
        ("*" if name == chosen or (chosen == "kube" and name == f"kube/{current}") else "", name, kind, note)
        for name, kind, note in found
    )
    if output is Format.JSON:
        print(data.to_json([{"current": bool(row[0]), "name": row[1], "kind": row[2]} for row in rows]))
    elif rows:
        print("\n".join(Table(("CURRENT", "NAME", "KIND", "NOTE"), rows).lines()))
    else:
        raise CliError("There is no cluster to talk to.", contexts.NO_CONTEXT)


async def _kube_contexts(shell: Runtime) -> tuple[str, list[str]]:
    if not contexts.has_kubeconfig(shell.environment) or shutil.which("kubectl") is None:
        return "", []
    view = json.loads(await Kubectl().run("config", "view", "-o", "json"))
    return view.get("current-context", ""), [
        str(entry["name"]) for entry in cast("list[dict[str, Any]]", view.get("contexts") or [])
    ]


def version(context: typer.Context, output: Annotated[Format, typer.Option("--output", "-o")] = Format.TABLE) -> None:
    """Print the version of this program, and of the cluster's servers where one answers."""
    shell = runtime(context)
    shell.run(_version(shell, output))


async def _version(shell: Runtime, output: Format) -> None:
    mine = metadata.version("tenure")
    servers: dict[str, str] = {}
    try:
        async with shell.cluster() as cluster:
            servers = {server.name: server.version for server in (await cluster.status()).servers}
    except CliError as error:
        shell.say(f"no cluster was asked: {error.sentence}")
    if output is Format.JSON:
        print(data.to_json({"client": mine, "servers": servers}))
    else:
        print(f"tenure {mine}")
        for name, theirs in sorted(servers.items()):
            print(f"{name} {theirs or 'unknown'}")
