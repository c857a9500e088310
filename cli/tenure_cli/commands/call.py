"""`tenure call` and `tenure logs`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from tenure_cli import arguments
from tenure_cli.errors import CliError
from tenure_cli.output import Format, NamespaceOption, full_name
from tenure_cli.ports import snapshot
from tenure_cli.render import data, describe
from tenure_cli.runtime import Runtime, runtime
from tenure_proto.v1 import calls_pb2

DEFAULT_TIMEOUT_S = 30.0
CALL_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}


def call(
    context: typer.Context,
    agent: Annotated[str, typer.Argument(help="NAMESPACE/NAME")],
    method: Annotated[str, typer.Argument(help="An action or a query of its class; none: list them.")] = "",
    args: Annotated[str, typer.Option("--args", help="Arguments as one JSON object.")] = "",
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to keep trying.")] = DEFAULT_TIMEOUT_S,
    output: Annotated[Format, typer.Option("--output", "-o", help="json: with host and epoch.")] = Format.TABLE,
) -> None:
    """Call an action or a query of an agent and print its reply.

    Every option that is not listed here is an argument of the method; its value is read as JSON, and as text where it
    is none. The call carries one id: repeated after a failover, it takes effect once. Exit status 3: the call failed
    and may have taken effect.

    Examples:

        tenure call shop/counter-1 increment --by 2

        tenure call shop/counter-1 value

        tenure call shop/counter-1                (lists what can be called)

        tenure call shop/orders-7 add --args '{"item": {"sku": "a1", "count": 2}}'
    """
    shell = runtime(context)
    shell.run(_call(shell, agent, method, list(context.args), (args, timeout, output)))


async def _call(shell: Runtime, agent: str, method: str, words: list[str], options: tuple[str, float, Format]) -> None:
    given, timeout, output = options
    async with shell.cluster(agent.partition("/")[0] if "/" in agent else "") as cluster:
        rows = await snapshot(cluster)
        name = full_name(agent, rows)
        row = rows.agent(name)
        if row is None:
            raise CliError(f"There is no agent {name!r}.", "`tenure get agents` lists them.")
        if not method:
            print("\n".join(_methods(name, describe.methods(row, rows))))
            return
        found = arguments.check_method(method, describe.class_info(row, rows))
        values = arguments.build(words, given or None, found)
        result = await cluster.call(name, method, values, timeout)
    if output in (Format.JSON, Format.YAML):
        whole = {"value": result.value, "host": result.host, "epoch": result.epoch, "recorded": result.recorded}
        print(data.to_json(whole) if output is Format.JSON else data.to_yaml(whole))
    else:
        print(data.reply(result.value))


def _methods(agent: str, lines: list[str]) -> list[str]:
    if not lines:
        raise CliError(f"No host has said yet what can be called of {agent}.", f"`tenure describe agent {agent}`")
    return lines


def logs(
    context: typer.Context,
    agent: Annotated[str, typer.Argument(help="NAMESPACE/NAME")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    tail: Annotated[int, typer.Option("--tail", help="Lines of the past to start with.", min=0)] = 100,
    output: Annotated[Format, typer.Option("--output", "-o", help="json: one object a line.")] = Format.TABLE,
    namespace: NamespaceOption = "",
) -> None:
    """Print what an agent logged, also by its earlier holders as far as it is kept.

    Examples:

        tenure logs shop/counter-1

        tenure logs -f shop/counter-1 --tail 0
    """
    shell = runtime(context)
    shell.run(_logs(shell, agent, namespace, tail, follow=follow, as_json=output is Format.JSON))


async def _logs(shell: Runtime, agent: str, namespace: str, tail: int, *, follow: bool, as_json: bool) -> None:
    async with shell.cluster(agent.partition("/")[0] if "/" in agent else namespace) as cluster:
        name = agent if "/" in agent else full_name(agent, await snapshot(cluster), namespace)
        async for line in cluster.logs(name, tail, follow=follow):
            typer.echo(data.to_json(data.row(line)).replace("\n", " ") if as_json else log_text(line))


def log_text(line: calls_pb2.LogLine) -> str:
    """One line: when (UTC), where, in which epoch, what."""
    when = datetime.fromtimestamp(line.wall_time, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    return f"{when}Z {line.level:<7} {line.host} epoch {line.epoch}: {line.text}"
