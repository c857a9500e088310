"""A real PostgreSQL for tests: made by initdb in a directory of its own, on a loopback port, ended with the test.

Nothing here skips: where there is no PostgreSQL, the tests that need one fail with `MISSING`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg
from local_hosts import children
from local_servers import free_ports

MISSING = (
    "There is no PostgreSQL here, and the tests of the state store need one. Debian: apt-get install postgresql; "
    "elsewhere put its initdb on the PATH, or name its directory in TENURE_POSTGRES_BIN."
)
START_S = 30.0
USER = 65534
"""`nobody`"""


def binaries() -> Path | None:
    """The directory with initdb and postgres, of the newest version that is installed."""
    if given := os.environ.get("TENURE_POSTGRES_BIN"):
        return Path(given)
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if installed:
        return installed[-1].parent
    found = shutil.which("initdb")
    return None if found is None else Path(found).resolve().parent


class PostgresServer:
    """Use as an async context manager. PostgreSQL refuses to run as root: it runs as `nobody` then."""

    def __init__(self, **settings: str) -> None:
        found = binaries()
        assert found is not None, MISSING
        self._bin = found
        self._settings = settings
        # Not `user=` of subprocess: that forks, which gRPC in this process does not bear.
        self._prefix = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if os.geteuid() == 0 else []
        (self.port,) = free_ports(1)
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self.directory = Path(tempfile.mkdtemp(prefix="tenure-postgres-"))
        if self._prefix:
            os.chown(self.directory, USER, USER)
        try:
            await self._make()
            await self.start()
        except BaseException:
            shutil.rmtree(self.directory, ignore_errors=True)
            raise
        return self

    async def _make(self) -> None:
        await self._command("initdb", "--no-sync", "--username=tenure", "--auth=trust", "--encoding=UTF8", "-D", "data")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.thaw()
        await self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    async def start(self) -> None:
        """Starts it on its data, and waits until it answers."""
        settings = {"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": ""}
        settings |= {"shared_buffers": "16MB", "max_connections": "40", **self._settings}
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._prefix,
                self._bin / "postgres",
                "-D",
                "data",
                *flags,
                cwd=self.directory,
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(START_S):
            while True:
                try:
                    connection = await asyncpg.connect(self.url)
                except (OSError, asyncpg.PostgresError):
                    assert self._process.returncode is None, (self.directory / "log").read_text()
                    await asyncio.sleep(0.02)
                else:
                    await connection.close()
                    return

    async def kill(self) -> None:
        """kill -9 of the server and all its sessions: what was not synced to the kernel is gone.

        Until the last of them has ended: one that waits for its disk does so later, and the next server would find the
        memory that they shared still in use, and refuse to start.
        """
        if self._process is not None and self._process.returncode is None:
            _signal(self._process.pid, signal.SIGSTOP)  # it begins no session any more
            pids = self._pids()
            ends = [_end_of(pid) for pid in pids]
            for pid in pids:
                _signal(pid, signal.SIGKILL)
            await asyncio.gather(*ends, self._process.wait())

    def freeze(self) -> None:
        """SIGSTOP: silence without a reset."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        for pid in self._pids():
            os.kill(pid, signal.SIGCONT)

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    def url_at(self, port: int, schema: str = "public") -> str:
        """Through another port, of a proxy; with tables of its own."""
        return f"postgresql://tenure@127.0.0.1:{port}/postgres?sslmode=disable&search_path={schema}"

    async def sql(self, statement: str, *arguments: object, schema: str = "public") -> list[asyncpg.Record]:
        """What somebody with psql would do."""
        connection = await asyncpg.connect(self.url_at(self.port, schema))
        try:
            return await connection.fetch(statement, *arguments)
        finally:
            await connection.close()

    def _pids(self) -> list[int]:
        process = self._process
        return [] if process is None or process.returncode is not None else [process.pid, *children(process.pid)]

    async def _command(self, name: str, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *self._prefix, self._bin / name, *arguments, cwd=self.directory, stdout=-1, stderr=subprocess.STDOUT
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _end_of(pid: int) -> asyncio.Future[None]:
    """Done once this process, of whatever parent, has ended."""
    loop = asyncio.get_running_loop()
    end: asyncio.Future[None] = loop.create_future()
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        end.set_result(None)
        return end

    def ended() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        if not end.done():
            end.set_result(None)

    loop.add_reader(descriptor, ended)
    return end


class Standby(PostgresServer):
    """A copy of a running server, which follows it."""

    def __init__(self, primary: PostgresServer) -> None:
        super().__init__()
        self._primary = primary

    async def _make(self) -> None:
        source = f"--dbname=host=127.0.0.1 port={self._primary.port} user=tenure application_name=standby"
        await self._command("pg_basebackup", source, "--write-recovery-conf", "--checkpoint=fast", "-D", "data")


if __name__ == "__main__":  # what `make test` asks first
    sys.exit(None if binaries() else MISSING)
