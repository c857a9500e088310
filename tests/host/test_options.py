"""The command line of a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tenured.host.options import parse

FLAGS = [
    "--name",
    "h",
    "--cluster",
    "shop/demo",
    "--pool",
    "default",
    "--node",
    "n",
    "--server",
    "s0=127.0.0.1:1",
    "--server",
    "s1=127.0.0.1:2",
    "--enrol",
    "127.0.0.1:3",
    "--token",
    "/t/token",
    "--advertise",
    "127.0.0.1:4",
    "--run",
    "/r",
]


def test_flags() -> None:
    """What architecture.md lists; the authority's certificate lies beside the token unless told otherwise."""
    options = parse(FLAGS, {})
    assert options.servers == {"s0": "127.0.0.1:1", "s1": "127.0.0.1:2"}
    assert (options.ca, options.profile.name, options.workers) == (Path("/t/ca.crt"), "Balanced", 1)
    assert parse([*FLAGS, "--ca", "/c"], {}).ca == Path("/c")
    assert parse([*FLAGS, "--label", "a=b"], {}).labels == {"a": "b"}
    assert parse([*FLAGS, "--capability", "gpu", "--capability", "ssd"], {}).capabilities == ("gpu", "ssd")
    assert parse(FLAGS, {"TENURE_CAPABILITY": "gpu,ssd"}).capabilities == ("gpu", "ssd")


def test_environment() -> None:
    """Every flag can be given as TENURE_<FLAG>; lists are comma-separated; a flag wins."""
    environment = {
        "TENURE_NAME": "e",
        "TENURE_SERVER": "s0=a:1,s1=b:2",
        "TENURE_HTTP_PORT": "9",
        "TENURE_EXIT_DEADLINE": "3",
    }
    without = [flag for flag in FLAGS if flag not in ("--server", "s0=127.0.0.1:1", "s1=127.0.0.1:2")]
    options = parse(without, environment)
    assert options.servers == {"s0": "a:1", "s1": "b:2"}
    assert parse(FLAGS, environment).servers == {"s0": "127.0.0.1:1", "s1": "127.0.0.1:2"}
    assert (options.name, options.http_port, options.exit_deadline_s) == ("h", 9, 3.0)


def test_where_state_is_kept(tmp_path: Path) -> None:
    """A password is in the environment or in a file, which is read at each use, and in no printed options."""
    assert (parse(FLAGS, {}).store, parse(FLAGS, {}).keys, parse(FLAGS, {}).compress) == ("", None, True)
    url = "postgresql://tenure:secret@db/tenure"
    given = parse([*FLAGS, "--compress", "off"], {"TENURE_STORE": url, "TENURE_KEYS": "/k"})
    assert (given.store_url(), given.keys, given.compress) == (url, Path("/k"), False)
    assert "secret" not in repr(given)
    path = tmp_path / "url"
    by_file = parse([*FLAGS, "--store", f"file:{path}"], {})
    for password in ("one", "two"):
        path.write_text(f"postgresql://tenure:{password}@db/tenure\n")
        assert by_file.store_url() == f"postgresql://tenure:{password}@db/tenure"


def test_a_store_that_is_none_is_refused_without_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(FLAGS, {"TENURE_STORE": "mysql://tenure:secret@db"})
    said = capsys.readouterr().err
    assert "--store: expected postgresql://" in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--server", "nonsense"], "--server: 'nonsense' is not NAME=HOST:PORT"),
        (["--profile", "Brisk"], "none of Fast, Balanced, Calm"),
        (["--port", "many"], "--port: 'many' is not a port"),
        (["--worker-uid", "root"], "--worker-uid: 'root' is no user id"),
        (["--nmae", "x"], "unrecognized"),
        (["--log-format", "xml"], "none of text, json"),
        (["--compress", "some"], "none of on, off"),
    ],
)
def test_what_makes_no_sense_is_told_in_a_sentence(
    flags: Any, sentence: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2."""
    with pytest.raises(SystemExit) as caught:
        parse([*FLAGS, *flags], {})
    assert caught.value.code == 2
    assert sentence in capsys.readouterr().err


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Not found out later by a KeyError."""
    with pytest.raises(SystemExit):
        parse(["--name", "h"], {})
    assert "--cluster" in capsys.readouterr().err
