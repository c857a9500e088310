"""`tenure dev`: a local cluster from the manifests that Kubernetes gets."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tenure_cli import manifests, paths
from tenure_cli.dev import state
from tenure_cli.dev.cluster import DevCluster, Options, remove_data
from tenure_cli.dev.console import LiveLog
from tenure_cli.dev.session import Session
from tenure_cli.dev.setup import Setup, make_setup
from tenure_cli.errors import CliError, UsageError
from tenure_cli.output import Format
from tenure_cli.render import data
from tenure_cli.render.tables import Table
from tenure_cli.runtime import Runtime, runtime

PROFILES = ("Fast", "Balanced", "Calm")
DETACH_S = 120.0
STOP_S = 30.0
NOTIFY = "TENURE_DEV_NOTIFY_FD"
"""In the environment of a detached `tenure dev`: where it says in one line of JSON that it serves, or why not."""

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
NameOption = Annotated[str, typer.Option("--name", help="Several local clusters can run, each with its own data.")]


@app.callback()
def dev(  # noqa: PLR0913, PLR0917 - typer takes each option as a parameter
    context: typer.Context,
    files: Annotated[list[str] | None, typer.Option("--filename", "-f", help="A manifest or a directory.")] = None,
    servers: Annotated[int, typer.Option(help="1, 3 or 5.")] = 3,
    hosts: Annotated[int, typer.Option(help="Nodes; a pool without replicas has one host on each.", min=1, max=20)] = 3,
    name: NameOption = "dev",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="For manifests that name none.")] = "",
    profile: Annotated[str, typer.Option(help="Fast, Balanced or Calm instead of the manifest's.")] = "",
    reload: Annotated[bool, typer.Option("--reload", help="Restart the workers when a source changes.")] = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it serves; stop it by `tenure dev stop`.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the data of the last run.")] = False,
) -> None:
    """Run a cluster on this machine: servers and hosts as processes, from the same manifests as on Kubernetes.

    `image` is ignored: the pools' modules are imported from the current directory, or from the manifest's. The data is
    kept from one run to the next.

    Examples:

        tenure dev -f examples/counter

        tenure dev -f examples/counter --reload

        tenure dev -f examples/counter --detach; tenure dev status; tenure dev stop
    """
    if context.invoked_subcommand is not None:
        return
    shell = runtime(context)
    try:
        if not files:
            raise UsageError("`tenure dev` needs manifests.", "For example: tenure dev -f examples/counter")
        options, setup = _prepare(shell, files, (servers, hosts), (name, namespace, profile))
        if fresh:
            remove_data(options.directory)
        if detach:
            _detach(options.directory)
        else:
            _run(shell, options, setup, files, namespace, reload=reload)
    except CliError as error:
        _notify(error.sentence, error.next_step)
        shell.fail(error)


def _prepare(
    shell: Runtime, files: Sequence[str], size: tuple[int, int], names: tuple[str, str, str]
) -> tuple[Options, Setup]:
    name, namespace, profile = names
    if size[0] not in (1, 3, 5):
        raise UsageError(f"--servers is {size[0]}; a cluster has 1, 3 or 5 servers.")
    if profile and profile not in PROFILES:
        raise UsageError(f"There is no profile {profile!r}.", f"It is one of: {', '.join(PROFILES)}.")
    if not name.replace("-", "").isalnum() or not name.islower():
        raise UsageError(f"{name!r} cannot be the name of a local cluster: lower-case letters, digits and '-'.")
    setup = make_setup(manifests.load(files, namespace), namespace, Path.cwd())
    options = Options(
        directory=paths.dev_directory(shell.environment, name),
        namespace=setup.namespace,
        cluster=setup.cluster,
        pools=setup.pools,
        servers=size[0],
        nodes=size[1],
        profile=profile or setup.profile,
        python_root=setup.python_root,
    )
    return options, setup


def _run(shell: Runtime, options: Options, setup: Setup, files: Sequence[str], namespace: str, *, reload: bool) -> None:
    log = LiveLog(Console(highlight=False))
    session = Session(
        files=files,
        namespace=namespace,
        setup=setup,
        running=DevCluster(options, log.line),
        connect=shell.connect,
        log=log,
        report=_notify,
        reload=reload,
    )
    shell.run(session.run())


def _detach(directory: Path) -> None:
    """Start ourselves in a session of its own, and wait until it serves. Raises CliError when it does not."""
    if state.is_running(directory):
        raise CliError(
            f"The local cluster {directory.name!r} runs already.", f"Stop it with `{state.stop_command(directory)}`."
        )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = directory / "dev.log"
    words = [word for word in sys.argv[1:] if word not in ("--detach", "-d", "--fresh")]
    reader, writer = os.pipe()
    with log.open("w") as output:
        child = subprocess.Popen(  # noqa: S603 - our own interpreter, our own arguments
            [sys.executable, "-P", "-m", "tenure_cli.main", *words],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            pass_fds=(writer,), env=os.environ | {NOTIFY: str(writer), "COLUMNS": "200"},
        )  # fmt: skip
    os.close(writer)
    with os.fdopen(reader) as answers:
        line = answers.readline()
    if not line:
        child.wait(STOP_S)
        last = log.read_text().strip().splitlines()[-1:] or ["it said nothing"]
        raise CliError(f"The local cluster did not start: {last[0]}", f"Its log is {log}.")
    sentence, step = json.loads(line)
    if sentence:
        raise CliError(sentence, step or f"The cluster still runs; its log is {log}.")
    print(f"The local cluster {directory.name!r} is up. Its log: {log}")
    stopping = state.stop_command(directory)
    print(f"  tenure get agents     {stopping.replace(' stop', ' status', 1)}     {stopping}")


def _notify(sentence: str, step: str) -> None:
    number = os.environ.pop(NOTIFY, "")
    if number:
        with os.fdopen(int(number), "w") as waiting:
            waiting.write(json.dumps([sentence, step]) + "\n")


@app.command("stop")
def stop(context: typer.Context, name: NameOption = "dev") -> None:
    """Stop a local cluster; its data stays."""
    shell = runtime(context)
    shell.run(_stop(paths.dev_directory(shell.environment, name)))


async def _stop(directory: Path) -> None:
    manager = state.read_processes(directory).manager
    descriptor = os.pidfd_open(manager)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, ended.set)  # a pidfd is readable when its process ends
        async with asyncio.timeout(STOP_S):
            await ended.wait()
        asyncio.get_running_loop().remove_reader(descriptor)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        print(f"It did not stop within {STOP_S:g} s and was killed; the data is kept.")
    finally:
        os.close(descriptor)
    print(f"The local cluster {directory.name!r} is stopped.")


@app.command("status")
def status(
    context: typer.Context,
    name: NameOption = "dev",
    output: Annotated[Format, typer.Option("--output", "-o")] = Format.TABLE,
) -> None:
    """Show the processes of a local cluster."""
    shell = runtime(context)
    shell.run(_status(paths.dev_directory(shell.environment, name), output))


async def _status(directory: Path, output: Format) -> None:
    found = state.read_processes(directory)
    if output is Format.JSON:
        print(data.to_json({"manager": found.manager, "processes": [vars(process) for process in found.processes]}))
        return
    rows = tuple(
        (item.name, item.kind, str(item.pid) if item.pid else "down", item.node or "<none>", item.log)
        for item in found.processes
    )
    print("\n".join(Table(("NAME", "KIND", "PID", "NODE", "LOG"), rows).lines()))
