"""The parts of the node harness that need no root: what is pinned, what is cached, what is written to the firewall."""

import re
import tomllib
from pathlib import Path

import pytest

from tools import requirements
from tools.k8s import binaries, cache, images, kind, network, project, volumes
from tools.k8s.shell import HarnessError, run, wait_for

ROOT = Path(__file__).resolve().parents[2]


def test_every_staging_module_of_kubernetes_is_pinned_to_its_release() -> None:
    text = (binaries.GO / "kubernetes" / "go.mod").read_text()
    pinned = set(re.findall(r"^replace k8s\.io/\S+ => k8s\.io/\S+ (v\S+)", text, re.MULTILINE))
    assert pinned == {f"v{binaries.kubernetes_version().replace('1.', '0.', 1)}"}


def test_the_modules_need_no_newer_go_than_kubernetes_itself() -> None:
    for module in binaries.GO.glob("*/go.mod"):
        assert "\ngo 1.24.0\n" in module.read_text(), module


def test_the_cache_key_follows_names_and_contents(tmp_path: Path) -> None:
    one, two = tmp_path / "a", tmp_path / "b"
    one.write_text("x")
    two.write_text("x")
    assert cache.key([one]) == cache.key([one])
    assert len({cache.key([one]), cache.key([two]), cache.key([one, two]), cache.key([one], "more")}) == 4


def test_a_partition_of_two_nodes_drops_both_directions_and_nothing_else() -> None:
    rules = network.rules({(1, 3)})
    assert '"tenure1" . "tenure3"' in rules
    assert '"tenure3" . "tenure1"' in rules
    assert rules.count("drop") == 1


def test_a_partition_from_the_control_plane_drops_on_the_bridge_itself() -> None:
    rules = network.rules({(0, 2)})
    assert 'iifname { "tenure2" } drop' in rules
    assert 'oifname { "tenure2" } drop' in rules
    assert network.rules(set()).count("drop") == 0


def test_partitions_are_cut_and_healed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "run", lambda *_, **__: "")
    partitions = network.Partitions(tmp_path)
    partitions.cut(3, [1, 2])
    partitions.cut(2, [0])
    assert partitions.pairs() == {(1, 3), (2, 3), (0, 2)}
    partitions.heal(3)
    assert partitions.pairs() == {(0, 2)}
    partitions.heal(None)
    assert partitions.pairs() == set()


def test_an_image_is_imported_once(tmp_path: Path) -> None:
    archive, imported = tmp_path / "image.tar", []
    archive.write_text("first")
    for _ in range(2):
        images.import_into(tmp_path / "record", archive, lambda file: imported.append(file.read()))
    archive.write_text("changed")
    images.import_into(tmp_path / "record", archive, lambda file: imported.append(file.read()))
    assert imported == [b"first", b"changed"]


def test_every_node_has_volumes_of_its_own() -> None:
    text = volumes.manifest([1, 2])
    assert text.count('"PersistentVolume"') == 2 * volumes.PER_NODE
    assert '"storageclass.kubernetes.io/is-default-class": "true"' in text


def test_a_failed_program_says_what_it_printed() -> None:
    with pytest.raises(HarnessError, match="exit 3\nheard"):
        run("sh", "-c", "echo heard; exit 3")
    with pytest.raises(HarnessError, match="no-such-program is not installed"):
        run("no-such-program")
    assert run("no-such-program", check=False) == ""


def test_a_wait_ends_at_its_deadline() -> None:
    with pytest.raises(HarnessError, match="in vain for rain"):
        wait_for("rain", lambda: False, seconds=0.01, every=0.001)


def test_kind_is_chosen_only_where_all_of_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(kind, "run", lambda *_, **__: "")
    assert not kind.works(), "no answer from the Docker daemon"
    monkeypatch.setattr(kind, "run", lambda *_, **__: "27.0\n")
    assert kind.works()
    monkeypatch.setattr(kind.shutil, "which", lambda name: None if name == "kind" else f"/bin/{name}")
    assert not kind.works()


def test_the_image_installs_the_extras_with_what_they_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=\[]", requirement)[0] for requirement in requirements.requirements(project, ["daemon"])}
    assert {"pydantic", "msgspec", "grpcio", "pysyncobj"} <= names
    assert "tenure" not in names
    light = {re.split(r"[<>=\[]", requirement)[0] for requirement in requirements.requirements(project, [])}
    assert light == {"pydantic", "msgspec", "cronsim", "uvloop"}


def test_nothing_of_the_machine_reaches_an_image() -> None:
    """pip's configuration and certificates are secrets of the build; the context has no caches and no other folder."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert "COPY" not in "".join(line for line in (ROOT / "Dockerfile").read_text().splitlines() if "pip.conf" in line)


def test_the_example_names_the_image_that_is_built_for_it() -> None:
    assert f"image: {project.COUNTER.name}\n" in (ROOT / "examples/counter/cluster.yaml").read_text()
