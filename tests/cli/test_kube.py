"""kubectl's words in ours, and the choice of cluster and server."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tenure._remote import Endpoint
from tenure_api import identity
from tenure_cli.errors import CliError
from tenure_cli.kube import certificate, discovery
from tenure_cli.kube.discovery import ClusterRef
from tenure_cli.kube.forward import Forward
from tenure_cli.kube.kubectl import Kubectl, explain
from tenure_cli.remote import fits

FORBIDDEN = (
    'Error from server (Forbidden): serviceaccounts "counter-client" is forbidden: User "ann" cannot create resource '
    '"serviceaccounts/token" in API group "" in the namespace "shop"'
)


@pytest.mark.parametrize(
    ("stderr", "sentence"),
    [
        ("The connection to the server 10.0.0.1:6443 was refused - did you specify the right host", "does not answer"),
        ("Unable to connect to the server: dial tcp 10.0.0.1:6443: i/o timeout", "does not answer"),
        ('error: the server doesn\'t have a resource type "agentclusters"', "Tenure is not installed"),
        ('error: context "prod" does not exist', "The kubeconfig has no context 'prod'."),
        ("error: You must be logged in to the server (Unauthorized)", "does not accept the credentials"),
        (FORBIDDEN, "Kubernetes does not let ann create serviceaccounts/token in namespace shop."),
        ('Error from server (NotFound): pods "x" not found', 'kubectl get failed: pods "x" not found.'),
        ("", "kubectl get failed: it gave no reason."),
    ],
)
def test_kubectls_errors_become_one_sentence(stderr: str, sentence: str) -> None:
    """Whatever kubectl says, the user reads what it means and what to do."""
    assert sentence in explain(stderr, "prod", ("get",)).sentence


def test_the_only_cluster_is_chosen() -> None:
    """None and several are errors with a way out."""
    one = {"metadata": {"namespace": "shop", "name": "counter"}}
    two = {"metadata": {"namespace": "shop", "name": "other"}}
    assert discovery.choose({"items": [one]}, "Namespace shop") == ClusterRef("shop", "counter")
    with pytest.raises(CliError, match="Namespace shop has no AgentCluster"):
        discovery.choose({"items": []}, "Namespace shop")
    with pytest.raises(CliError, match="several AgentClusters: shop/counter, shop/other"):
        discovery.choose({"items": [one, two]}, "Namespace shop")


def test_servers_that_run_and_stay_are_tried_the_ready_ones_first() -> None:
    """After an outage of the API server no pod counts as Ready for a while, and all of them answer."""

    def pod(name: str, ready: str, phase: str = "Running", **metadata: str) -> dict[str, object]:
        return {
            "metadata": {"name": name} | metadata,
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]},
        }

    pods = [pod("b", "False"), pod("a", "True"), pod("c", "True", deletionTimestamp="now"), {"metadata": {"name": "d"}}]
    assert discovery.reachable_pods([*pods, pod("e", "False", "Pending")]) == ["a", "b"]


def test_a_kept_certificate_lasts_an_hour_and_is_private(tmp_path: Path) -> None:
    """Mode 0600; not used when the cluster has another authority, nor when it is torn."""
    authority = identity.make_authority("counter.shop")
    issued = identity.issue_with_key(authority, identity.Role.CLIENT, "ann")
    made = Endpoint("shop/counter", (), authority.certificate_pem, issued.certificate_pem, issued.key_pem)
    file = tmp_path / "kept" / "counter.json"
    certificate.store(file, made)
    assert file.stat().st_mode & 0o777 == 0o600
    now = file.stat().st_mtime
    assert certificate.load(file, authority.certificate_pem, now + 3500) == (issued.certificate_pem, issued.key_pem)
    assert certificate.load(file, authority.certificate_pem, now + 3700) is None
    assert certificate.load(file, b"another", now) is None
    file.write_text("{")
    assert certificate.load(file, authority.certificate_pem, now) is None


def test_a_strangers_certificate_does_not_fit() -> None:
    """It is found before a server is asked."""
    ours, theirs = identity.make_authority("counter.shop"), identity.make_authority("counter.shop")
    issued = identity.issue_with_key(theirs, identity.Role.CLIENT, "ann")
    assert fits(issued.certificate_pem, theirs.certificate_pem)
    assert not fits(issued.certificate_pem, ours.certificate_pem)


KUBECTL = """#!{python}
import os, signal, socket, ssl, sys, time
with open({log!r}, "a") as log:
    log.write(str(os.getpid()) + " " + " ".join(sys.argv[1:]) + "\\n")
pod = next(word for word in sys.argv if word.startswith("pod/"))
with open({log!r}) as log:
    again = log.read().count("pod/leaving") > 1
if pod == "pod/closed" or pod == "pod/leaving" and again:
    sys.exit("error: unable to forward port because pod is not running. Current status=Pending")
if pod == "pod/hung":  # its node is dead, and the API server does not know yet
    time.sleep(600)
ends = []
if pod != "pod/silent":  # a server that answers TLS
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain({tls!r})
    ends = [tls.wrap_socket(socket.create_server(("127.0.0.1", int(sys.argv[-1].split(":")[0]))), server_side=True)]
print("Forwarding from 127.0.0.1:1 -> 7443\\nForwarding from 127.0.0.1:2 -> 7446", flush=True)
for number in range(1 if pod == "pod/leaving" else 10**9 if ends else 0):
    try:
        ends[0].accept()
    except OSError:
        pass
time.sleep(0 if pod == "pod/leaving" else 600)
"""


@pytest.fixture
def kubectl_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubectl that writes down how it was called; pods behave as they are named."""
    log = tmp_path / "calls"
    program = tmp_path / "kubectl"
    issued = identity.issue_with_key(identity.make_authority("counter.shop"), identity.Role.SERVER, "server-0")
    (tmp_path / "tls.pem").write_bytes(issued.key_pem + issued.certificate_pem)
    program.write_text(KUBECTL.format(python=sys.executable, log=str(log), tls=str(tmp_path / "tls.pem")))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return log


async def test_a_lost_forward_is_opened_again_on_the_same_ports(kubectl_log: Path) -> None:
    """gRPC then reconnects by itself, and its calls keep their ids. Another server is preferred."""

    async def servers() -> list[str]:
        return ["leaving", "staying"]

    async with Forward(Kubectl("prod"), ClusterRef("shop", "counter"), servers) as forward:
        assert forward.pod == "leaving"
        async with asyncio.timeout(20):
            await forward.reopened.wait()
        assert forward.pod == "staying"
        ports = f"{forward.ports[0]}:7443 {forward.ports[1]}:7446"
    calls = await asyncio.to_thread(lambda: kubectl_log.read_text().splitlines())
    asked = [
        call.split("127.0.0.1 ")[1] for call in calls
    ]  # on a slow machine the one that left is asked as well, last
    assert asked[:2] == [f"pod/leaving {ports}", f"pod/staying {ports}"]
    assert calls[0].partition(" ")[2].startswith("--context prod port-forward -n shop --address 127.0.0.1")


async def test_a_forward_that_cannot_be_opened_says_why(kubectl_log: Path) -> None:
    """In kubectl's words, as one sentence."""

    async def servers() -> list[str]:
        return ["closed"]

    with pytest.raises(CliError, match="pod is not running"):
        async with Forward(Kubectl(), ClusterRef("shop", "counter"), servers):
            pass


async def test_a_server_that_cannot_be_reached_is_passed_over(kubectl_log: Path) -> None:
    """The API server may call a dead node's pod Running; the next one answers."""

    async def servers() -> list[str]:
        return ["closed", "staying"]

    async with Forward(Kubectl(), ClusterRef("shop", "counter"), servers) as forward:
        assert forward.pod == "staying"


async def test_nobody_waits_for_a_dead_node(kubectl_log: Path) -> None:
    """Its pod is called Ready for a while, and kubectl waits: the next one is tried beside it. No kubectl is left."""

    async def servers() -> list[str]:
        return ["hung", "silent", "staying"]

    async with Forward(Kubectl(), ClusterRef("shop", "counter"), servers) as forward:
        assert forward.pod == "staying"
        calls = await asyncio.to_thread(lambda: kubectl_log.read_text().splitlines())
        pids = {call.split("pod/")[1].split()[0]: int(call.split()[0]) for call in calls}
        assert sorted(pids) == ["hung", "silent", "staying"]
        assert [pod for pod, pid in pids.items() if os.path.exists(f"/proc/{pid}")] == ["staying"]  # noqa: ASYNC240, PTH110


async def test_when_nobody_answers_the_first_that_opened_is_kept(kubectl_log: Path) -> None:
    """What is wrong is then said by whoever uses it."""

    async def servers() -> list[str]:
        return ["closed", "silent"]

    async with Forward(Kubectl(), ClusterRef("shop", "counter"), servers) as forward:
        assert forward.pod == "silent"


async def test_without_kubectl_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """And that there is another way."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(CliError, match="kubectl is not installed"):
        await Kubectl().run("version")
