"""What a user is told when a command cannot do its work.

CliError                one sentence, and the next step
├── Unreachable         no server answered
└── UsageError          the command line or a manifest is wrong: exit status 2
    └── ManifestError   the same, with the file and the line
"""

from pathlib import Path


class CliError(Exception):
    """One sentence for the user and, where there is one, the next step. Ends the command with `exit_status`."""

    exit_status = 1

    def __init__(self, sentence: str, next_step: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.sentence} {self.next_step}".strip()


class Unreachable(CliError):
    """Nobody answered. It may pass by itself."""


class UsageError(CliError):
    """What the user wrote cannot be carried out as written."""

    exit_status = 2


class ManifestError(UsageError):
    """A manifest is wrong, at `file`:`line` (1-based; 0 when the line is not known)."""

    def __init__(self, file: str | Path, line: int, sentence: str, next_step: str = "") -> None:
        place = f"{file}:{line}" if line else str(file)
        super().__init__(f"{place}: {sentence}", next_step)
        self.file = str(file)
        self.line = line
