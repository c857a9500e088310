"""`tenured server|host|supervise`: picks the role and imports nothing else, so that each starts as fast as it can."""

from __future__ import annotations

import sys

USAGE = """usage: tenured ROLE ...

  server      votes, holds the registry and the state store
  host        holds agents, talks to servers and to the workers of its pod
  supervise   starts a host and restarts it: tenured supervise [--worker-modules a,b] -- host ...

`tenured ROLE --help` shows the flags of a role."""


def main() -> int:
    """The console script. Returns the exit status."""
    role, arguments = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    if role == "supervise":
        from tenured.supervisor import process  # noqa: PLC0415

        return process.main(arguments)
    if role == "host":
        from tenured.host import main as host  # noqa: PLC0415

        return host.main(arguments)
    if role == "server":
        from tenured.server import main as server  # noqa: PLC0415

        return server.main(arguments)
    print(USAGE, file=sys.stdout if role in ("-h", "--help", "help") else sys.stderr)
    return 0 if role in ("-h", "--help", "help") else 2


if __name__ == "__main__":
    sys.exit(main())
