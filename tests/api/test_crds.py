"""crds/ on a real API server: what is applied, what is refused, and the sentence that the user reads."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def agent(name: str = "counter-1", **spec: object) -> dict[str, Any]:
    return {
        "apiVersion": "tenure.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": name},
        "spec": {"class": "Counter", **spec},
    }


def pool(name: str = "default", **more: object) -> dict[str, Any]:
    return {"name": name, "image": "localhost/counter:1", "modules": ["agents"], **more}


def cluster(name: str = "demo", **spec: object) -> dict[str, Any]:
    return {
        "apiVersion": "tenure.dev/v1alpha1",
        "kind": "AgentCluster",
        "metadata": {"name": name},
        "spec": {"pools": [pool()], **spec},
    }


def test_the_generated_files_are_fresh() -> None:
    """What is committed is what the types say."""
    subprocess.run([sys.executable, "tools/gencrds.py", "--check"], cwd=ROOT, check=True)


def test_names_and_columns(crds: Any) -> None:
    """Short names, the category and the printed columns are those of the interface."""
    header = crds.kubectl("get", "ag,agc", "-A", check=False)
    assert header.returncode == 0
    definition = yaml.safe_load((ROOT / "crds" / "agents.yaml").read_text())
    columns = definition["spec"]["versions"][0]["additionalPrinterColumns"]
    assert [c["name"] for c in columns if not c.get("priority")] == [
        *("Ready", "Status", "Node", "Epoch", "Restarts", "Age")
    ]
    assert [c["name"] for c in columns if c.get("priority")] == [
        *("Class", "Pool", "DeadLetters", "LastFailover", "Reason")
    ]
    assert "tenure" in definition["spec"]["names"]["categories"]


def test_the_definitions_are_structural_and_established(crds: Any) -> None:
    for name in ("agents.tenure.dev", "agentclusters.tenure.dev"):
        conditions = {c["type"]: c for c in crds.get("crd", name)["status"]["conditions"]}
        assert conditions["Established"]["status"] == "True"
        assert "NonStructuralSchema" not in conditions, conditions


def test_defaults_are_filled_in(crds: Any) -> None:
    """A minimal Agent and AgentCluster read back with every default, nested ones too."""
    assert crds.apply(agent("defaults")).returncode == 0
    spec = crds.get("agent", "defaults")["spec"]
    assert spec["resources"] == {"requests": {"cpu": "100m", "memory": "128Mi"}}
    assert (spec["pool"], spec["critical"], spec["durability"], spec["reads"]) == ("default", True, "Quorum", "Local")
    assert spec["placement"] == {"strategy": "LoadBalanced"}
    assert spec["onExhausted"] == "DeadLetter"
    assert spec["delivery"] == {"maxAttempts": 5, "backoff": 0.1, "ttl": 300}
    assert "lifecycle" not in spec
    assert crds.apply(cluster("defaults")).returncode == 0
    spec = crds.get("agentcluster", "defaults")["spec"]
    assert spec["servers"]["replicas"] == 3
    assert spec["servers"]["storage"] == {"type": "PersistentVolumeClaim", "size": "5Gi", "reclaimPolicy": "Retain"}
    assert spec["lease"] == {"profile": "Balanced"}
    assert spec["stateStore"] == {"type": "Embedded"}
    assert spec["pools"][0]["workersPerHost"] == 1
    assert spec["pools"][0]["securityContext"] == {"runAsUser": 65532, "runAsGroup": 65532}


def test_everything_that_exists_is_accepted(crds: Any) -> None:
    """Each field of a pool and of the servers, once, with a value as in a pod."""
    full = pool(
        replicas=2,
        workersPerHost=2,
        maxAgentsPerHost=100,
        imagePullPolicy="IfNotPresent",
        imagePullSecrets=[{"name": "registry"}],
        resources={"requests": {"cpu": 1, "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}},
        env=[{"name": "A", "value": "b"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        envFrom=[{"configMapRef": {"name": "settings"}}],
        securityContext={"runAsUser": 1000},
        nodeSelector={"disk": "fast"},
        tolerations=[{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        affinity={"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        podMetadata={"labels": {"team": "a"}, "annotations": {"b": "c"}},
        terminationGracePeriodSeconds=30,
        capabilities=["gpu", "cuda:12"],
        taints=[{"key": "dedicated", "value": "db"}, {"key": "dedicated", "effect": "PreferNoSchedule"}],
    )
    spread = [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone"}]
    store = {
        "type": "PostgreSQL",
        "secretRef": {"name": "database", "key": "url"},
        "encryptionKeysRef": {"name": "state-keys", "key": "keys.txt"},
    }
    made = cluster("full", image="localhost/tenure:1", pools=[full], lease={"profile": "Fast"}, stateStore=store)
    made["spec"]["servers"] = {
        "replicas": 1,
        "topologySpreadConstraints": spread,
        "storage": {"storageClassName": "tenure-local", "size": "1Gi", "reclaimPolicy": "Delete"},
    }
    result = crds.apply(made)
    assert result.returncode == 0, result.stderr
    result = crds.apply(agent("full", capabilities=["billing"], placement=PLACEMENT, **WORKING))
    assert result.returncode == 0, result.stderr
    assert crds.get("agent", "full")["spec"]["placement"]["spread"][1] == {"by": "Host", "maxSkew": 1, "group": ""}


WORKING = {
    "reads": "Quorum",
    "onExhausted": "Pause",
    "delivery": {"maxAttempts": 3, "backoff": 1, "ttl": 60.5},
    "lifecycle": {"idleTimeout": 30},
}


def test_a_volatile_agent_is_accepted(crds: Any) -> None:
    assert crds.apply(agent("volatile", durability="Volatile", onExhausted="Pause")).returncode == 0


STRATEGIES = ["LoadBalanced", "CapabilityMatched", "LeaderOnly", "Random", "LocalPreferred", "Optimal"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_is_accepted(crds: Any, strategy: str) -> None:
    assert crds.apply(agent("strategy", placement={"strategy": strategy})).returncode == 0


PLACEMENT = {
    "strategy": "LocalPreferred",
    "nodeSelector": {"disk": "fast"},
    "requires": ["gpu"],
    "tolerations": [{"key": "dedicated", "value": "db"}, {"key": "spot"}],
    "spread": [{"by": "Zone", "maxSkew": 2, "group": "billing"}, {"by": "Host"}],
    "near": "shop/counter-1",
}

LATER = [
    {"operatingMode": "Running"},
    {"isolation": "Shared"},
    {"onExhausted": "Drop"},
    {"budget": {"tokensPerDay": 1}},
    {"durability": "Disk"},
    {"reads": "Any"},
    {"placement": {"strategy": "Pack"}},
]


@pytest.mark.parametrize("field", LATER, ids=json.dumps)
def test_a_later_field_is_refused(crds: Any, field: dict[str, object]) -> None:
    """A field or value that is not built does not pass: it would promise what nobody keeps."""
    result = crds.apply(agent("later", **field))
    assert result.returncode != 0
    name = next(iter(field))
    assert re.search(rf'unknown field "spec\.{name}"|spec\.{name}(\.strategy)?: Unsupported value', result.stderr)


@pytest.mark.parametrize("field", ["serviceAccountName", "isolation", "autoscaling"])
def test_a_later_field_of_a_pool_is_refused(crds: Any, field: str) -> None:
    result = crds.apply(cluster("later", pools=[pool(**{field: "x"})]))
    assert f'unknown field "spec.pools[0].{field}"' in result.stderr


def test_a_typo_is_refused_with_its_place(crds: Any) -> None:
    assert 'unknown field "spec.placment"' in crds.apply(agent("typo", placment={})).stderr
    assert "spec.class" in crds.apply({**agent("typo"), "spec": {}}).stderr


REFUSED = {
    "an even number of servers": (cluster("x", servers={"replicas": 2}), "Unsupported value: 2"),
    "no pool": (cluster("x", pools=[]), "should have at least 1 items"),
    "17 pools": (cluster("x", pools=[pool(f"p{n}") for n in range(17)]), "must have at most 16 items"),
    "two pools of one name": (cluster("x", pools=[pool(), pool()]), "Duplicate value"),
    "a pool without modules": (cluster("x", pools=[pool(modules=[])]), "should have at least 1 items"),
    "a path instead of a module": (cluster("x", pools=[pool(modules=["../etc"])]), "should match"),
    "a request above its limit": (
        cluster("x", pools=[pool(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1000m"}})]),
        "a request is higher than its limit",
    ),
    "a negative request": (
        cluster("x", pools=[pool(resources={"requests": {"cpu": "-1"}})]),
        "a request is negative",
    ),
    "a limit of zero": (cluster("x", pools=[pool(resources={"limits": {"cpu": 0}})]), "a limit is not above zero"),
    "no quantity": (cluster("x", servers={"storage": {"size": "much"}}), "should match"),
    "no bytes": (cluster("x", servers={"storage": {"size": "0"}}), "size is not above zero"),
    "a class for a volume in memory": (
        cluster("x", servers={"storage": {"type": "Ephemeral", "storageClassName": "fast"}}),
        "storageClassName makes no sense with type Ephemeral",
    ),
    "a database without its URL": (
        cluster("x", stateStore={"type": "PostgreSQL"}),
        "type PostgreSQL needs secretRef, with the URL of the database",
    ),
    "a URL without a database": (
        cluster("x", stateStore={"secretRef": {"name": "database", "key": "url"}}),
        "Embedded takes none",
    ),
    "a store that is not built": (cluster("x", stateStore={"type": "Redis"}), 'Unsupported value: "Redis"'),
    "root": (cluster("x", pools=[pool(securityContext={"runAsUser": 0})]), "greater than or equal to 1"),
    "a variable of Tenure's own": (
        cluster("x", pools=[pool(env=[{"name": "TENURE_NODE", "value": "a"}])]),
        "names that begin with TENURE_ are Tenure's own",
    ),
    "a value twice": (
        cluster("x", pools=[pool(env=[{"name": "A", "value": "a", "valueFrom": {"fieldRef": {"fieldPath": "b"}}}])]),
        "give either value or valueFrom, not both",
    ),
    "a value from nowhere": (
        cluster("x", pools=[pool(env=[{"name": "A", "valueFrom": {}}])]),
        "name exactly one of configMapKeyRef",
    ),
    "an environment from two places": (
        cluster("x", pools=[pool(envFrom=[{"configMapRef": {"name": "a"}, "secretRef": {"name": "b"}}])]),
        "name exactly one of configMapRef and secretRef",
    ),
    "a long name": (cluster("x" * 31), "the name is at most 30 lower-case letters"),
    "a name that no Service can have": (cluster("1st"), "begins with a letter"),
    "a path instead of a class": ({**agent(), "spec": {"class": "shop.Counter"}}, "should match"),
    "an agent that uses less than nothing": (
        agent("x", resources={"requests": {"cpu": "-1"}}),
        "a request is negative",
    ),
    "a skew of nothing": (
        agent("x", placement={"spread": [{"by": "Zone", "maxSkew": 0}]}),
        "greater than or equal to 1",
    ),
    "a spread by rack": (agent("x", placement={"spread": [{"by": "Rack"}]}), 'Unsupported value: "Rack"'),
    "a capability with a space": (agent("x", placement={"requires": ["a gpu"]}), "should match"),
    "a capability twice": (agent("x", capabilities=["a", "a"]), "Duplicate value"),
    "no attempt": (agent("x", delivery={"maxAttempts": 0}), "greater than or equal to 1"),
    "no time to deliver": (agent("x", delivery={"ttl": 0.5}), "greater than or equal to 1"),
    "a time with a unit": (agent("x", lifecycle={"idleTimeout": "1m"}), "must be of type number"),
    "sleep without a bed": (
        agent("x", durability="Volatile", lifecycle={"idleTimeout": 60}),
        "lifecycle.idleTimeout needs the durability Quorum",
    ),
    "asking servers that know nothing": (
        agent("x", durability="Volatile", reads="Quorum"),
        "reads Quorum needs the durability Quorum",
    ),
    "near without a strategy that looks at it": (
        agent("x", placement={"near": "node-a"}),
        "near needs the strategy LocalPreferred or Optimal",
    ),
    "a taint that evicts": (
        cluster("x", pools=[pool(taints=[{"key": "a", "effect": "NoExecute"}])]),
        'Unsupported value: "NoExecute"',
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_object_is_refused_with_a_sentence(crds: Any, case: str) -> None:
    manifest, sentence = REFUSED[case]
    result = crds.apply(manifest)
    assert result.returncode != 0
    assert sentence in result.stderr


def changed(manifest: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    made = copy.deepcopy(manifest)
    target = made["spec"]
    *parents, last = path.split(".")
    for part in parents:
        target = target.setdefault(part, {})
    target[last] = value
    return made


FIXED = {
    "the class": (agent("fixed"), "class", "Other", "class is immutable: delete the agent and create it anew"),
    "the number of servers": (cluster("fixed"), "servers.replicas", 5, "servers.replicas is immutable for now"),
    "the size of volumes": (
        cluster("fixed"),
        "servers.storage.size",
        "9Gi",
        "type, size and storageClassName are immut",
    ),
    "the profile": (cluster("fixed"), "lease.profile", "Calm", "lease.profile is immutable for now"),
    "the durability": (agent("kept"), "durability", "Volatile", "durability is immutable"),
    "where state is kept": (
        cluster("fixed"),
        "stateStore",
        {"type": "PostgreSQL", "secretRef": {"name": "database", "key": "url"}},
        "stateStore.type is immutable: the state of every agent would stay behind",
    ),
    "the cluster": (
        agent("placed", clusterRef={"name": "demo"}),
        "clusterRef",
        {"name": "other"},
        "clusterRef is immutable",
    ),
}


@pytest.mark.parametrize("case", FIXED)
def test_what_is_fixed_cannot_be_edited(crds: Any, case: str) -> None:
    manifest, path, value, sentence = FIXED[case]
    assert crds.apply(manifest).returncode == 0
    result = crds.apply(changed(manifest, path, value))
    assert result.returncode != 0
    assert sentence in result.stderr


def test_a_cluster_can_be_named_later(crds: Any) -> None:
    """Two clusters made a reference ambiguous: naming one is the way out."""
    assert crds.apply(agent("later-named")).returncode == 0
    assert crds.apply(agent("later-named", clusterRef={"name": "demo"})).returncode == 0


def test_status_is_a_subresource(crds: Any) -> None:
    """Who may edit the spec cannot write the status by the way."""
    crds.apply({**agent("status"), "status": {"phase": "Running"}})
    assert "status" not in crds.get("agent", "status")
