"""The end: runs last, by its name. Agents outlive the operator; deleting the namespace ends everything."""

from e2e_kube import OPERATOR_NAMESPACE, Kube


def test_uninstall_leaves_pods_and_volumes_and_the_namespace_can_end(shop: Kube) -> None:
    shop.wait_steady(120)
    servers = shop.ready_pods("app.kubernetes.io/component=server")
    claims = [claim["metadata"]["name"] for claim in shop.items("persistentvolumeclaims")]
    assert len(servers) == len(claims) == 3
    shop.run(
        shop.backend.program("helm"),
        "uninstall",
        "tenure",
        "-n",
        OPERATOR_NAMESPACE,
        "--wait",
        "--timeout",
        "120s",
        timeout=150,
    )
    shop.wait("the operator is gone", 60, lambda: shop.items("pods", OPERATOR_NAMESPACE), lambda pods: not pods)
    assert shop.ready_pods("app.kubernetes.io/component=server") == servers
    served = shop.kubectl("api-resources", "--api-group=tenure.dev", "-o", "name").split()
    assert "agents.tenure.dev" in served, "the CRDs, and with them every agent, must outlive the chart"
    shop.kubectl("delete", "namespace", "shop", "--timeout=120s")
    assert not shop.get("namespace", "shop")
