"""Container images without Docker or a registry: made by buildah, imported into the nodes from archives."""

import hashlib
import io
import json
import os
import shutil
import tarfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from tools.k8s import cache
from tools.k8s.nodeconfig import PAUSE_IMAGE
from tools.k8s.shell import Argument, run

_RECORDS = threading.Lock()


def pause_archive(state: Path, binaries: Path) -> Path:
    """An archive of an image with the pause program alone, written by hand: there is no registry to pull from."""
    path = state / "pause.tar"
    if path.exists():
        return path
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(binaries / "pause", "pause")
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE_IMAGE], "Layers": ["layer.tar"]}]
    files = {
        "layer.tar": layer.getvalue(),
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(path.with_suffix(".new"), "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    path.with_suffix(".new").rename(path)
    return path


def import_into(record: Path, archive: Path, importer: Callable[[IO[bytes]], object]) -> None:
    """Give `archive` to `importer` unless `record` says that this very file was imported before."""
    stat = archive.stat()
    entry = f"{archive.resolve()} {stat.st_size} {stat.st_mtime_ns}\n"
    if record.exists() and entry in record.read_text():
        return
    with archive.open("rb") as file:
        importer(file)
    with _RECORDS, record.open("a") as log:
        log.write(entry)


def buildah(*arguments: Argument, check: bool = True) -> str:
    """Run buildah on a storage of its own, which `clean` removes."""
    store = cache.directory()
    return run("buildah", "--root", store / "storage", "--runroot", store / "run", *arguments, check=check)


def exists(image: str) -> bool:
    return bool(buildah("images", "--format", "{{.ID}}", image, check=False).strip())


def remove_storage() -> None:
    """Remove every image; buildah's storage holds mounts that a plain removal of its files would trip over."""
    if shutil.which("buildah"):
        buildah("rm", "--all", check=False)
        buildah("rmi", "--all", "--force", check=False)


def build(context: Path, image: str, arguments: Mapping[str, str], *, target: str | None = None) -> None:
    """Build `image` from `<context>/Dockerfile`. What pip needs on this machine is a secret of the build only."""
    options: list[Argument] = ["--layers", "--isolation", "chroot", "--quiet", "-t", image]
    for name, value in arguments.items():
        options += ["--build-arg", f"{name}={value}"]
    for name, file in secrets().items():
        options += ["--secret", f"id={name},src={file}"]
    if target:
        options += ["--target", target]
    buildah("build", *options, context)


def export(image: str, archive: Path) -> Path:
    """Write `image` to an archive, unless that archive holds this very image already. Returns `archive`."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    identity, stamp = buildah("images", "--no-trunc", "--format", "{{.ID}}", image).strip(), archive.with_suffix(".id")
    if archive.exists() and stamp.exists() and stamp.read_text() == identity:
        return archive
    new = archive.with_suffix(".new")
    new.unlink(missing_ok=True)
    buildah("push", "--quiet", image, f"docker-archive:{new}:{image}")
    new.rename(archive)
    stamp.write_text(identity)
    return archive


def secrets() -> dict[str, Path]:
    """Files of this machine without which pip may reach nothing: its certificates, its configuration."""
    home = Path.home()
    candidates = {
        "pip": (
            os.environ.get("PIP_CONFIG_FILE"),
            home / ".config/pip/pip.conf",
            home / ".pip/pip.conf",
            "/etc/pip.conf",
        ),
        "ca": (os.environ.get("PIP_CERT"), "/etc/ssl/certs/ca-certificates.crt"),
    }
    existing = {name: [Path(p) for p in paths if p and Path(p).is_file()] for name, paths in candidates.items()}
    return {name: paths[0] for name, paths in existing.items() if paths}
