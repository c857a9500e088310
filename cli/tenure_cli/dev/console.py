"""The live log of `tenure dev`: one colour for each process."""

import re
from zlib import crc32

from rich.console import Console
from rich.text import Text

COLOURS = ("cyan", "green", "magenta", "blue", "bright_cyan", "bright_green", "bright_magenta", "bright_blue")
LEVELS = ((re.compile(r"\b(ERROR|CRITICAL|Traceback)\b"), "red"), (re.compile(r"\bWARNING\b"), "yellow"))
WIDTH = 10


class LiveLog:
    """Prints lines of processes and sentences of `tenure dev` itself."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def line(self, process: str, text: str) -> None:
        """One line of a process's output."""
        style = next((style for pattern, style in LEVELS if pattern.search(text)), "")
        colour = COLOURS[crc32(process.encode()) % len(COLOURS)]
        self._console.print(Text.assemble((f"{process:<{WIDTH}} ", colour), (text, style)), soft_wrap=True)

    def say(self, text: str) -> None:
        """A sentence of our own."""
        self._console.print(Text.assemble((f"{'tenure':<{WIDTH}} ", "bold"), text), soft_wrap=True)

    def trouble(self, sentence: str, step: str) -> None:
        """What went wrong, and the next step."""
        self._console.print(Text.assemble((f"{'tenure':<{WIDTH}} ", "bold"), (f"Error: {sentence}", "bold red")))
        if step:
            self._console.print(Text.assemble((f"{'':<{WIDTH}} ", ""), f"Next:  {step}"), soft_wrap=True)
