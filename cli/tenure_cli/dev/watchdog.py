"""Leaves nothing behind when `tenure dev` dies, however it dies.

Run as a script with the standard library alone, in a session of its own. Lines on standard input: `+PGID` and `-PGID`
name process groups to kill, `FILE PATH` a file to remove. The end of the input means that the writer is gone: every
group still named gets SIGKILL, which also ends frozen ones.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path


def watch() -> None:
    """Read until the writer is gone, then clean up."""
    groups: set[int] = set()
    files: list[Path] = []
    for line in sys.stdin:
        word = line.strip()
        if word.startswith("+"):
            groups.add(int(word[1:]))
        elif word.startswith("-"):
            groups.discard(int(word[1:]))
        elif word.startswith("FILE "):
            files.append(Path(word.removeprefix("FILE ")))
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    for file in files:
        file.unlink(missing_ok=True)


if __name__ == "__main__":
    # A terminal's hang-up or interrupt is for `tenure dev`; the watchdog outlives it on purpose.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watch()
