"""One `kubectl port-forward` to a server pod, and how to find one that leads somewhere.

The API server calls the pods of a dead node Ready for a while, and kubectl then waits for as long as it is let. So
pods are tried one after the other, but nobody waits for the one before: the first that answers is taken.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence

from tenure_cli.errors import CliError
from tenure_cli.kube.kubectl import Kubectl, explain

API_PORT = 7443
ENROL_PORT = 7446
OPEN_S = 10.0
STAGGER_S = 0.7
"""How long a pod is waited for before the next one is tried beside it. A forward takes some 0.3 s to open."""
PROBE_TIMEOUT_S = 2.0

Ports = tuple[int, int]
"""Local ports for API and enrolment."""


class Tunnel:
    """One process of kubectl that forwards two ports to a pod."""

    def __init__(self, kubectl: Kubectl, namespace: str, pod: str, ports: Ports) -> None:
        self.pod = pod
        self.ports = ports
        self._kubectl = kubectl
        self._namespace = namespace
        self._process: asyncio.subprocess.Process | None = None

    async def open(self) -> None:
        """Return when kubectl says that it forwards. Raises CliError, in kubectl's words."""
        api, enrol = self.ports
        command = self._kubectl.command(
            "port-forward", "-n", self._namespace, "--address", "127.0.0.1", f"pod/{self.pod}",
            f"{api}:{API_PORT}", f"{enrol}:{ENROL_PORT}",
        )  # fmt: skip
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(OPEN_S):
                await self._opened(self._process)
        except TimeoutError:
            raise CliError(
                f"kubectl port-forward to {self.pod} did not open within {OPEN_S:g} s.",
                f"Check `kubectl get pod -n {self._namespace} {self.pod}`.",
            ) from None

    async def _opened(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None or process.stderr is None:
            raise RuntimeError("kubectl was started without pipes")
        for _ in range(2):  # one line for each port
            if not await process.stdout.readline():
                stderr = (await process.stderr.read()).decode(errors="replace")
                await process.wait()
                raise explain(stderr, self._kubectl.context, ("port-forward",))

    async def answers(self) -> bool:
        """Whether a TLS handshake completes. Nothing is sent and nothing believed: is anybody there?"""
        anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anybody.check_hostname = False
        anybody.verify_mode = ssl.CERT_NONE
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                _, writer = await asyncio.open_connection("127.0.0.1", self.ports[1], ssl=anybody)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    async def ended(self) -> None:
        """Return when kubectl has ended. Reads what it says meanwhile, or it would stop."""
        if self._process is not None:
            await asyncio.gather(_drain(self._process.stdout), _drain(self._process.stderr), self._process.wait())

    async def close(self) -> None:
        """End kubectl. Idempotent."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


async def first_that_answers(tunnels: Sequence[Callable[[], Tunnel]], stagger_s: float = STAGGER_S) -> Tunnel:
    """Open tunnels, each `stagger_s` seconds after the one before or as soon as that has failed; all but one end.

    The first whose server answers TLS is returned; if none does, the first that opened at all: whoever uses it will say
    what is wrong better than we can. Raises CliError, the last one's, when none opens. `tunnels` is not empty.
    """
    made: list[Tunnel] = []
    trying: dict[asyncio.Task[bool], Tunnel] = {}
    opened: list[Tunnel] = []
    failure: CliError | None = None
    kept: Tunnel | None = None
    try:
        while kept is None and (trying or len(made) < len(tunnels)):
            if len(made) < len(tunnels):
                made.append(tunnels[len(made)]())
                trying[asyncio.create_task(_tried(made[-1]))] = made[-1]
            wait_s = stagger_s if len(made) < len(tunnels) else None
            done, _ = await asyncio.wait(trying, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                tunnel = trying.pop(task)
                try:
                    if task.result():
                        kept = kept or tunnel
                    opened.append(tunnel)
                except CliError as error:
                    failure = error
        kept = kept or (opened[0] if opened else None)
    finally:
        for task in trying:
            task.cancel()
        await asyncio.gather(*trying, return_exceptions=True)
        await asyncio.gather(*(tunnel.close() for tunnel in made if tunnel is not kept))
    if kept is None:
        raise failure or CliError("There is no server to forward to.", "`kubectl get pods` shows them.")
    return kept


async def _tried(tunnel: Tunnel) -> bool:
    await tunnel.open()
    return await tunnel.answers()


async def _drain(stream: asyncio.StreamReader | None) -> None:
    while stream is not None and await stream.read(65536):
        pass
