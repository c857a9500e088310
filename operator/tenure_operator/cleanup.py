"""`python -m tenure_operator.cleanup`: what the chart runs before it is uninstalled.

Stops the operator, which would put them back, and takes our finalizers off every Agent and AgentCluster. Pods, volumes
and the objects themselves stay: agents go on running, and a namespace can be deleted without us.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping

from tenure_operator.context import FINALIZER
from tenure_operator.kubernetes import client, kinds
from tenure_operator.kubernetes.client import Kubernetes
from tenure_operator.kubernetes.errors import Conflict, KubernetesError

STOP_S = 60.0
POLL_S = 0.5
TRIES = 5
"""For an object that somebody else changes at the same moment."""


async def run(environment: Mapping[str, str]) -> int:
    """Returns the exit status."""
    namespace, deployment = environment["TENURE_OPERATOR_NAMESPACE"], environment["TENURE_OPERATOR_DEPLOYMENT"]
    try:
        async with client.connect() as kubernetes:
            await stop_operator(kubernetes, namespace, deployment)
            for kind in (kinds.AGENT, kinds.AGENT_CLUSTER):
                for item in await kubernetes.list_all(kind):
                    await release(kubernetes, kind, item["metadata"]["namespace"], item["metadata"]["name"])
    except (KubernetesError, TimeoutError) as error:
        print(f"Finalizers could not be removed: {error}", file=sys.stderr)  # noqa: T201 - a job's only output
        return 1
    return 0


async def stop_operator(kubernetes: Kubernetes, namespace: str, deployment: str) -> None:
    """Raises TimeoutError when its pods do not end."""
    if not await kubernetes.scale_deployment(namespace, deployment, 0):
        return
    labels = {"app.kubernetes.io/instance": deployment, "app.kubernetes.io/component": "operator"}
    async with asyncio.timeout(STOP_S):
        while await kubernetes.list_all(kinds.POD, namespace, labels):  # noqa: ASYNC110 - nobody could set an event
            await asyncio.sleep(POLL_S)


async def release(kubernetes: Kubernetes, kind: kinds.Kind, namespace: str, name: str) -> None:
    """Take our finalizer off one object. Raises Conflict after TRIES."""
    for attempt in range(1, TRIES + 1):
        item = await kubernetes.get(kind, namespace, name)
        if item is None:
            return
        finalizers: list[str] = item["metadata"].get("finalizers") or []
        if FINALIZER not in finalizers:
            return
        others = [finalizer for finalizer in finalizers if finalizer != FINALIZER]
        try:
            await kubernetes.set_finalizers({**item, "kind": kind.name}, others)
        except Conflict:
            if attempt == TRIES:
                raise
        else:
            return


if __name__ == "__main__":
    sys.exit(asyncio.run(run(os.environ)))
