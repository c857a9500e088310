"""Running programs, waiting for conditions, and the one error that the harness raises."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

Argument = str | int | Path


class HarnessError(Exception):
    """Something did not work, said in a sentence for the person at the terminal."""


def run(
    *arguments: Argument,
    check: bool = True,
    stdin: str | IO[bytes] | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a program and return what it printed. Raises HarnessError when it fails, unless `check` is off."""
    words = [str(word) for word in arguments]
    text = stdin.encode() if isinstance(stdin, str) else None
    file = subprocess.DEVNULL if stdin is None or isinstance(stdin, str) else stdin
    source: dict[str, Any] = {"stdin": file} if text is None else {"input": text}
    environment = {**os.environ, **env} if env else None
    try:
        done = subprocess.run(words, check=False, capture_output=True, cwd=cwd, env=environment, **source)
    except FileNotFoundError as error:
        if check:
            raise HarnessError(f"{error.filename} is not installed, or not built yet.") from error
        return ""
    output = str(done.stdout, errors="replace")
    if check and done.returncode:
        raise HarnessError(f"{' '.join(words)}: exit {done.returncode}\n{output}{str(done.stderr, errors='replace')}")
    return output


def wait_for(what: str, condition: Callable[[], object], seconds: float = 60.0, every: float = 0.1) -> None:
    """Poll until `condition` is true. Raises HarnessError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise HarnessError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(every)


class Steps:
    """Progress lines, each with the seconds since the start."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)
