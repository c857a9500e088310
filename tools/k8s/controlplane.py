"""etcd, the API server, the controllers and CoreDNS: processes on the machine, behind the bridge's address."""

import signal
from pathlib import Path

from tools.k8s.daemons import Daemon
from tools.k8s.network import HOST, SERVICE_NET
from tools.k8s.shell import run, wait_for

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns")
_ETCD, _ETCD_PEER = "http://127.0.0.1:12379", "http://127.0.0.1:12380"

# DNS runs on the machine and pods ask the bridge's address: no DNS pods, no Service needed for DNS. A time to live of
# 1 s and no cache: a headless Service shows a change at once. Plugins run in a fixed order, `template` before
# `kubernetes`: the catch-all needs a block of its own, or it would answer for the cluster, too.
_COREFILE = """\
cluster.local in-addr.arpa {{
    bind {host}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 1
    }}
}}
. {{
    bind {host}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""

_DNS_ACCESS = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: coredns}
rules:
- {apiGroups: [""], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: coredns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: coredns}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: coredns}]
"""


class ControlPlane:
    """Starts and stops the components. `grace_s`: seconds without news after which a node is NotReady."""

    def __init__(self, state: Path, binaries: Path, grace_s: int) -> None:
        self.state, self.bin, self.pki, self.grace_s = state, binaries, state / "pki", grace_s

    def daemon(self, name: str) -> Daemon:
        return Daemon(self.state, name)

    def start(self) -> None:
        """Start what does not run, and wait for the API server."""
        self.start_etcd()
        self.start_api_server()
        self.start_controllers()
        self.start_dns()

    def stop(self) -> None:
        for name in reversed(COMPONENTS):
            self.daemon(name).stop(signal.SIGKILL)

    def start_etcd(self) -> None:
        self.daemon("etcd").start(
            *(self.bin / "etcd", "--data-dir", self.state / "etcd", "--unsafe-no-fsync", "--log-level", "warn"),
            *("--listen-client-urls", _ETCD, "--advertise-client-urls", _ETCD),
            *("--listen-peer-urls", _ETCD_PEER, "--initial-advertise-peer-urls", _ETCD_PEER),
            *("--initial-cluster", f"default={_ETCD_PEER}"),
        )

    def start_api_server(self) -> None:
        pki = self.pki
        self.daemon("kube-apiserver").start(
            *(self.bin / "kube-apiserver", f"--etcd-servers={_ETCD}"),
            *(f"--bind-address={HOST}", f"--advertise-address={HOST}", "--secure-port=6443"),
            *(f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key"),
            *(f"--client-ca-file={pki}/ca.crt", f"--kubelet-certificate-authority={pki}/ca.crt"),
            *(f"--kubelet-client-certificate={pki}/admin.crt", f"--kubelet-client-key={pki}/admin.key"),
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            *(f"--service-account-key-file={pki}/sa.pub", f"--service-account-signing-key-file={pki}/sa.key"),
            *(f"--service-cluster-ip-range={SERVICE_NET}", "--authorization-mode=Node,RBAC"),
            *("--enable-admission-plugins=NodeRestriction", "--allow-privileged=true", "--profiling=false"),
            "--enable-aggregator-routing=true",  # webhooks behind a Service: call a pod's address, no kube-proxy here
        )
        ready = (self.bin / "kubectl", "--kubeconfig", self.state / "kubeconfig", "get", "--raw", "/readyz")
        wait_for("the API server", lambda: run(*ready, check=False) == "ok", 120, 0.25)

    def start_controllers(self) -> None:
        pki = self.pki
        self.daemon("kube-controller-manager").start(
            self.bin / "kube-controller-manager",
            *self._component("kube-controller-manager"),
            *(f"--root-ca-file={pki}/ca.crt", f"--service-account-private-key-file={pki}/sa.key"),
            *(f"--cluster-signing-cert-file={pki}/ca.crt", f"--cluster-signing-key-file={pki}/ca.key"),
            *("--use-service-account-credentials=true", "--node-monitor-period=1s"),
            f"--node-monitor-grace-period={self.grace_s}s",
            *("--kube-api-qps=200", "--kube-api-burst=300"),  # the default makes 20 pods a second
            f"--flex-volume-plugin-dir={self.state}/flex",  # the default is created in the machine's /usr/libexec
        )
        self.daemon("kube-scheduler").start(self.bin / "kube-scheduler", *self._component("kube-scheduler"))

    def start_dns(self) -> None:
        run(self.bin / "kubectl", "--kubeconfig", self.state / "kubeconfig", "apply", "-f", "-", stdin=_DNS_ACCESS)
        (self.state / "Corefile").write_text(_COREFILE.format(host=HOST, kubeconfig=self.pki / "coredns.conf"))
        self.daemon("coredns").start(self.bin / "coredns", "-conf", self.state / "Corefile")

    def _component(self, name: str) -> list[str]:
        path = self.pki / f"{name}.conf"
        options = [f"--{kind}kubeconfig={path}" for kind in ("", "authentication-", "authorization-")]
        # One of each: no waiting for the leases of leader election at the start.
        return [*options, "--bind-address=127.0.0.1", "--leader-elect=false", "--profiling=false"]
