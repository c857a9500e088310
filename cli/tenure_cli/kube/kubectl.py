"""Runs kubectl, and says in one sentence what went wrong."""

import asyncio
import json
import re
import shutil
from dataclasses import dataclass
from typing import Any

from tenure_cli.errors import CliError

DEADLINE_S = 30.0


@dataclass(frozen=True)
class Kubectl:
    """kubectl with one context of the kubeconfig; the empty one is the current."""

    context: str = ""

    def command(self, *arguments: str) -> list[str]:
        """The whole command line. Raises CliError when kubectl is not installed."""
        binary = shutil.which("kubectl")
        if binary is None:
            raise CliError(
                "kubectl is not installed, and the context is one of Kubernetes.",
                "Install it (https://kubernetes.io/docs/tasks/tools/), or start a local cluster with `tenure dev`.",
            )
        return [binary, *(["--context", self.context] if self.context else []), *arguments]

    async def run(self, *arguments: str, stdin: str | None = None, timeout_s: float = DEADLINE_S) -> str:
        """Standard output. Raises CliError with a sentence of ours."""
        process = await asyncio.create_subprocess_exec(
            *self.command(*arguments),
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(timeout_s):
                out, err = await process.communicate(stdin.encode() if stdin is not None else None)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise CliError(
                f"kubectl {arguments[0]} did not answer within {timeout_s:g} s.",
                "Check that the API server can be reached: `kubectl get --raw /readyz`.",
            ) from None
        if process.returncode:
            raise explain(err.decode(errors="replace"), self.context, arguments)
        return out.decode(errors="replace")

    async def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get ... -o json`, decoded."""
        return json.loads(await self.run("get", *arguments, "-o", "json"))  # type: ignore[no-any-return]


_FORBIDDEN = re.compile(
    r'User "(?P<user>[^"]+)" cannot (?P<verb>\S+) resource "(?P<what>[^"]+)"'
    r'.*?(?:in the namespace "(?P<where>[^"]+)")?$',
    re.MULTILINE,
)
_UNREACHABLE = (
    "was refused",
    "Unable to connect to the server",
    "no route to host",
    "i/o timeout",
    "connection refused",
)
_NOT_INSTALLED = ("the server doesn't have a resource type", "no matches for kind")
_UNAUTHORIZED = ("Unauthorized", "You must be logged in", "the server has asked for the client to provide credentials")


def explain(stderr: str, context: str, arguments: tuple[str, ...]) -> CliError:
    """Our words for what kubectl said. Pure."""
    name = f"the context {context!r}" if context else "the current context"
    last = _last(stderr)
    if "does not exist" in last and "context" in last:
        return CliError(f"The kubeconfig has no context {context!r}.", "`tenure contexts` lists those that there are.")
    if any(sign in stderr for sign in _NOT_INSTALLED):
        return CliError(
            "Tenure is not installed in this Kubernetes cluster: it does not know Agent and AgentCluster.",
            "helm install tenure charts/tenure -n tenure-system --create-namespace --wait",
        )
    if any(sign in stderr for sign in _UNREACHABLE):
        return CliError(
            f"The Kubernetes API server of {name} does not answer.",
            "Check `kubectl cluster-info`, or choose another with `--context`.",
        )
    if any(sign in stderr for sign in _UNAUTHORIZED):
        return CliError(
            f"Kubernetes does not accept the credentials of {name}.", "Log in again, then repeat the command."
        )
    if found := _FORBIDDEN.search(stderr):
        where = f" in namespace {found['where']}" if found["where"] else ""
        sentence = f"Kubernetes does not let {found['user']} {found['verb']} {found['what']}{where}."
        return CliError(sentence, "Ask for a RoleBinding that allows it.")
    return CliError(f"kubectl {arguments[0]} failed: {last or 'it gave no reason'}.")


def _last(stderr: str) -> str:
    """The last line that says something, without kubectl's own prefixes."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if not lines:
        return ""
    text = re.sub(r"^(error|Error from server \([A-Za-z]+\)|Error from server|Error): ?", "", lines[-1])
    return text.rstrip(".")
