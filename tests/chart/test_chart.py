"""charts/tenure, installed by helm on a real API server: rights, Pod Security, values that make no sense."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenure_api.agentcluster import AgentClusterSpec
from tenure_operator.resources import host_pods, server_statefulset
from tenure_operator.resources.cluster import Cluster
from tenure_operator.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
OPERATOR = "system:serviceaccount:tenure-system:tenure-operator"


def can(api: Any, verb: str, resource: str, *more: str) -> bool:
    resource, _, part = resource.partition("/")
    more = (*more, f"--subresource={part}") if part else more
    result = api.kubectl("auth", "can-i", verb, resource, "--as", OPERATOR, "-A", *more, check=False)
    return result.stdout.strip() == "yes"


ALLOWED = [
    ("patch", "agents.tenure.dev/status"),
    ("create", "statefulsets.apps"),
    ("get", "secrets"),
    ("create", "pods/eviction"),
]
FORBIDDEN = [
    ("list", "secrets"),
    ("delete", "secrets"),
    ("delete", "statefulsets.apps"),
    ("delete", "pods"),
    ("create", "pods"),
    ("delete", "persistentvolumeclaims"),
    ("create", "clusterroles.rbac.authorization.k8s.io"),
    ("escalate", "clusterroles.rbac.authorization.k8s.io"),
    ("delete", "agentclusters.tenure.dev"),
    ("patch", "nodes"),
    ("*", "*"),
]


@pytest.mark.parametrize(("verb", "resource"), ALLOWED)
def test_the_operator_may_do_its_work(installed: Any, verb: str, resource: str) -> None:
    assert can(installed, verb, resource)


@pytest.mark.parametrize(("verb", "resource"), FORBIDDEN)
def test_the_operator_may_do_no_more(installed: Any, verb: str, resource: str) -> None:
    assert not can(installed, verb, resource)


def test_no_rule_of_the_chart_has_a_wildcard(installed: Any) -> None:
    roles = installed.get("clusterroles", "-l", "helm.sh/chart")["items"]
    assert len(roles) == 4
    for role in roles:
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], role["metadata"]["name"]


def test_the_operator_can_bind_one_role_only(installed: Any) -> None:
    """Servers get the right to check tokens; nothing else can be handed out."""

    def bind(role: str) -> subprocess.CompletedProcess[str]:
        return installed.kubectl(
            *("create", "clusterrolebinding", f"try-{role}", f"--clusterrole={role}", "--user=x", "--as", OPERATOR),
            "--dry-run=server",
            check=False,
        )

    assert bind("tenure-server").returncode == 0
    assert "forbidden" in bind("cluster-admin").stderr
    assert "forbidden" in bind("tenure-edit").stderr


def test_editors_of_a_namespace_may_edit_agents(installed: Any) -> None:
    """The roles carry the labels that Kubernetes aggregates by (its controller does not run here)."""
    labels = installed.get("clusterrole", "tenure-edit")["metadata"]["labels"]
    assert labels["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    assert labels["rbac.authorization.k8s.io/aggregate-to-admin"] == "true"
    viewers = installed.get("clusterrole", "tenure-view")["metadata"]["labels"]
    assert viewers["rbac.authorization.k8s.io/aggregate-to-view"] == "true"


def test_definitions_are_those_of_crds_and_are_kept(installed: Any) -> None:
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        wanted = yaml.safe_load(path.read_text())
        found = installed.get("crd", wanted["metadata"]["name"])
        assert found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        columns = [version["additionalPrinterColumns"] for version in found["spec"]["versions"]]
        assert columns == [version["additionalPrinterColumns"] for version in wanted["spec"]["versions"]]
    subprocess.run([sys.executable, "tools/gencrds.py", "--check"], cwd=ROOT, check=True)


def templates(installed: Any) -> list[tuple[str, dict[str, Any]]]:
    spec = AgentClusterSpec.model_validate({"pools": [{"name": "default", "image": "i:1", "modules": ["m"]}]})
    made = Cluster(namespace="x", name="demo", uid="u", spec=spec, settings=Settings(image="tenure:1"))
    hooks = installed.helm("get", "hooks", "tenure", "-n", "tenure-system").stdout
    (job,) = [item for item in yaml.safe_load_all(hooks) if item and item["kind"] == "Job"]
    deployment = installed.get("deployment", "tenure", "-n", "tenure-system")
    return [
        ("server", server_statefulset.manifest(made, "d")["spec"]["template"]),
        ("host", host_pods.template(made, spec.pools[0])),
        ("operator", deployment["spec"]["template"]),
        ("cleanup", job["spec"]["template"]),
    ]


def test_every_pod_passes_pod_security_restricted(installed: Any) -> None:
    """The admission of the API server itself judges each pod in a namespace that enforces the profile."""
    installed.kubectl("create", "namespace", "strict")
    installed.kubectl("label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted")
    for name, template in templates(installed):
        spec = {key: value for key, value in template["spec"].items() if not key.startswith("serviceAccount")}
        if name == "server":
            spec["volumes"] = [*spec["volumes"], {"name": "data", "emptyDir": {}}]  # its claim, as a StatefulSet does
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        installed.kubectl("create", "serviceaccount", "default", "-n", "strict", check=False)
        result = installed.kubectl(
            "create", "--dry-run=server", "-n", "strict", "-f", "-", stdin=json.dumps(pod), check=False
        )
        assert result.returncode == 0, (name, result.stderr)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("image.repositry=x", "repositry"),
        ("operator.logFormat=yaml", "logFormat"),
        ("operator.statusWritesPerSecond=0", "statusWritesPerSecond"),
        ("replicas=3", "replicas"),
    ],
)
def test_values_that_make_no_sense_are_refused(installed: Any, value: str, sentence: str) -> None:
    result = installed.helm("upgrade", "tenure", "charts/tenure", "-n", "tenure-system", "--set", value, check=False)
    assert result.returncode != 0
    assert sentence in result.stderr


def test_the_operator_leaves_a_lost_node_after_ten_seconds_whatever_is_added(installed: Any) -> None:
    added = {"key": "dedicated", "operator": "Exists"}
    rendered = installed.helm(
        *("template", "tenure", "charts/tenure", "--show-only", "templates/deployment.yaml", "--kube-version=1.34"),
        *("--set-json", f"operator.tolerations={json.dumps([added])}"),
    ).stdout
    (deployment,) = yaml.safe_load_all(rendered)
    tolerations = deployment["spec"]["template"]["spec"]["tolerations"]
    seconds = {entry["key"]: entry.get("tolerationSeconds") for entry in tolerations}
    assert seconds == {
        "node.kubernetes.io/not-ready": 10,
        "node.kubernetes.io/unreachable": 10,
        "dedicated": None,
    }
    assert len(tolerations) == len(seconds), "one of each"


def test_the_notes_say_what_to_do_next(installed: Any) -> None:
    notes = installed.helm("get", "notes", "tenure", "-n", "tenure-system").stdout
    assert "kubectl apply -n shop -f examples/counter/cluster.yaml" in notes
    assert "no default StorageClass" in notes
    assert "type: Ephemeral" in notes


def test_the_example_is_accepted(installed: Any) -> None:
    example = ROOT / "examples" / "counter"
    installed.kubectl("create", "namespace", "shop", check=False)
    for file in ("cluster.yaml", "agents.yaml"):
        installed.kubectl("apply", "--validate=strict", "-n", "shop", "-f", str(example / file))
    installed.kubectl("delete", "agents,agentclusters", "--all", "-n", "shop")  # others share this API server
