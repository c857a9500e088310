"""Services: `<cluster>` for the API, `<cluster>-peers` (headless) for the servers' own names."""

from __future__ import annotations

from tenure_api.model import Json
from tenure_operator.resources.cluster import API_PORT, ENROL_PORT, PEER_PORT, RAFT_PORT, Cluster


def api(cluster: Cluster) -> Json:
    """Any caught-up server answers."""
    spec: Json = {
        "type": "ClusterIP",
        "selector": cluster.selector("server"),
        "ports": [_port("api", API_PORT), _port("enrol", ENROL_PORT)],
    }
    return cluster.object("v1", "Service", cluster.name, component="server", spec=spec)


def peers(cluster: Cluster) -> Json:
    """Servers find one another before they are ready: readiness needs a quorum."""
    spec: Json = {
        "type": "ClusterIP",
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": cluster.selector("server"),
        "ports": [
            _port("api", API_PORT),
            _port("peer", PEER_PORT),
            _port("enrol", ENROL_PORT),
            _port("raft", RAFT_PORT),
        ],
    }
    return cluster.object("v1", "Service", f"{cluster.name}-peers", component="server", spec=spec)


def _port(name: str, port: int) -> Json:
    return {"name": name, "port": port, "targetPort": port, "protocol": "TCP"}
