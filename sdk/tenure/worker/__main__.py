"""`python -m tenure.worker --socket PATH --modules shop.agents[,…]`. Each flag may come from the environment."""

from __future__ import annotations

import argparse
import os
import sys

from tenure.worker.config import Config
from tenure.worker.supervisor import Supervisor

DEFAULT_SOCKET = "/run/tenure/worker.sock"


def _config(argv: list[str]) -> Config:
    parser = argparse.ArgumentParser(
        prog="python -m tenure.worker", description="Runs the agents of one pool on one host."
    )
    parser.add_argument(
        "--socket",
        default=os.environ.get("TENURE_SOCKET", DEFAULT_SOCKET),
        help="the daemon's unix socket (TENURE_SOCKET; default %(default)s)",
    )
    parser.add_argument(
        "--modules",
        default=os.environ.get("TENURE_MODULES", ""),
        help="modules with agent classes, comma-separated (TENURE_MODULES)",
    )
    parser.add_argument(
        "--exit-deadline",
        type=float,
        default=float(os.environ.get("TENURE_EXIT_DEADLINE", "10")),
        metavar="SECONDS",
        help="after SIGTERM: how long to go on without a daemon (TENURE_EXIT_DEADLINE; default %(default)s)",
    )
    parser.add_argument(
        "--loop",
        choices=("uvloop", "asyncio"),
        default=os.environ.get("TENURE_LOOP", "uvloop"),
        help="event loop of the workers: asyncio for libraries that patch Python's own (TENURE_LOOP; default uvloop)",
    )
    options = parser.parse_args(argv)
    if options.loop not in {"uvloop", "asyncio"}:
        parser.error(f"TENURE_LOOP is {options.loop!r}: choose uvloop or asyncio")
    modules = tuple(name.strip() for name in options.modules.split(",") if name.strip())
    if not modules:
        parser.error("--modules names no module: which modules hold the pool's agent classes?")
    return Config(options.socket, modules, options.exit_deadline, options.loop)


def main() -> int:
    """Run until the daemon says Stop; the exit status."""
    return Supervisor(_config(sys.argv[1:])).run()


if __name__ == "__main__":
    sys.exit(main())
