"""A far side in a process of its own, for benches of links: its certificates, its port, its processor time."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from tenure_api import identity
from tenure_api.identity import Role


def cpu() -> float:
    """Processor seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def write_identities(directory: Path, cluster: str, role: Role) -> None:
    """Certificates of one authority in `near` and `far`, for holders of these names."""
    authority = identity.make_authority(cluster)
    for name in ("near", "far"):
        issued = identity.issue_with_key(authority, role, name)
        (directory / name).mkdir()
        (directory / name / "ca.crt").write_bytes(authority.certificate_pem)
        (directory / name / "tls.crt").write_bytes(issued.certificate_pem)
        (directory / name / "tls.key").write_bytes(issued.key_pem)


async def tell(port: int) -> None:
    """Of the far side: print the port, and the processor seconds whenever a line comes in; until input ends."""
    print(port, flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(cpu(), flush=True)


class Far:
    """A far side that runs."""

    def __init__(self, stdin: asyncio.StreamWriter, stdout: asyncio.StreamReader, port: int) -> None:
        self.port = port
        self._stdin, self._stdout = stdin, stdout

    async def both_cpu(self) -> float:
        """Processor seconds of it and of this process together."""
        self._stdin.write(b"\n")
        return cpu() + float(await self._stdout.readline())


@asynccontextmanager
async def running(module: str, kind: str, directory: Path) -> AsyncGenerator[Far]:
    """`python -m MODULE --serve KIND`, until the end of the block."""
    command = [sys.executable, "-m", module, "--serve", kind, "--tls", str(directory / "far")]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the far side has no pipes")
    yield Far(process.stdin, process.stdout, int(await process.stdout.readline()))
    process.stdin.close()
    await process.wait()
