"""The stand-in for `python:3.13-slim` where no registry can be reached: a minimal Debian by debootstrap, with a Python.

A Python 3.13 of pyenv, built on this machine and so for the same release, is copied to /usr/local; without one it is
Debian's own Python. Kept in the cache as an archive (about a minute and a half to make).
"""

import os
import re
import shutil
import tempfile
from pathlib import Path

from tools.k8s import cache, images
from tools.k8s.shell import HarnessError, Steps, run

_RECIPE = "1"  # part of the image's name: count up with every change of what it holds
_LIBRARIES = "libssl3 libffi8 libsqlite3-0 libbz2-1.0 liblzma5 libreadline8 libncursesw6 libuuid1 zlib1g libexpat1"
_DEBIAN_PYTHON = "python3 python3-venv python3-pip"
_DOCKERFILE = 'FROM scratch\nADD root.tar /\nENV LANG=C.UTF-8 PATH=/usr/local/bin:/usr/bin:/bin\nCMD ["python3"]\n'


def ensure(step: Steps) -> str:
    """The name of the base image in buildah's storage, made if need be. Raises HarnessError when debootstrap cannot."""
    prefix = _pyenv_python()
    image = f"localhost/tenure-base:{cache.key([], _RECIPE, str(prefix), _release())}"
    with cache.lock("base"):
        if not images.exists(image):
            with tempfile.TemporaryDirectory(dir=cache.directory()) as work:
                python = prefix.name if prefix else "its own Python"
                step(f"making the base image: Debian with {python} (1 to 2 minutes, once)")
                _bootstrap(Path(work, "root"), prefix)
                context = Path(work, "context")
                context.mkdir()
                run("tar", "-C", Path(work, "root"), *_excluded(), "-cf", context / "root.tar", ".")
                (context / "Dockerfile").write_text(_DOCKERFILE)
                images.build(context, image, {})
                step("base image made")
    return image


def _excluded() -> list[str]:
    parts = ["proc", "sys", "dev", "var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"]
    return [f"--exclude=./{part}/*" for part in [*parts, "usr/share/locale"]]


def _pyenv_python() -> Path | None:
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    named = [path for path in (root / "versions").glob("3.13.*") if path.name.split(".")[2].isdigit()]
    found = [path for path in named if (path / "bin/python3.13").exists()]
    return max(found, key=lambda path: int(path.name.split(".")[2]), default=None)


def _release() -> str:
    found = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    if not found or not shutil.which("debootstrap"):
        raise HarnessError("The base image is made by debootstrap on Debian; this is no Debian, or has no debootstrap.")
    return found[1]


def _bootstrap(root: Path, prefix: Path | None) -> None:
    release = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    if not release or not shutil.which("debootstrap"):
        raise HarnessError(
            "The base image is made by debootstrap on Debian; this machine is not one, or has no debootstrap."
        )
    include = ",".join(["ca-certificates", *(_LIBRARIES if prefix else _DEBIAN_PYTHON).split()])
    run("debootstrap", "--variant=minbase", f"--include={include}", _release(), root, *_mirror())
    if prefix:
        _install_python(prefix, root)
    else:
        (root / "usr/bin/python").symlink_to("python3")
        for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            marker.unlink()
    for name in ("resolv.conf", "hostname"):
        (root / "etc" / name).unlink(missing_ok=True)


def _mirror() -> list[str]:
    """The mirror that this machine's apt uses; debootstrap has a default."""
    for path in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        if path.exists() and (
            found := re.search(r"^(?:URIs:|deb(?: \[[^]]*\])?)\s+(\S+)", path.read_text(), re.MULTILINE)
        ):
            return [found[1]]
    return []


def _install_python(prefix: Path, root: Path) -> None:
    local = root / "usr/local"
    leave_out = shutil.ignore_patterns("__pycache__", "test", "idlelib", "turtledemo", "config-3*", "*.a", "pkgconfig")
    for part in ("bin", "lib"):
        shutil.copytree(prefix / part, local / part, symlinks=True, ignore=leave_out, dirs_exist_ok=True)
    for site in local.glob("lib/python3*/site-packages"):  # what somebody installed into this Python is not ours
        for entry in site.iterdir():
            if not entry.name.startswith("pip"):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for script in (local / "bin").iterdir():
        if script.is_symlink():
            continue
        content = script.read_bytes()
        if content.startswith(f"#!{prefix}/bin/".encode()):
            script.write_bytes(content.replace(f"#!{prefix}/bin/".encode(), b"#!/usr/local/bin/", 1))
    run("chroot", root, "/sbin/ldconfig")
