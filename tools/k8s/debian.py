"""What the harness needs of Debian: installed when missing and possible, else named."""

import os
import shutil
from pathlib import Path

from tools.k8s.shell import HarnessError, Steps, run

_PROGRAMS = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "nft": "nftables",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "openssl": "openssl",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "mount": "mount",
}
_FILES = {"/usr/lib/cni/bridge": "containernetworking-plugins"}


def missing() -> list[str]:
    """Debian packages whose program or file is not there."""
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    wanted = [package for program, package in _PROGRAMS.items() if not shutil.which(program, path=search)]
    return wanted + [package for file, package in _FILES.items() if not Path(file).exists()]


def ensure(step: Steps) -> None:
    """Install what is missing. Raises HarnessError when this is not Debian, or not root."""
    if packages := missing():
        install(packages, step)
        if left := missing():
            raise HarnessError(f"apt-get installed them, and yet these are missing: {' '.join(left)}")


def install(packages: list[str], step: Steps) -> None:
    """Install packages. Raises HarnessError when this is not Debian, or not root."""
    if os.geteuid() or not shutil.which("apt-get"):
        raise HarnessError(
            f"Missing: {' '.join(packages)} (Debian's names). Install them, or run this as root on Debian."
        )
    step(f"installing {' '.join(packages)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-q", env=quiet)
    run("apt-get", "install", "-qy", "--no-install-recommends", *packages, env=quiet)
