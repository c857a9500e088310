"""`tenure dev` while it runs: bring up, watch files, wait for the signal to stop."""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from watchfiles import (
    PythonFilter,
    awatch,  # pyright: ignore[reportUnknownVariableType] - it names trio, which is not here
)

from tenure.errors import TenureError
from tenure_cli import manifests
from tenure_cli.dev import bring_up
from tenure_cli.dev.cluster import DevCluster
from tenure_cli.dev.console import LiveLog
from tenure_cli.dev.setup import Setup, make_setup
from tenure_cli.dev.workers import restart_workers
from tenure_cli.errors import CliError
from tenure_cli.ports import Cluster
from tenure_cli.runtime import explain

Report = Callable[[str, str], None]
"""Called once, when the cluster serves (two empty texts) or does not (sentence, next step)."""


@dataclass(frozen=True)
class Session:
    """What one `tenure dev` does. `report` tells the process that waits for a detached one."""

    files: Sequence[str]
    namespace: str
    setup: Setup
    running: DevCluster
    connect: bring_up.Connect
    log: LiveLog
    report: Report
    reload: bool = False
    stay: bool = True
    """Go on when an agent or a host does not come up, so that the user can correct it while it runs."""

    async def run(self) -> None:
        """Until a signal asks for the end. Raises CliError when the cluster cannot be started at all."""
        stop = asyncio.Event()
        self._listen(stop)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.running)
            bringing = asyncio.create_task(self._serve(stack))
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait([bringing, stopping], return_when=asyncio.FIRST_COMPLETED)
            if bringing.done():
                bringing.result()
                await stop.wait()
            bringing.cancel()
            await asyncio.gather(bringing, return_exceptions=True)
            self.log.say("stopping; the data stays")

    def _listen(self, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._asked_to_stop, stop)

    def _asked_to_stop(self, stop: asyncio.Event) -> None:
        if stop.is_set():
            os._exit(130)  # asked twice: the watchdog kills what is left
        stop.set()

    async def _serve(self, stack: AsyncExitStack) -> None:
        for notice in self.setup.notices:
            self.log.say(notice)
        cluster = await stack.enter_async_context(self.connect(bring_up.context_of(self.running), ""))
        try:
            await bring_up.bring_up(self.running, cluster, self.setup, self.log.say)
        except (CliError, TenureError) as error:
            sentence, step, _ = explain(error)
            self.log.trouble(sentence, step)
            self.report(sentence, step)
            if not self.stay:
                raise
        else:
            self._greet()
            self.report("", "")
        if self.reload:
            await self._reload(cluster)

    def _greet(self) -> None:
        example = self.setup.agents[0].id if self.setup.agents else f"{self.setup.namespace}/NAME"
        self.log.say(f"{self.running.plan.cluster_id} is up. In another terminal:")
        for command in ("get agents", f"describe agent {example}", f"logs -f {example}", "doctor"):
            self.log.say(f"  tenure {command}")
        self.log.say("Ctrl-C stops it.")

    async def _reload(self, cluster: Cluster) -> None:
        root = self.setup.python_root
        paths = [Path(file) for file in self.files if file != manifests.STDIN]
        self.log.say(f"watching {root} for changes")
        async for changes in awatch(root, *paths, watch_filter=_Sources()):
            changed = sorted({Path(path) for _, path in changes})
            self.log.say(f"changed: {', '.join(path.name for path in changed[:5])}")
            try:
                if any(path.suffix in manifests.SUFFIXES for path in changed):
                    setup = make_setup(manifests.load(self.files, self.namespace), self.namespace, Path.cwd())
                    await bring_up.apply_setup(cluster, setup)
                    self.log.say("manifests applied")
                if any(path.suffix == ".py" for path in changed):
                    count = restart_workers(self.running.hosts)
                    self.log.say(f"{count} workers restarted; the state is kept")
            except (CliError, TenureError) as error:
                sentence, step, _ = explain(error)
                self.log.trouble(sentence, step)


class _Sources(PythonFilter):
    """Python files and manifests."""

    def __init__(self) -> None:
        super().__init__(extra_extensions=manifests.SUFFIXES)
