"""`tenure apply`, `delete` and `create`: rows of a local cluster, objects of Kubernetes."""

import sys
import tempfile
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from tenure_cli import arguments, contexts, manifests, wire
from tenure_cli.errors import CliError, UsageError
from tenure_cli.kube.kubectl import Kubectl
from tenure_cli.manifests import Loaded
from tenure_cli.output import FilesOption, NamespaceOption
from tenure_cli.ports import Cluster, snapshot
from tenure_cli.ready import wait_until_ready
from tenure_cli.runtime import Runtime, runtime
from tenure_proto.v1 import registry_pb2

DEFAULT_NAMESPACE = "default"
WaitOption = Annotated[float, typer.Option("--wait", help="Seconds to wait until all are Ready; 0: do not wait.")]


def apply(context: typer.Context, files: FilesOption, namespace: NamespaceOption = "", wait: WaitOption = 0.0) -> None:
    """Create or change what the manifests describe. All of them are checked before anything is changed.

    On Kubernetes the objects are written with kubectl; the operator does the rest. In a local cluster the agents' rows
    are written at once, and the pools of the AgentCluster are declared.

    Examples:

        tenure apply -f examples/counter

        cat agents.yaml | tenure apply -f - --wait 30
    """
    shell = runtime(context)
    shell.run(_apply(shell, files, namespace, wait))


async def _apply(shell: Runtime, files: Sequence[str], namespace: str, wait: float) -> None:
    with _kept_input(files) as paths:
        loaded = manifests.load(paths, namespace)
        chosen = shell.context()
        if isinstance(chosen, contexts.KubeContext):
            await _kubectl(chosen, "apply", paths, namespace)
            await _wait_for_objects(chosen, loaded, namespace, wait)
            return
        for note in loaded.passed_over:
            shell.say(note)
        async with shell.cluster(namespace) as cluster:
            await _apply_rows(cluster, loaded, namespace, wait)


async def _apply_rows(cluster: Cluster, loaded: Loaded, namespace: str, wait: float) -> None:
    where = namespace or await _namespace_of(cluster)
    for document in loaded.clusters:
        await cluster.apply_pools(wire.pool_specs(document.resource))
        print(f"agentcluster/{document.resource.metadata.name} configured (pools only)")
    specs = [wire.agent_spec(item.resource, item.resource.metadata.namespace or where) for item in loaded.agents]
    if specs:
        report(await cluster.apply_agents(specs))
    if wait and specs:
        await wait_until_ready(cluster, [spec.id for spec in specs], wait)


async def _namespace_of(cluster: Cluster) -> str:
    """The one that the cluster serves."""
    return (await cluster.status()).cluster.partition("/")[0] or DEFAULT_NAMESPACE


def report(results: Sequence[registry_pb2.RowResult]) -> None:
    """One line for each, as kubectl prints it. Raises CliError with the first refusal."""
    refused = [result for result in results if result.outcome == "refused"]
    for result in results:
        if result.outcome != "refused":
            absent = result.outcome == "gone" and not result.uid
            print(f"agent/{result.id} {'was not there' if absent else result.outcome}")
    if refused:
        error = refused[0].error
        others = f" ({len(refused) - 1} more were refused)" if len(refused) > 1 else ""
        raise CliError(f"agent/{refused[0].id}: {error.message}{others}", error.next_step)


def delete(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(help="NAMESPACE/NAME of agents.")] = None,
    files: Annotated[list[str] | None, typer.Option("--filename", "-f", help="Delete what these describe.")] = None,
    namespace: NamespaceOption = "",
) -> None:
    """Stop agents, then remove them with their state.

    Examples:

        tenure delete shop/counter-1

        tenure delete -f agents.yaml
    """
    shell = runtime(context)
    shell.run(_delete(shell, names or [], files or [], namespace))


async def _delete(shell: Runtime, names: list[str], files: list[str], namespace: str) -> None:
    if bool(names) == bool(files):
        raise UsageError("Name agents, or give manifests with -f.", "For example: tenure delete shop/counter-1")
    chosen = shell.context()
    with _kept_input(files) as paths:
        loaded = manifests.load(paths, namespace) if paths else Loaded((), (), ())
        if isinstance(chosen, contexts.KubeContext):
            await _delete_objects(chosen, names, paths, namespace)
            return
        async with shell.cluster(namespace) as cluster:
            where = namespace or await _namespace_of(cluster)
            ids = [name if "/" in name else f"{where}/{name}" for name in names]
            ids += [
                f"{item.resource.metadata.namespace or where}/{item.resource.metadata.name}" for item in loaded.agents
            ]
            report(await cluster.delete_agents(ids))


async def _delete_objects(chosen: contexts.KubeContext, names: list[str], paths: list[str], namespace: str) -> None:
    if paths:
        await _kubectl(chosen, "delete", paths, namespace)
        return
    kubectl = Kubectl(chosen.context)
    for name in names:
        place, slash, bare = name.rpartition("/")
        where = ["-n", place if slash else namespace] if slash or namespace else []
        print((await kubectl.run("delete", "agents.tenure.dev", bare, *where, timeout_s=120)).strip())


class Durability(StrEnum):
    """Whether the state is stored."""

    QUORUM = "Quorum"
    VOLATILE = "Volatile"


class Reads(StrEnum):
    """Whom a query asks."""

    LOCAL = "Local"
    QUORUM = "Quorum"


class OnExhausted(StrEnum):
    """What becomes of a signal that failed for the last time."""

    DEAD_LETTER = "DeadLetter"
    PAUSE = "Pause"


def create(  # noqa: PLR0913, PLR0917 - typer takes each option as a parameter
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="NAMESPACE/NAME")],
    class_: Annotated[str, typer.Option("--class", help="A class that the pool's modules register.")],
    pool: Annotated[str, typer.Option("--pool", help="A pool of the cluster.")] = "default",
    state: Annotated[str, typer.Option("--state", help="Initial values, a JSON object.")] = "",
    durability: Annotated[
        Durability, typer.Option("--durability", help="Volatile: nothing is stored.")
    ] = Durability.QUORUM,
    reads: Annotated[
        Reads, typer.Option("--reads", help="Quorum: queries ask a majority of the servers.")
    ] = Reads.LOCAL,
    on_exhausted: Annotated[
        OnExhausted, typer.Option("--on-exhausted", help="Of a signal that failed for the last time.")
    ] = OnExhausted.DEAD_LETTER,
    max_attempts: Annotated[int, typer.Option("--max-attempts", help="Of a signal whose turn fails.", min=1)] = 5,
    idle_timeout: Annotated[
        float, typer.Option("--idle-timeout", help="Seconds without work before it hibernates; 0: never.", min=0)
    ] = 0.0,
    wait: WaitOption = 30.0,
) -> None:
    """Create one agent without a manifest. On Kubernetes too it is a row of the registry, not an object.

    Examples:

        tenure create shop/counter-7 --class Counter --state '{"count": 40}'

        tenure create shop/desk-7 --class Desk --idle-timeout 60 --on-exhausted Pause
    """
    shell = runtime(context)
    shell.run(
        _create(
            shell,
            wire.new_spec(name, class_, pool),
            {
                "state": state,
                "durability": durability.value,
                "reads": reads.value,
                "on_exhausted": on_exhausted.value,
                "delivery": registry_pb2.Delivery(max_attempts=max_attempts),
                "idle_timeout_s": idle_timeout,
            },
            wait,
        )
    )


async def _create(shell: Runtime, spec: registry_pb2.AgentSpec, asked: dict[str, Any], wait: float) -> None:
    name = spec.id
    namespace, slash, bare = name.partition("/")
    if not slash or not bare:
        raise UsageError(f"{name!r} is no agent's full name.", "Write NAMESPACE/NAME, for example shop/counter-7.")
    state = arguments.parse_object(asked.pop("state") or "{}")
    spec.MergeFrom(registry_pb2.AgentSpec(state=msgspec.msgpack.encode(state), **asked))
    async with shell.cluster(namespace) as cluster:
        existing = (await snapshot(cluster)).agent(name)
        if existing is not None:
            raise CliError(f"There is an agent {name!r} already.", f"`tenure describe agent {name}` shows it.")
        report(await cluster.apply_agents([spec]))
        if wait:
            await wait_until_ready(cluster, [name], wait)


async def _kubectl(chosen: contexts.KubeContext, verb: str, paths: Sequence[str], namespace: str) -> None:
    where = ["-n", namespace] if namespace else []
    files = [word for path in paths for word in ("-f", path)]
    print((await Kubectl(chosen.context).run(verb, *where, *files, timeout_s=120)).strip())


async def _wait_for_objects(chosen: contexts.KubeContext, loaded: Loaded, namespace: str, wait: float) -> None:
    """Until the condition Ready of each Agent is true. Raises CliError after `wait` seconds; 0: no wait."""
    deadline = time.monotonic() + wait
    for metadata in [item.resource.metadata for item in loaded.agents] if wait else []:
        where = metadata.namespace or namespace
        left = max(1, round(deadline - time.monotonic()))
        words = ["wait", f"agents.tenure.dev/{metadata.name}", "--for=condition=Ready", f"--timeout={left}s"]
        try:
            await Kubectl(chosen.context).run(*words, *(["-n", where] if where else []), timeout_s=left + 10)
        except CliError as error:
            step = f"`tenure describe agent {where}/{metadata.name}` says why."
            raise CliError(f"{metadata.name} is not Ready: {error.sentence}", step) from error


class _kept_input:  # noqa: N801 - used like a function
    """Standard input as a file, so that it can be checked first and handed to kubectl afterwards."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = list(files)
        self._copy: Path | None = None

    def __enter__(self) -> list[str]:
        if manifests.STDIN in self._files:
            with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as copy:
                copy.write(sys.stdin.read())
            self._copy = Path(copy.name)
        return [str(self._copy) if file == manifests.STDIN and self._copy else file for file in self._files]

    def __exit__(self, *_: object) -> None:
        if self._copy is not None:
            self._copy.unlink()
