"""`python -m tenure_operator`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import kopf

from tenure_operator import main, settings


def start() -> int:
    """Run the operator with the settings of the environment. Returns the exit status."""
    try:
        chosen = settings.from_environment(os.environ)
    except settings.BadSettings as error:
        print(error, file=sys.stderr)  # noqa: T201 - there is no log yet
        return 2
    kopf.configure(log_format=kopf.LogFormat.JSON if chosen.json_logs else kopf.LogFormat.FULL)
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # "handler succeeded" for every event
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for every request otherwise
    asyncio.run(main.run(chosen))
    return 0


if __name__ == "__main__":
    sys.exit(start())
