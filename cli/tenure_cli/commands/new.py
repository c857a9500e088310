"""`tenure new agent`: a small project that is complete."""

import keyword
import re
from importlib import resources
from pathlib import Path
from string import Template
from typing import Annotated

import typer

import tenure
from tenure_api.agentcluster import MAX_NAME
from tenure_cli.errors import CliError, UsageError
from tenure_cli.output import Format
from tenure_cli.render import data
from tenure_cli.runtime import runtime

_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_SUFFIX = ".tmpl"

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Begin a project.")


@app.command("agent")
def agent(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Of the project, its cluster and its first agent: letters, digits, -")],
    directory: Annotated[str, typer.Option("--dir", help="Where to; by default a new directory of that name.")] = "",
    class_: Annotated[str, typer.Option("--class", help="Of the agents; by default made of the name.")] = "",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Of the cluster and its agents.")] = "default",
    output: Annotated[Format, typer.Option("--output", "-o", help="table, json or yaml.")] = Format.TABLE,
) -> None:
    """Write a small project: an agent, its tests, and the manifests for a laptop and for Kubernetes.

    Nothing that is there is overwritten.

    Examples:

        tenure new agent order-desk

        tenure new agent order-desk --dir . --class Desk
    """
    shell = runtime(context)
    try:
        cls = class_ or "".join(part.capitalize() for part in name.split("-"))
        _check(name, cls, namespace)
        target = Path(directory or name)
        written = _write(target, {"name": name, "cls": cls, "namespace": namespace, "version": tenure.__version__})
    except CliError as error:
        shell.fail(error)
    following = [
        f"cd {target}",
        "pytest",
        "tenure dev -f .",
        f"tenure call {namespace}/{name}-1 add --text hello",
    ]
    if output in {Format.JSON, Format.YAML}:
        content = {"directory": str(target), "class": cls, "files": written, "next": following}
        print(data.to_json(content) if output is Format.JSON else data.to_yaml(content))
        return
    print(f"{target}: {', '.join(written)}")
    print("\n".join(f"  {line}" for line in following))


def _check(name: str, cls: str, namespace: str) -> None:
    """Raises UsageError for names that manifests or Python would refuse."""
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        sentence = f"{name!r} cannot be the name of a project:"
        raise UsageError(f"{sentence} at most {MAX_NAME} lower-case letters, digits and '-', a letter first.")
    if not _NAME.fullmatch(namespace):
        raise UsageError(f"{namespace!r} cannot be a namespace: lower-case letters, digits and '-', a letter first.")
    if not cls.isidentifier() or keyword.iskeyword(cls) or not cls[0].isupper():
        raise UsageError(f"{cls!r} cannot be the name of a class.", "For example: --class OrderDesk")


def _write(target: Path, values: dict[str, str]) -> list[str]:
    """The names of the files. Raises CliError, and writes nothing, if one of them is there or cannot be written."""
    templates = resources.files("tenure_cli") / "templates" / "agent"
    files = {one.name.removesuffix(_SUFFIX): one.read_text() for one in templates.iterdir()}
    if taken := sorted(name for name in files if (target / name).exists()):
        raise CliError(f"{target / taken[0]} exists already.", "Choose another directory with --dir.")
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            with (target / name).open("x") as file:
                file.write(Template(text).substitute(values))
    except OSError as error:
        raise CliError(f"{error.filename} cannot be written: {error.strerror}.") from error
    return sorted(files)
