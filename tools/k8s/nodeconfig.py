"""Configuration files of a node's programs, as values."""

from pathlib import Path

from tools.k8s.network import HOST, NAME, POD_NET, node_ip, pod_cidr

PAUSE_IMAGE = "localhost/pause:3.10"
_CNI_PLUGINS = "/usr/lib/cni"  # Debian's containernetworking-plugins
_CONTAINERD = """\
version = 2
oom_score = 0
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true  # without CAP_SYS_RESOURCE a score cannot be lowered
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{conf}"
"""


def containerd(home: Path) -> str:
    return _CONTAINERD.format(pause=PAUSE_IMAGE, plugins=_CNI_PLUGINS, conf=home / "cni")


def cni(n: int) -> dict[str, object]:
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": pod_cidr(n)}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": "/run/cni",  # leases are forgotten at a power cut, as the pods' sandboxes are
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": ipam}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]}


def kubelet(n: int, pki: Path, grace_s: int) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{pki}/kubelet-{n}.crt",
        "tlsPrivateKeyFile": f"{pki}/kubelet-{n}.key",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDNS": [HOST],
        "clusterDomain": "cluster.local",
        "resolvConf": "/etc/resolv.conf",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{NAME}/node-{n}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",  # else it is created in the machine's /usr/libexec
        # All nodes share the machine's disk: no eviction and no image removal because of it.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        # A node counts as lost when neither its lease nor its status is renewed for `grace_s`. The lease is renewed
        # every quarter of its duration: with the default of 40 s a healthy node would flap at a grace of 8 s.
        "nodeLeaseDurationSeconds": grace_s,
        "nodeStatusUpdateFrequency": f"{max(1, grace_s // 4)}s",
    }


def kube_proxy(n: int, pki: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{pki}/kube-proxy.conf"},
        "mode": "iptables",
        "clusterCIDR": POD_NET,
        "hostnameOverride": f"node-{n}",
        "metricsBindAddress": "127.0.0.1:10249",
        "healthzBindAddress": f"{node_ip(n)}:10256",
        "conntrack": {"maxPerCore": 0, "min": 0},  # a network namespace cannot change the machine's table size
    }
