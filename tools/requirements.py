"""Print the third-party requirements of the project and of some extras: `requirements.py PYPROJECT [EXTRA ...]`.

Used by the Dockerfile, which installs them in a layer of their own, before the project's code.
"""

import sys
import tomllib
from pathlib import Path


def requirements(project: dict[str, object], extras: list[str]) -> list[str]:
    """Requirements of `project` (pyproject.toml's table) with `extras`; an extra may name others of the project."""
    name, optional = str(project["name"]), project["optional-dependencies"]
    assert isinstance(optional, dict)
    assert isinstance(project["dependencies"], list)
    found: dict[str, None] = dict.fromkeys(project["dependencies"])
    queue = list(extras)
    while queue:
        for requirement in optional[queue.pop()]:
            if requirement.startswith(f"{name}["):
                queue += requirement.removeprefix(f"{name}[").rstrip("]").split(",")
            else:
                found[requirement] = None
    return list(found)


if __name__ == "__main__":
    print("\n".join(requirements(tomllib.loads(Path(sys.argv[1]).read_text())["project"], sys.argv[2:])))
