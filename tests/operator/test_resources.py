"""What an AgentCluster owns: pods pass `restricted`, and the processes understand their command lines."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tenure_api import identity
from tenure_api.agentcluster import AgentClusterSpec
from tenure_operator.resources import accounts, certificates, disruption, host_pods, hosts, plan, server_statefulset
from tenure_operator.resources.cluster import Cluster
from tenure_operator.settings import Settings
from tenured.config import server_config
from tenured.host import options as host_options

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def cluster(servers: dict[str, Any] | None = None, pool: dict[str, Any] | None = None, **spec: Any) -> Cluster:
    given = {"name": "default", "image": "counter:1", "modules": ["agents", "shop.carts"], **(pool or {})}
    made = AgentClusterSpec.model_validate({"pools": [given], "servers": servers or {}, **spec})
    return Cluster(namespace="shop", name="demo", uid="u-1", spec=made, settings=Settings(image="tenure:1"))


def only_pool(made: Cluster) -> Any:
    return made.spec.pools[0]


def server_pod(made: Cluster) -> dict[str, Any]:
    return server_statefulset.manifest(made, "digest")["spec"]["template"]["spec"]


def host_pod(made: Cluster) -> dict[str, Any]:
    return host_pods.template(made, only_pool(made))["spec"]


@pytest.mark.parametrize("pod", [server_pod, host_pod])
def test_pods_are_restricted(pod: Any) -> None:
    """Pod Security `restricted`, and nothing can be written but volumes of the pod's own."""
    spec = pod(cluster())
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not any("hostPort" in port for port in container.get("ports", []))
    kinds = {key for volume in spec["volumes"] for key in volume if key != "name"}
    assert kinds <= {"emptyDir", "secret", "projected"}


def argv(container: dict[str, Any], environment: dict[str, str]) -> list[str]:
    """The command line as kubelet makes it."""
    words = [*container["command"], *container["args"]]
    for name, value in environment.items():
        words = [word.replace(f"$({name})", value) for word in words]
    assert not any("$(" in word for word in words), words
    return words


def test_the_server_understands_its_command_line() -> None:
    container = server_pod(cluster({"replicas": 3}, lease={"profile": "Calm"}))["containers"][0]
    words = argv(container, {"POD_NAME": "demo-server-1"})
    assert words[:2] == ["tenured", "server"]
    config = server_config(words[2:])
    assert config.name == "demo-server-1"
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/data", "/etc/tenure/authority", "/etc/tenure/tls/tls.key", "/etc/tenure/tls/ca.crt"} <= mounts


def test_the_host_understands_its_command_line() -> None:
    limits = {"limits": {"cpu": "1500m", "memory": "1Gi"}}
    made = cluster(pool={"workersPerHost": 2, "resources": limits, "terminationGracePeriodSeconds": 40})
    daemon = host_pod(made)["initContainers"][0]
    words = argv(daemon, {"POD_NAME": "demo-host-default-x", "POD_IP": "10.0.0.7", "NODE_NAME": "node-2"})
    assert words[:4] == ["tenured", "supervise", "--", "host"]
    options = host_options.parse(words[4:], {})
    assert (options.name, options.cluster, options.pool, options.node) == (
        *("demo-host-default-x", "shop/demo", "default", "node-2"),
    )
    assert dict(options.servers) == {f"demo-server-{n}": f"demo-server-{n}.demo-peers.shop.svc:7444" for n in range(3)}
    assert options.advertise == "10.0.0.7:7445"
    ports = {port["name"]: port["containerPort"] for port in daemon["ports"]}
    assert options.signals_port == ports["signals"] == 7448
    assert (options.cpu_milli, options.memory_bytes, options.workers) == (1500, 1 << 30, 2)
    assert options.exit_deadline_s == 35
    mounts = {mount["mountPath"] for mount in daemon["volumeMounts"]}
    assert str(options.token.parent) in mounts
    assert str(options.run) in mounts


def test_the_daemon_starts_first_and_stops_last() -> None:
    """A native sidecar with a startup probe: the worker starts when its socket listens."""
    spec = host_pod(cluster())
    (daemon,) = spec["initContainers"]
    assert daemon["restartPolicy"] == "Always"
    assert daemon["startupProbe"]
    (worker,) = spec["containers"]
    assert worker["command"] == ["python", "-m", "tenure.worker"]
    assert worker["args"] == ["--socket=/run/tenure/worker.sock", "--modules=agents,shop.carts"]


def test_no_token_reaches_the_worker() -> None:
    """The token to enrol with is mounted into the daemon alone."""
    spec = host_pod(cluster())
    assert spec["automountServiceAccountToken"] is False
    assert {mount["name"] for mount in spec["containers"][0]["volumeMounts"]} == {"run", "tmp"}
    (projected,) = [volume["projected"] for volume in spec["volumes"] if "projected" in volume]
    assert projected["sources"][0]["serviceAccountToken"]["audience"] == "tenure.dev/shop/demo"


def test_a_database_and_keys_reach_the_daemon_alone() -> None:
    """As directories of files, which follow their Secrets; nothing of it is on a command line or in the worker."""
    store = {
        "type": "PostgreSQL",
        "secretRef": {"name": "database", "key": "uri"},
        "encryptionKeysRef": {"name": "state-keys", "key": "k"},
    }
    spec = host_pod(cluster(stateStore=store))
    (daemon,) = spec["initContainers"]
    words = argv(daemon, {"POD_NAME": "a", "POD_IP": "10.0.0.7", "NODE_NAME": "n"})
    options = host_options.parse(words[4:], {})
    assert (options.store, options.cluster_uid, options.keys) == (
        "file:/var/run/secrets/tenure-store/url",
        "u-1",
        Path("/var/run/secrets/tenure-keys/keys"),
    )
    mounts = {mount["name"]: mount["mountPath"] for mount in daemon["volumeMounts"]}
    volumes = {volume["name"]: volume["secret"] for volume in spec["volumes"] if "secret" in volume}
    assert {name: (mounts[name], each["secretName"], each["items"]) for name, each in volumes.items()} == {
        "state-store": ("/var/run/secrets/tenure-store", "database", [{"key": "uri", "path": "url"}]),
        "state-keys": ("/var/run/secrets/tenure-keys", "state-keys", [{"key": "k", "path": "keys"}]),
    }
    assert {mount["name"] for mount in spec["containers"][0]["volumeMounts"]} == {"run", "tmp"}
    plain = host_pod(cluster())
    assert not [volume for volume in plain["volumes"] if "secret" in volume]
    assert not [word for word in plain["initContainers"][0]["args"] if word.startswith(("--store", "--keys"))]


def test_one_server_per_node_and_no_ordered_start() -> None:
    made = server_statefulset.manifest(cluster(), "d")["spec"]
    (term,) = made["template"]["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert made["podManagementPolicy"] == "Parallel"
    assert made["updateStrategy"] == {"type": "OnDelete"}
    single = server_statefulset.manifest(cluster({"replicas": 1}), "d")["spec"]
    assert "affinity" not in single["template"]["spec"]


@pytest.mark.parametrize(("policy", "deleted"), [("Retain", "Retain"), ("Delete", "Delete")])
def test_volumes_are_kept_or_deleted_as_asked(policy: str, deleted: str) -> None:
    made = server_statefulset.manifest(cluster({"storage": {"reclaimPolicy": policy}}), "d")["spec"]
    assert made["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == deleted
    assert made["volumeClaimTemplates"][0]["metadata"]["name"] == "data"


def test_ephemeral_storage_is_an_empty_directory() -> None:
    made = server_statefulset.manifest(cluster({"storage": {"type": "Ephemeral", "size": "1Gi"}}), "d")["spec"]
    assert "volumeClaimTemplates" not in made
    assert {"name": "data", "emptyDir": {"sizeLimit": "1Gi"}} in made["template"]["spec"]["volumes"]


def test_a_pool_is_a_daemonset_or_a_number_of_hosts() -> None:
    made = cluster()
    daemonset = hosts.manifest(made, only_pool(made))
    assert (daemonset["kind"], daemonset["metadata"]["name"]) == ("DaemonSet", "demo-host-default")
    assert daemonset["spec"]["updateStrategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    made = cluster(pool={"replicas": 2})
    assert hosts.manifest(made, only_pool(made))["kind"] == "Deployment"
    assert hosts.manifest(made, only_pool(made))["spec"]["replicas"] == 2
    assert plan.superfluous(made, [daemonset]) == [daemonset]


def test_a_single_server_has_no_budget() -> None:
    """It would block every drain for ever."""
    assert disruption.manifest(cluster({"replicas": 1})) is None
    budget = disruption.manifest(cluster())
    assert budget is not None
    assert budget["spec"]["maxUnavailable"] == 1


def test_servers_may_check_tokens_and_nothing_else() -> None:
    binding = accounts.token_review(cluster())
    assert binding["roleRef"]["name"] == "tenure-server"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "demo-server", "namespace": "shop"}]


# --- certificates ----------------------------------------------------------------------------------------------------


def secret(made: Cluster, now: datetime) -> tuple[identity.Authority, dict[str, Any]]:
    authority = certificates.read_authority(certificates.new_authority(made), "demo.shop")
    issued, new = certificates.current(made, authority, None, now)
    assert new
    return authority, certificates.server_tls(made, issued)


def test_certificates_last_until_two_thirds_of_their_life() -> None:
    made, now = cluster(), datetime.now(UTC)
    authority, written = secret(made, now)
    same, issued = certificates.current(made, authority, written, now)
    assert not issued
    later, issued = certificates.current(made, authority, written, now + timedelta(days=250))
    assert issued
    assert later.digest != same.digest


def test_each_server_has_a_certificate_of_its_own() -> None:
    _, written = secret(cluster(), datetime.now(UTC))
    assert sorted(written["data"]) == ["ca.crt"] + [
        f"demo-server-{n}.{kind}" for n in range(3) for kind in ("crt", "key")
    ]
    found = identity.parse_identity(base64.b64decode(written["data"]["demo-server-2.crt"]))
    assert found.uri == "spiffe://demo.shop/server/demo-server-2"


def test_another_authority_means_new_certificates() -> None:
    made, now = cluster(), datetime.now(UTC)
    _, written = secret(made, now)
    other = certificates.read_authority(certificates.new_authority(made), "demo.shop")
    assert certificates.current(made, other, written, now)[1]


@pytest.mark.parametrize("data", [{}, {"ca.crt": "AAAA", "ca.key": "AAAA"}, {"ca.crt": "%", "ca.key": "%"}])
def test_a_spoiled_authority_is_refused(data: dict[str, str]) -> None:
    with pytest.raises(certificates.BadSecret, match="demo-ca"):
        certificates.read_authority({"metadata": {"name": "demo-ca"}, "data": data}, "demo.shop")


def test_the_authority_of_another_cluster_is_refused() -> None:
    with pytest.raises(certificates.BadSecret, match=r"of demo\.shop, not of other\.shop"):
        certificates.read_authority(certificates.new_authority(cluster()), "other.shop")
