"""`tenure dlq`, `resume`, `skip`, `redrive` and `timers`: what an operator does with one agent at its host."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, cast

import typer

from tenure.errors import CallError, Conflict
from tenure_cli.errors import CliError, UsageError
from tenure_cli.output import (
    AgentArgument,
    Format,
    FormatOption,
    NamespaceOption,
    complete_agents,
    emit,
    print_values,
    the_agent,
)
from tenure_cli.ports import Cluster, snapshot
from tenure_cli.render import data
from tenure_cli.render import operating as render
from tenure_cli.runtime import Runtime, explain, runtime

TIMEOUT_S = 15.0
AT_ONCE = 16
"""Agents that are asked at the same time."""
LONE = "not applied"
"""The verdict of a letter that certainly had no effect."""

app = typer.Typer(
    help="Dead letters: signals that an agent could not process, or that nobody took from it.",
    no_args_is_help=True, rich_markup_mode=None,
)  # fmt: skip
LetterArgument = Annotated[str, typer.Argument(help="Id of a letter, as `tenure dlq list` shows it.")]
LettersArgument = Annotated[list[str] | None, typer.Argument(help="Ids of letters, as `tenure dlq list` shows them.")]


# --- dead letters ----------------------------------------------------------------------------------------------------


@app.command("list")
def list_(
    context: typer.Context,
    agent: Annotated[
        str, typer.Argument(help="NAMESPACE/NAME; default: all that have any.", autocompletion=complete_agents)
    ] = "",
    output: FormatOption = Format.TABLE,
    namespace: NamespaceOption = "",
) -> None:
    """List dead letters, the newest first: of one agent, or of all that have any.

    VERDICT says what is known of the effect: `not applied` had none; `unknown` may have had one; of `pending` the
    receiver has not said it yet. Ends with status 1 when some agent could not be asked.

    Examples:

        tenure dlq list

        tenure dlq list shop/orders-7 -o wide

        tenure dlq list -o name | xargs -n2 tenure dlq redrive
    """
    shell = runtime(context)
    shell.run(_list(shell, agent, output, namespace))


async def _list(shell: Runtime, agent: str, output: Format, namespace: str) -> None:
    async with shell.cluster(agent.partition("/")[0] if "/" in agent else namespace) as cluster:
        if agent:
            names = [(await the_agent(cluster, agent, namespace))[0].spec.id]
        else:
            agents = (await snapshot(cluster)).agents.values()
            names = sorted(row.spec.id for row in agents if row.dead_letters and _within(row.spec.id, namespace))
        answers = await _ask_all(cluster, names)
    failures = [(name, answer) for name, answer in answers if isinstance(answer, CallError)]
    if agent and failures:
        raise failures[0][1]
    found = [(name, letter) for name, answer in answers if not isinstance(answer, CallError) for letter in answer]
    found.sort(key=lambda item: -float(item[1]["at"]))
    where = f" in {agent or namespace}" if agent or namespace else ""
    emit(
        output,
        lambda wide: render.letters(found, shell.clock(), wide=wide),
        lambda: {"kind": "DeadLetterList", "items": [render.letter_values(*item) for item in found]},
        f"There are no dead letters{where}." if not failures else "No agent that could be asked has any.",
        names=2,
    )
    for name, error in failures:
        shell.say(f"{name} could not be asked: {explain(error)[0]}")
    if failures:
        raise typer.Exit(1)


def _within(name: str, namespace: str) -> bool:
    return not namespace or name.startswith(f"{namespace}/")


async def _ask_all(cluster: Cluster, names: Sequence[str]) -> list[tuple[str, list[dict[str, Any]] | CallError]]:
    """One question to each agent, many at a time; what became of each."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(name: str) -> tuple[str, list[dict[str, Any]] | CallError]:
        async with gate:
            try:
                answer = await cluster.control(name, "dlq.list", {}, TIMEOUT_S)
            except CallError as error:
                return name, error
        return name, cast("list[dict[str, Any]]", answer)

    return list(await asyncio.gather(*map(ask, names)))


@app.command("show")
def show(
    context: typer.Context,
    agent: AgentArgument,
    letter: LetterArgument,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show one dead letter: what it carries, why it failed, and the traceback of its last attempt.

    Example:

        tenure dlq show shop/orders-7 4c1
    """
    shell = runtime(context)
    shell.run(_show(shell, agent, letter, output))


async def _show(shell: Runtime, agent: str, letter: str, output: Format) -> None:
    async with shell.cluster(agent.partition("/")[0] if "/" in agent else "") as cluster:
        name = (await the_agent(cluster, agent))[0].spec.id
        found = await cluster.control(name, "dlq.show", {"id": letter}, TIMEOUT_S)
    if output in (Format.JSON, Format.YAML):
        print_values(render.letter_values(name, found), output)
    elif output is Format.NAME:
        print(f"{name} {found['id']}")
    else:
        print("\n".join(render.letter(name, found, shell.clock())))


@app.command("redrive")
def redrive_letters(
    context: typer.Context,
    agent: AgentArgument,
    letters: LettersArgument = None,
    every: Annotated[bool, typer.Option("--all", help="All letters of the agent, the oldest first.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Also what may have taken effect already.")] = False,
) -> None:
    """Send dead letters again, as new signals; they leave the list.

    A letter whose verdict is `unknown` or `pending` may have taken effect: sent again, it may do so twice. Such letters
    need --yes.

    Examples:

        tenure dlq redrive shop/orders-7 4c1

        tenure dlq redrive shop/orders-7 --all

        tenure dlq redrive shop/orders-7 --all --yes
    """
    shell = runtime(context)
    shell.run(_redrive_letters(shell, agent, letters or [], every=every, yes=yes))


async def _redrive_letters(shell: Runtime, agent: str, ids: list[str], *, every: bool, yes: bool) -> None:
    _one_way(ids, every=every, verb="redrive")
    async with shell.cluster(agent.partition("/")[0] if "/" in agent else "") as cluster:
        name = (await the_agent(cluster, agent))[0].spec.id
        passed_over = 0
        if every:
            found = cast("list[dict[str, Any]]", await cluster.control(name, "dlq.list", {}, TIMEOUT_S))
            chosen = [letter for letter in reversed(found) if yes or letter["verdict"] == LONE]
            ids, passed_over = [str(letter["id"]) for letter in chosen], len(found) - len(chosen)
        for letter in ids:
            try:
                await cluster.control(name, "dlq.redrive", {"id": letter, "confirm": yes}, TIMEOUT_S)
            except Conflict as error:
                step = error.next_step or f"`tenure dlq redrive {name} {letter} --yes` sends it all the same."
                raise CliError(f"{letter} was not sent again: {error.message}", step) from error
            print(f"{name} {letter} redriven")
    if every and not ids and not passed_over:
        typer.echo(f"There are no dead letters in {name}.", err=True)
    if passed_over:
        what = (
            "1 letter may have taken effect and was"
            if passed_over == 1
            else f"{passed_over} letters may have taken effect and were"
        )
        raise CliError(f"{what} passed over.", f"`tenure dlq redrive {name} --all --yes` sends them too.")


@app.command("drop")
def drop(
    context: typer.Context,
    agent: AgentArgument,
    letters: LettersArgument = None,
    every: Annotated[bool, typer.Option("--all", help="All letters of the agent; needs --yes.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="They are gone for good, and that is meant.")] = False,
) -> None:
    """Remove dead letters for good.

    Examples:

        tenure dlq drop shop/orders-7 4c1 4c2

        tenure dlq drop shop/orders-7 --all --yes
    """
    shell = runtime(context)
    shell.run(_drop(shell, agent, letters or [], every=every, yes=yes))


async def _drop(shell: Runtime, agent: str, ids: list[str], *, every: bool, yes: bool) -> None:
    _one_way(ids, every=every, verb="drop")
    if every and not yes:
        step = f"`tenure dlq list {agent}` shows them; add --yes if that is meant."
        raise UsageError("All dead letters of the agent would be gone for good.", step)
    async with shell.cluster(agent.partition("/")[0] if "/" in agent else "") as cluster:
        name = (await the_agent(cluster, agent))[0].spec.id
        dropped = 0
        for letter in ["*"] if every else ids:
            answer = cast("dict[str, int]", await cluster.control(name, "dlq.drop", {"id": letter}, TIMEOUT_S))
            dropped += answer["dropped"]
        print(f"{name}: {dropped} dead letter{'' if dropped == 1 else 's'} dropped")


def _one_way(ids: Sequence[str], *, every: bool, verb: str) -> None:
    if bool(ids) == every:
        raise UsageError("Name letters, or say --all.", f"For example: tenure dlq {verb} shop/orders-7 4c1")


# --- a paused agent --------------------------------------------------------------------------------------------------


def resume(context: typer.Context, agent: AgentArgument, output: FormatOption = Format.TABLE) -> None:
    """Let a paused agent try again the signal that it failed on; it goes on when that succeeds.

    An agent with `onExhausted: Pause` stops at a signal that failed for the last time. Mend the cause first. A turn
    with steps goes on behind its last finished step.

    Example:

        tenure resume shop/orders-7
    """
    _go_on(context, agent, "resume", output)


def skip(context: typer.Context, agent: AgentArgument, output: FormatOption = Format.TABLE) -> None:
    """Put aside the signal that a paused agent failed on, as a dead letter; the agent goes on with the next one.

    Example:

        tenure skip shop/orders-7
    """
    _go_on(context, agent, "skip", output)


def redrive(context: typer.Context, agent: AgentArgument, output: FormatOption = Format.TABLE) -> None:
    """Send the signal that a paused agent failed on again, as the last in its queue; the agent goes on with the next.

    Not if it has finished steps: they would be done again.

    Example:

        tenure redrive shop/orders-7
    """
    _go_on(context, agent, "redrive", output)


def _go_on(context: typer.Context, agent: str, verb: str, output: Format) -> None:
    shell = runtime(context)

    async def work() -> None:
        async with shell.cluster(agent.partition("/")[0] if "/" in agent else "") as cluster:
            name = (await the_agent(cluster, agent))[0].spec.id
            answer = cast("dict[str, Any]", await cluster.control(name, verb, {}, TIMEOUT_S))
        if output in (Format.JSON, Format.YAML):
            print_values(answer, output)
        elif output is Format.NAME:
            print(name)
        else:
            print(f"{name}: {answer['phase']}")

    shell.run(work())


# --- timers ----------------------------------------------------------------------------------------------------------


def timers(
    context: typer.Context, agent: AgentArgument, output: FormatOption = Format.TABLE, namespace: NamespaceOption = ""
) -> None:
    """List what an agent plans: delays, schedules and cron, the earliest first.

    Timers of cluster time stand still while the cluster has no leader; those of the wall clock, as cron, do not.

    Example:

        tenure timers shop/orders-7
    """
    shell = runtime(context)
    shell.run(_timers(shell, agent, output, namespace))


async def _timers(shell: Runtime, agent: str, output: Format, namespace: str) -> None:
    async with shell.cluster(agent.partition("/")[0] if "/" in agent else namespace) as cluster:
        row, rows = await the_agent(cluster, agent, namespace)
        found = cast("list[dict[str, Any]]", await cluster.control(row.spec.id, "timers.list", {}, TIMEOUT_S))
    emit(
        output,
        lambda _: render.timers(found, shell.clock(), rows.cluster_time),
        lambda: data.listing("Timer", found, rows.revision),
        f"{row.spec.id} plans nothing.",
    )
