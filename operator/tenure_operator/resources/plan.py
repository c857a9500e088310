"""Everything that an AgentCluster owns, in the order in which it is written; and what it no longer owns."""

from __future__ import annotations

from tenure_api.model import Json
from tenure_operator.resources import accounts, certificates, disruption, hosts, server_statefulset, services
from tenure_operator.resources.certificates import ServerCertificates
from tenure_operator.resources.cluster import Cluster


def objects(cluster: Cluster, issued: ServerCertificates, authority_map: Json) -> list[Json]:
    """Every object but the Secret of the authority. What pods need comes before the pods."""
    made = [
        *accounts.accounts(cluster),
        accounts.token_review(cluster),
        authority_map,
        certificates.server_tls(cluster, issued),
        services.peers(cluster),
        services.api(cluster),
    ]
    budget = disruption.manifest(cluster)
    made += [budget] if budget is not None else []
    made.append(server_statefulset.manifest(cluster, issued.digest))
    return made + [hosts.manifest(cluster, pool) for pool in cluster.spec.pools]


def superfluous(cluster: Cluster, found: list[Json]) -> list[Json]:
    """Of the DaemonSets and Deployments found with our labels, those that no pool asks for (any more)."""
    wanted = {
        (cluster.host_name(pool), "DaemonSet" if pool.replicas is None else "Deployment") for pool in cluster.spec.pools
    }
    return [item for item in found if (item["metadata"]["name"], item["kind"]) not in wanted]
