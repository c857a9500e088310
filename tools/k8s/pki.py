"""The cluster's certificates and kubeconfigs, made by openssl: one authority, EC keys."""

import json
from pathlib import Path

from tools.k8s import network
from tools.k8s.shell import Argument, run

_AUTHORITY = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
_LEAF = (
    "basicConstraints=CA:FALSE",
    "keyUsage=critical,digitalSignature",
)  # Python 3.13 refuses chains without keyUsage
SERVICES = ("kube-controller-manager", "kube-scheduler", "kube-proxy")


class Pki:
    """Files below `<state>/pki`. Every method leaves alone what exists."""

    def __init__(self, state: Path) -> None:
        self.state, self.dir = state, state / "pki"

    def certificate(self, name: str, subject: str, *names: str) -> None:
        """Make `<name>.crt` and `<name>.key`; `names` are alternative names such as `IP:10.0.0.1`."""
        made = self.dir / f"{name}.crt"
        if made.exists():
            return
        usage = _AUTHORITY if name == "ca" else _LEAF
        extensions = [*usage, *([f"subjectAltName={','.join(names)}"] if names else [])]
        signer: list[Argument] = [] if name == "ca" else ["-CA", self.dir / "ca.crt", "-CAkey", self.dir / "ca.key"]
        run(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "3650", "-subj", subject, *(word for text in extensions for word in ("-addext", text))),
            *signer,
            *("-keyout", self.dir / f"{name}.key", "-out", made.with_suffix(".new")),
        )
        made.with_suffix(".new").rename(made)

    def kubeconfig(self, name: str, user: str, group: str | None = None) -> Path:
        """Make a client certificate for `user` and its kubeconfig: `pki/<name>.conf`, or `kubeconfig` for admin."""
        self.certificate(name, f"{f'/O={group}' if group else ''}/CN={user}")
        cluster = {"server": network.API, "certificate-authority": f"{self.dir}/ca.crt"}
        credentials = {"client-certificate": f"{self.dir}/{name}.crt", "client-key": f"{self.dir}/{name}.key"}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": network.NAME,
            "clusters": [{"name": network.NAME, "cluster": cluster}],
            "users": [{"name": network.NAME, "user": credentials}],
            "contexts": [{"name": network.NAME, "context": {"cluster": network.NAME, "user": network.NAME}}],
        }
        path = self.state / "kubeconfig" if name == "admin" else self.dir / f"{name}.conf"
        path.write_text(json.dumps(content, indent=1))
        path.chmod(0o600)
        return path

    def control_plane(self) -> None:
        """The authority, the API server's certificate, the keys of ServiceAccounts, the components' kubeconfigs."""
        self.certificate("ca", f"/CN={network.NAME}-ca")
        kubernetes = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ]
        addresses = [network.HOST, network.service_ip(), "127.0.0.1"]
        names = [f"DNS:{name}" for name in ("localhost", *kubernetes)] + [f"IP:{address}" for address in addresses]
        self.certificate("apiserver", "/CN=kube-apiserver", *names)
        if not (self.dir / "sa.pub").exists():
            run("openssl", "genrsa", "-out", self.dir / "sa.key", "2048")
            run("openssl", "rsa", "-in", self.dir / "sa.key", "-pubout", "-out", self.dir / "sa.pub")
        self.kubeconfig("admin", "admin", "system:masters")
        for name in SERVICES:
            self.kubeconfig(name, f"system:{name}")
        self.kubeconfig("coredns", "coredns")

    def node(self, n: int) -> None:
        self.certificate(f"kubelet-{n}", f"/O=system:nodes/CN=node-{n}", f"IP:{network.node_ip(n)}", f"DNS:node-{n}")
        self.kubeconfig(f"node-{n}", f"system:node:node-{n}", "system:nodes")
