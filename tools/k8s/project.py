"""The project's own images, for a cluster: the daemon's and the example's."""

from dataclasses import dataclass
from pathlib import Path

from tools.k8s import baseimage, images
from tools.k8s.shell import Steps

ROOT = Path(__file__).resolve().parents[2]
_ARCHIVES = ROOT / "build" / "images"


@dataclass(frozen=True)
class ProjectImage:
    """An image: the folder with its Dockerfile, the target in it, the image that it starts from (None: Python's)."""

    name: str
    context: Path
    target: str | None = None
    base: str | None = None


SDK = ProjectImage("localhost/tenure-sdk:dev", ROOT, target="sdk")
TENURED = ProjectImage("localhost/tenure:dev", ROOT, target="tenured")
COUNTER = ProjectImage("localhost/counter:1", ROOT / "examples" / "counter", base=SDK.name)
ALL = (SDK, TENURED, COUNTER)  # in the order in which they need one another
DEPLOYED = (TENURED, COUNTER)


def build(step: Steps) -> list[Path]:
    """Build the images with buildah, and return the archives of those that nodes need."""
    python = baseimage.ensure(step)
    for image in ALL:
        images.build(image.context, image.name, {"BASE_IMAGE": image.base or python}, target=image.target)
        step(f"image {image.name}")
    return [
        images.export(image.name, _ARCHIVES / f"{image.name.split('/')[1].split(':')[0]}.tar") for image in DEPLOYED
    ]
