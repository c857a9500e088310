"""`tenured host`: reads the command line, runs the host until it is told to stop or its incarnation ends."""

from __future__ import annotations

import logging

from tenured.host.options import parse
from tenured.logs import set_up

EXIT_GONE = 69
"""This incarnation was declared dead: the supervisor starts the next one, which registers anew (protocol 1, host 4)."""


def main(arguments: list[str]) -> int:
    """The exit status: 0 after a drain, EXIT_GONE, 1 when the host could not start."""
    options = parse(arguments)
    set_up(options.name, options.log_format)
    import uvloop  # noqa: PLC0415 - after the flags: a mistake in them is told at once

    from tenured.host.app import Host  # noqa: PLC0415

    try:
        gone = uvloop.run(Host(options).run())
    except OSError as error:
        logging.getLogger("tenured.host").error("cannot start: %s", error)  # noqa: TRY400 - a sentence, no traceback
        return 1
    return EXIT_GONE if gone else 0
