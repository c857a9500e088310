"""Where the command line keeps its own files."""

from collections.abc import Mapping
from pathlib import Path


def state_home(environment: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/tenure`, by default `~/.local/state/tenure`."""
    base = environment.get("XDG_STATE_HOME")
    # The XDG base directory specification: a relative path is to be ignored.
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".local" / "state"
    return root / "tenure"


def dev_home(environment: Mapping[str, str]) -> Path:
    """Holds one directory per local cluster."""
    return state_home(environment) / "dev"


def dev_directory(environment: Mapping[str, str], name: str) -> Path:
    """Everything of the local cluster `name`."""
    return dev_home(environment) / name


def certificates(environment: Mapping[str, str]) -> Path:
    """Client certificates of clusters on Kubernetes, mode 0600, for an hour each."""
    return state_home(environment) / "certificates"
