"""Static local volumes of the default class `tenure-local`, on each node's own disk: they survive `kill-node`."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

CLASS, PER_NODE = "tenure-local", 4
_STORAGE_CLASS = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": "kubernetes.io/no-provisioner",
    "volumeBindingMode": "WaitForFirstConsumer",
}


def name(n: int, slot: int) -> str:
    return f"node-{n}-{slot}"


def manifest(nodes: Iterable[int]) -> str:
    """The class and every node's volumes, for `kubectl apply`."""
    items = [_STORAGE_CLASS, *(_volume(n, slot) for n in nodes for slot in range(PER_NODE))]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def make_directories(home: Path) -> None:
    """Make the volumes' directories on the disk of the node at `home`; a `local` volume needs an existing one."""
    for slot in range(PER_NODE):
        directory = home / "var/lib/tenure-pv" / str(slot)
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o777)


def empty(home: Path, slot: int) -> None:
    shutil.rmtree(home / "var/lib/tenure-pv" / str(slot), ignore_errors=True)
    make_directories(home)


def _volume(n: int, slot: int) -> dict[str, object]:
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [f"node-{n}"]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name(n, slot)},
        "spec": {
            "capacity": {"storage": "100Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": CLASS,
            "local": {"path": f"/var/lib/tenure-pv/{slot}"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }
