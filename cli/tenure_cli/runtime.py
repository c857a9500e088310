"""What every command gets: the environment, the clock, the way to a cluster; and how errors leave."""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import typer
from rich.console import Console

from tenure.errors import CallError, TenureError
from tenure_cli import contexts
from tenure_cli.errors import CliError
from tenure_cli.ports import Cluster

EXIT_UNKNOWN_OUTCOME = 3
"""Of a call that failed and may have taken effect: a script must not simply repeat it."""
EXIT_INTERRUPTED = 130

Connect = Callable[[contexts.Context, str], AbstractAsyncContextManager[Cluster]]
"""Opens a cluster; the text is a namespace, for contexts that hold several clusters, and may be empty."""


@dataclass
class Runtime:
    """Made once by `main`; tests make their own."""

    environment: Mapping[str, str]
    connect: Connect
    clock: Callable[[], float] = time.time
    context_flag: str = ""
    verbose: bool = False
    err: Console = field(default_factory=lambda: Console(stderr=True, highlight=False, soft_wrap=True))

    def context(self) -> contexts.Context:
        """The chosen context; with -v, which and why goes to standard error. Raises CliError."""
        chosen = contexts.choose(self.context_flag, self.environment)
        if self.verbose:
            self.say(f"context {chosen.label}: {chosen.why}")
        return chosen

    @asynccontextmanager
    async def cluster(self, namespace: str = "") -> AsyncGenerator[Cluster]:
        """A connection to the chosen cluster."""
        async with self.connect(self.context(), namespace) as cluster:
            yield cluster

    def say(self, text: str) -> None:
        """To standard error: what is not the result."""
        self.err.print(text, markup=False)

    @contextmanager
    def progress(self, what: str, total: int) -> Generator[Callable[[], None]]:
        """A bar on standard error, where that is a terminal; call what it yields once for each thing that is done."""
        from rich.progress import (  # noqa: PLC0415 - most commands need none, and it takes a while to load
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.err, transient=True, disable=not self.err.is_terminal) as bar:
            task = bar.add_task(what, total=total)
            yield lambda: bar.advance(task)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a command's coroutine; an error becomes one sentence and an exit status."""
        try:
            asyncio.run(work)
        except (CliError, TenureError) as error:
            self.fail(error)
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            sys.stderr.close()  # the reader of our output left, as `head` does: no message
            raise typer.Exit(0) from None

    def fail(self, error: CliError | TenureError) -> NoReturn:
        """Print what happened and the next step; end the command."""
        sentence, step, status = explain(error)
        self.err.print(f"[bold red]Error:[/] {_plain(sentence)}")
        if step:
            self.err.print(f"[bold]Next:[/]  {_plain(step)}")
        raise typer.Exit(status)


def explain(error: CliError | TenureError) -> tuple[str, str, int]:
    """(sentence, next step, exit status) of an error."""
    if isinstance(error, CliError):
        return error.sentence, error.next_step, error.exit_status
    if isinstance(error, CallError):
        unknown = error.outcome == "unknown"
        suffix = " Whether it took effect is unknown." if unknown else ""
        return f"{error.message}{suffix}", error.next_step, EXIT_UNKNOWN_OUTCOME if unknown else 1
    return str(error), "", 1


def runtime(context: typer.Context) -> Runtime:
    """The runtime of this invocation."""
    found = context.find_object(Runtime)
    if found is None:
        raise RuntimeError("the command was started without a runtime")
    return found


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
