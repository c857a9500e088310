"""`tenured host`: reads the command line, runs the host until it is told to stop or its incarnation ends."""

from __future__ import annotations

import gc
import logging
import os
import signal
from pathlib import Path

from tenured.host.options import parse
from tenured.logs import set_up

COMM = Path("/proc/self/comm")
GO_VARIABLE = "TENURE_GO_FD"
"""Set by `tenured.supervisor` for a spare: the descriptor on which it waits."""
COLLECT = (5_000, 10, 10)
"""Python's collector of cycles looks at new objects after so many allocations, and at all but the oldest after so many
such looks. By its defaults (700, 10) most activations grow old before they end, and are garbage until it looks at
everything, which holds the loop for a millisecond per thousand agents.
"""
EXIT_GONE = 69
"""This incarnation was declared dead: the supervisor starts the next one, which registers anew (protocol 1, host 4)."""


def main(arguments: list[str]) -> int:
    """The exit status: 0 after a drain, EXIT_GONE, 1 when the host could not start."""
    options = parse(arguments)
    set_up(options.name, options.log_format)
    import uvloop  # noqa: PLC0415 - after the flags: a mistake in them is told at once

    from tenured.host.app import Host  # noqa: PLC0415
    from tenured.storage.errors import StorageError  # noqa: PLC0415

    if not _our_turn():
        return 0
    gc.freeze()  # what is imported lives as long as the process: a collection that looks at it takes 60 ms and more
    gc.set_threshold(*COLLECT)
    try:
        gone = uvloop.run(Host(options).run())
    except (OSError, StorageError) as error:
        logging.getLogger("tenured.host").error("cannot start: %s", error)  # noqa: TRY400 - a sentence, no traceback
        return 1
    return EXIT_GONE if gone else 0


def _our_turn() -> bool:
    """A spare waits here, everything imported, until its supervisor lets it go; False: it is not needed any more.

    The name in /proc/self/comm tells the daemon of a supervisor from its spare (docs/processes.md).
    """
    descriptor = os.environ.pop(GO_VARIABLE, "")
    if descriptor:
        COMM.write_text("tenured-spare")
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if not os.read(int(descriptor), 1):
            return False
        os.close(int(descriptor))
        signal.signal(signal.SIGINT, signal.default_int_handler)
    COMM.write_text("tenured-host")
    return True
