"""`tenure place`, `explain`, `resources`, `quarantine`, `unquarantine`: where agents go, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer

from tenure_api import quantity
from tenure_cli import manifests, wire
from tenure_cli.errors import CliError, UsageError
from tenure_cli.output import Format, FormatOption, NamespaceOption, emit, full_name
from tenure_cli.ports import Cluster, snapshot
from tenure_cli.render import data, placement
from tenure_cli.render.tables import Table
from tenure_cli.runtime import Runtime, runtime
from tenure_proto.v1 import registry_pb2


class Strategy(StrEnum):
    """How a host is chosen among those that an agent may go to."""

    LOAD_BALANCED = "LoadBalanced"
    CAPABILITY_MATCHED = "CapabilityMatched"
    LEADER_ONLY = "LeaderOnly"
    RANDOM = "Random"
    LOCAL_PREFERRED = "LocalPreferred"
    OPTIMAL = "Optimal"


@dataclass(frozen=True)
class _Asked:
    """What an agent that no manifest describes would be."""

    class_: str
    pool: str
    strategy: Strategy
    requires: Sequence[str]
    cpu: str
    memory: str
    near: str

    def spec(self) -> registry_pb2.AgentSpec:
        """Raises UsageError."""
        try:
            cpu, memory = quantity.milli(self.cpu), quantity.whole(self.memory)
        except quantity.BadQuantity as error:
            raise UsageError(str(error), "Write for example --cpu 500m --memory 256Mi.") from error
        row = registry_pb2.AgentSpec(
            pool=self.pool, critical=True, cpu_milli=cpu, memory_bytes=memory, strategy=self.strategy,
            requires=self.requires, near=self.near,
        )  # fmt: skip
        setattr(row, "class", self.class_)
        return row


def place(  # noqa: PLR0913, PLR0917 - typer takes each option as a parameter
    context: typer.Context,
    files: Annotated[list[str] | None, typer.Option("--filename", "-f", help="Manifests with Agents.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Needed: nothing is ever changed by this.")] = False,
    class_: Annotated[str, typer.Option("--class", help="Instead of a manifest: an agent of this class.")] = "",
    pool: Annotated[str, typer.Option("--pool", help="Of that agent.")] = "default",
    strategy: Annotated[Strategy, typer.Option("--strategy", help="Of that agent.")] = Strategy.LOAD_BALANCED,
    requires: Annotated[list[str] | None, typer.Option("--requires", help="A capability; repeat.")] = None,
    cpu: Annotated[str, typer.Option("--cpu", help="What it asks for.")] = "100m",
    memory: Annotated[str, typer.Option("--memory", help="What it asks for.")] = "128Mi",
    near: Annotated[str, typer.Option("--near", help="NAMESPACE/NAME of an agent, or a node.")] = "",
    output: FormatOption = Format.TABLE,
    namespace: NamespaceOption = "",
) -> None:
    """Show where agents would go now: each host with its score, or with the filter that rejected it. Changes nothing.

    The lower the score, the better. RANK 1 is the host that would be taken. Ends with status 1 when an agent fits
    nowhere. An agent that runs already is placed as if it had to move; it counts where it is.

    Examples:

        tenure place --dry-run -f agent.yaml

        tenure place --dry-run --class Counter --requires gpu

        tenure place --dry-run --class Counter --strategy Optimal --cpu 2 --memory 4Gi -o json
    """
    shell = runtime(context)
    asked = _Asked(class_, pool, strategy, requires or [], cpu, memory, near)
    shell.run(_place(shell, files or [], asked, output, namespace, dry_run=dry_run))


async def _place(
    shell: Runtime, files: Sequence[str], asked: _Asked, output: Format, namespace: str, *, dry_run: bool
) -> None:
    if not dry_run:
        raise UsageError("`tenure place` only shows where agents would go.", "Add --dry-run; `tenure apply` creates.")
    if bool(files) == bool(asked.class_):
        raise UsageError("Give manifests with -f, or a class with --class.", "For example: --class Counter --pool web")
    loaded = manifests.load(files, namespace) if files else None
    if loaded is not None and not loaded.agents:
        raise UsageError("The manifests hold no Agent.", "Name an agent's class with --class instead.")
    async with shell.cluster(namespace) as cluster:
        if loaded is None:
            specs = [asked.spec()]
        else:
            where = namespace or (await cluster.status()).cluster.partition("/")[0] or "default"
            specs = [
                wire.agent_spec(item.resource, item.resource.metadata.namespace or where) for item in loaded.agents
            ]
        answers = [(spec, await cluster.dry_run(spec)) for spec in specs]
    _print_trials(answers, output)
    if any(not answer.host for _, answer in answers):
        raise typer.Exit(1)


def _print_trials(
    answers: Sequence[tuple[registry_pb2.AgentSpec, registry_pb2.DryRunResponse]], output: Format
) -> None:
    if output in (Format.JSON, Format.YAML):
        found = [{"agent": spec.id, "class": wire.class_of(spec), **data.row(answer)} for spec, answer in answers]
        _print_values(found[0] if len(found) == 1 else {"kind": "DryRunList", "items": found}, output)
        return
    for number, (spec, answer) in enumerate(answers):
        name = spec.id or f"An agent of class {wire.class_of(spec)}"
        blank = [""] if number else []
        print("\n".join([*blank, *placement.trial(name, answer, wide=output is Format.WIDE)]))


def explain(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="NAMESPACE/NAME")],
    output: FormatOption = Format.TABLE,
    namespace: NamespaceOption = "",
) -> None:
    """Say why an agent is where it is: since when, chosen how, what was rejected, who held it before.

    Of an agent that waits: what it waits for, what each host lacks, and the next step. The cluster remembers its last
    10,000 placements; of each agent the last two always.

    Examples:

        tenure explain shop/counter-1

        tenure explain counter-1 -o json
    """
    shell = runtime(context)
    shell.run(_explain(shell, name, output, namespace))


async def _explain(shell: Runtime, name: str, output: Format, namespace: str) -> None:
    async with shell.cluster(namespace or name.partition("/")[0] if "/" in name else namespace) as cluster:
        full = name if "/" in name else full_name(name, await snapshot(cluster), namespace)
        answer = await cluster.explain(full)
    if output in (Format.JSON, Format.YAML):
        _print_values(data.row(answer), output)
    else:
        print("\n".join(placement.explanation(answer, shell.clock(), wide=output is Format.WIDE)))


def resources(context: typer.Context, output: FormatOption = Format.TABLE, namespace: NamespaceOption = "") -> None:
    """Show what the nodes can bear, what agents ask for there, what is reserved, and what is free; and the sum.

    It is what agents ask for (resources.requests) that counts, not what they use; LOAD is what was last measured, and
    only the leader knows it. A node that cannot be reached is listed as unavailable, and is not in the sum.

    Examples:

        tenure resources

        tenure resources -o json
    """
    shell = runtime(context)
    shell.run(_resources(shell, output, namespace))


async def _resources(shell: Runtime, output: Format, namespace: str) -> None:
    async with shell.cluster(namespace) as cluster:
        answer = await cluster.resources()
    emit(output, lambda wide: placement.resources(answer, wide=wide), lambda: data.row(answer), "There is no node yet.")
    if output in (Format.TABLE, Format.WIDE) and answer.waiting:
        print(f"{answer.waiting} of {answer.agents} agents wait for a host.")


def placements(
    context: typer.Context,
    host: Annotated[str, typer.Option("--host", help="Only those of this host.")] = "",
    limit: Annotated[int, typer.Option("--limit", help="So many, the newest first.", min=1, max=1000)] = 50,
    output: FormatOption = Format.TABLE,
    namespace: NamespaceOption = "",
) -> None:
    """List the last placements of the cluster: which agent went where, when, and why there. 10,000 are kept.

    Examples:

        tenure placements

        tenure placements --host host-2 --limit 10
    """
    shell = runtime(context)
    shell.run(_placements(shell, host, limit, output, namespace))


async def _placements(shell: Runtime, host: str, limit: int, output: Format, namespace: str) -> None:
    async with shell.cluster(namespace) as cluster:
        answer = await cluster.decisions(host, limit)
    emit(output, lambda _: placement.decisions(answer), lambda: data.row(answer), "Nothing was placed yet.")


def quarantine(
    context: typer.Context,
    host: Annotated[str, typer.Argument(help="A host's name (`tenure get hosts`).")],
    reason: Annotated[str, typer.Option("--reason", help="Why: shown to everybody who asks.")] = "",
    namespace: NamespaceOption = "",
) -> None:
    """Place nothing new on a host. The agents that it holds stay; a restart of the host does not lift it.

    Examples:

        tenure quarantine host-2 --reason "disk errors, see ticket 4711"

        tenure unquarantine host-2
    """
    shell = runtime(context)
    shell.run(_quarantine(shell, host, reason.strip(), namespace))


async def _quarantine(shell: Runtime, host: str, reason: str, namespace: str) -> None:
    if not reason:
        raise UsageError(
            "A quarantine needs a reason.", f'For example: tenure quarantine {host} --reason "disk errors"'
        )
    async with shell.cluster(namespace) as cluster:
        await _check_host(cluster, host)
        answer = await cluster.quarantine(host, reason)
    kept = f"; it keeps its {answer.agents} agents" if answer.agents else ""
    print(f"host/{host} is quarantined and takes nothing new{kept}")


def unquarantine(
    context: typer.Context,
    host: Annotated[str, typer.Argument(help="A host's name (`tenure get hosts`).")],
    namespace: NamespaceOption = "",
) -> None:
    """Let a host take agents again.

    Example:

        tenure unquarantine host-2
    """
    shell = runtime(context)
    shell.run(_unquarantine(shell, host, namespace))


async def _unquarantine(shell: Runtime, host: str, namespace: str) -> None:
    async with shell.cluster(namespace) as cluster:
        await cluster.quarantine(host, "")
    print(f"host/{host} takes agents again")


async def _check_host(cluster: Cluster, host: str) -> None:
    names = sorted({row.name for row in (await snapshot(cluster)).hosts.values()})
    if host not in names:
        hint = placement.near(host, names) or "`tenure get hosts` lists what there is."
        raise CliError(f"There is no host {host!r}.", hint)


def _print_values(values: Any, output: Format) -> None:
    emit(output, lambda _: Table((), ()), lambda: values, "")
