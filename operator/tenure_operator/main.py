"""The process: kopf brings events, workers reconcile keys, a resync compares everything now and then."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any

import kopf

from tenure_api.identity import Authority
from tenure_operator import health
from tenure_operator.context import NODES, Context, Key
from tenure_operator.handlers import agents, clusters, events, nodes
from tenure_operator.handlers.resync import Resync
from tenure_operator.kubernetes import client
from tenure_operator.kubernetes.errors import KubernetesError
from tenure_operator.registry.client import GrpcRegistry
from tenure_operator.registry.values import Registry
from tenure_operator.settings import Settings

WORKERS = 8
FIRST_LIST_RETRY_S = 1.0
log = logging.getLogger(__name__)


def kopf_settings() -> kopf.OperatorSettings:
    """Every one has a reason: facts/libraries.md sections C and E7."""
    made = kopf.OperatorSettings()
    made.peering.standalone = True  # peers of one priority would pause each other for ever
    made.scanning.disabled = True  # no right to read CRDs: those that we watch are installed with us
    made.posting.enabled = False  # events are ours, with reasons from the catalogue
    made.persistence.finalizer = "kopf.tenure.dev/finalizer"  # never used: only `on.event` handlers
    made.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix="kopf.tenure.dev")
    made.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix="kopf.tenure.dev")
    made.watching.chunk_size = 500
    made.watching.inactivity_timeout = 70
    made.watching.server_timeout = 300
    made.networking.request_timeout = 30
    for kind in events.OWNED:  # we look at our own pods, not at everybody's
        made.watching.label_selectors[kind.group, kind.version, kind.plural] = events.OWNED_SELECTOR
    return made


async def run(
    settings: Settings,
    *,
    connect: Callable[[str, Authority], Registry] = GrpcRegistry,
    ready: Callable[[], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run until SIGTERM, or until `stop` is set. `ready` is called when everything has been listed once."""
    async with client.connect(settings.kubeconfig) as kubernetes:
        context = Context(settings=settings, kubernetes=kubernetes, connect=connect)
        resync = Resync(context)
        listed = asyncio.Event()
        answers = health.Health(
            live=lambda: resync.blind,
            ready=lambda: "" if listed.is_set() else "the first lists are not complete",
            metrics=lambda: _metrics(context),
        )
        async with health.serve(answers, settings.http_port):
            tasks = [asyncio.create_task(_kopf(context, stop), name="kopf")]
            try:
                await _first_lists(resync)
                listed.set()
                if ready is not None:
                    ready()
                tasks += [asyncio.create_task(_work(context), name=f"worker {n}") for n in range(WORKERS)]
                tasks.append(asyncio.create_task(_resync(resync, settings.resync_s), name="resync"))
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # kopf at the end; anything else is a defect, and ends us loudly
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await context.close()


async def _kopf(context: Context, stop: asyncio.Event | None) -> None:
    registry = kopf.OperatorRegistry()
    events.register(registry, context)
    library: Any = kopf
    login = library.login_with_kubeconfig if context.settings.kubeconfig else library.login_with_service_account
    library.on.login(registry=registry)(login)
    tasks = await library.spawn_tasks(
        registry=registry, settings=kopf_settings(), clusterwide=True, standalone=True, stop_flag=stop
    )
    await library.run_tasks(tasks, ignored=_NotKopfs())


class _NotKopfs:
    """kopf takes every task that began after it for its own, and cancels it in the end. This tells it whose it is."""

    def __contains__(self, task: asyncio.Task[object]) -> bool:
        code = getattr(task.get_coro(), "cr_code", None)
        return code is None or f"{os.sep}kopf{os.sep}" not in code.co_filename


async def _first_lists(resync: Resync) -> None:
    """Nothing is decided before everything has been seen once. Tried until it succeeds."""
    while True:
        try:
            await resync.round(watching=False)
        except KubernetesError as error:
            log.warning("the first lists failed, again in %.0f s: %s", FIRST_LIST_RETRY_S, error)
            await asyncio.sleep(FIRST_LIST_RETRY_S)
        else:
            return


async def _resync(resync: Resync, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        try:
            await resync.round(watching=True)
        except KubernetesError as error:
            log.warning("resync skipped: %s", error)
        if resync.blind:
            log.error("%s", resync.blind)


async def _work(context: Context) -> None:
    async def handle(key: Key) -> None:
        match key.kind:
            case "Agent":
                await agents.reconcile(context, key)
            case "AgentCluster":
                await clusters.reconcile(context, key)
            case _ if key == NODES:
                nodes.reconcile(context)
            case _:
                raise AssertionError(f"nobody reconciles {key}")

    await context.queue.work(handle)


def _metrics(context: Context) -> dict[str, float]:
    return {
        "tenure_operator_queue_depth": len(context.queue),
        "tenure_operator_reconciles_total": context.queue.handled,
        "tenure_operator_reconcile_failures_total": context.queue.failed,
        "tenure_operator_status_writes_total": context.status_writes,
        "tenure_operator_clusters": len(context.sessions()),
        "tenure_operator_clusters_reachable": sum(session.reachable for _, session in context.sessions()),
    }
