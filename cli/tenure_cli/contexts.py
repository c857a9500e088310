"""Which cluster a command talks to, and why. Pure but for the files that it is given to read.

The order is that of the SDK: `--context`, `TENURE_URL`, a running `tenure dev`, kubeconfig.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tenure_cli import paths
from tenure_cli.dev import state
from tenure_cli.errors import CliError

NO_CONTEXT = (
    "Start one with `tenure dev -f PATH`, set TENURE_URL, or give a kubeconfig (`kubectl config use-context NAME`)."
)


@dataclass(frozen=True)
class DevContext:
    """A local cluster that runs now; `file` is its cluster.json."""

    name: str
    file: Path
    why: str

    @property
    def label(self) -> str:
        """As `--context` takes it."""
        return f"dev/{self.name}"


@dataclass(frozen=True)
class UrlContext:
    """A cluster at the addresses of TENURE_URL."""

    url: str
    why: str

    @property
    def label(self) -> str:
        """As `tenure contexts` shows it."""
        return self.url


@dataclass(frozen=True)
class KubeContext:
    """A context of the kubeconfig; `context` is empty for its current one."""

    context: str
    why: str

    @property
    def label(self) -> str:
        """As `--context` takes it."""
        return f"kube/{self.context}" if self.context else "kube"


Context = DevContext | UrlContext | KubeContext


def running_dev(environment: Mapping[str, str]) -> list[DevContext]:
    """The local clusters that run now, by name; `dev`, the default name, first."""
    home = paths.dev_home(environment)
    if not home.is_dir():
        return []
    names = sorted((entry.name for entry in home.iterdir() if entry.is_dir()), key=lambda name: (name != "dev", name))
    return [
        DevContext(name, home / name / state.CLUSTER_FILE, f"the local cluster {name!r} runs")
        for name in names
        if state.is_running(home / name) and (home / name / state.CLUSTER_FILE).exists()
    ]


def has_kubeconfig(environment: Mapping[str, str]) -> bool:
    """Whether kubectl would find a kubeconfig."""
    named = environment.get("KUBECONFIG", "")
    files = [Path(part) for part in named.split(":") if part] or [Path.home() / ".kube" / "config"]
    return any(file.exists() for file in files) or "KUBERNETES_SERVICE_HOST" in environment


def choose(flag: str, environment: Mapping[str, str]) -> Context:
    """The context to use. Raises CliError when there is none, or not the one that was asked for."""
    running = running_dev(environment)
    if flag:
        return _by_flag(flag, running, environment)
    if url := environment.get("TENURE_URL"):
        return UrlContext(url, "TENURE_URL is set")
    if running:
        if len(running) > 1 and running[0].name != "dev":
            names = ", ".join(context.label for context in running)
            raise CliError(f"Several local clusters run: {names}.", "Choose one with `--context`.")
        return running[0]
    if has_kubeconfig(environment):
        return KubeContext("", "no local cluster runs, and there is a kubeconfig")
    raise CliError("There is no cluster to talk to.", NO_CONTEXT)


def _by_flag(flag: str, running: list[DevContext], environment: Mapping[str, str]) -> Context:
    kind, _, name = flag.partition("/")
    if kind == "kube":
        return KubeContext(name, "--context says so")
    if "://" in flag:
        return UrlContext(flag, "--context says so")
    wanted = name if kind == "dev" and name else flag
    for context in running:
        if context.name == wanted:
            return DevContext(context.name, context.file, "--context says so")
    if flag.startswith("dev/"):
        raise CliError(
            f"No local cluster called {wanted!r} runs.", f"Start it with `tenure dev --name {wanted} -f PATH`."
        )
    if has_kubeconfig(environment):
        return KubeContext(flag, "--context names no running local cluster, so it is one of the kubeconfig")
    raise CliError(f"There is no context called {flag!r}.", "`tenure contexts` lists what there is.")
