"""From manifests to the options of a local cluster, and every refusal that the manifests alone can earn."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from tenure_api.agent import Agent
from tenure_api.agentcluster import AgentCluster, Pool
from tenure_cli import wire
from tenure_cli.dev.plan import PoolPlan
from tenure_cli.errors import UsageError
from tenure_cli.manifests import Document, Loaded
from tenure_proto.v1 import registry_pb2

DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True)
class Setup:
    """What to run and what to apply. `notices` are sentences for the user: what a local cluster leaves out."""

    namespace: str
    cluster: str
    profile: str
    pools: tuple[PoolPlan, ...]
    pool_rows: tuple[registry_pb2.PoolSpec, ...]
    agents: tuple[registry_pb2.AgentSpec, ...]
    python_root: Path
    notices: tuple[str, ...]


def make_setup(loaded: Loaded, namespace: str, directory: Path) -> Setup:
    """Raises ManifestError, UsageError. `directory` is the current one, from which modules are imported first."""
    document = _only_cluster(loaded)
    cluster = document.resource
    place = namespace or cluster.metadata.namespace or DEFAULT_NAMESPACE
    agents = [_agent(agent, cluster, place) for agent in loaded.agents]
    pools = cluster.spec.pools
    return Setup(
        namespace=place,
        cluster=cluster.metadata.name,
        profile=cluster.spec.lease.profile,
        pools=tuple(_pool(pool, document, index) for index, pool in enumerate(pools)),
        pool_rows=tuple(wire.pool_specs(cluster)),
        agents=tuple(agents),
        python_root=_python_root(pools, document, directory),
        notices=(*loaded.passed_over, *_notices(cluster)),
    )


def _only_cluster(loaded: Loaded) -> Document[AgentCluster]:
    first, *others = loaded.clusters or (None,)
    if first is None:
        raise UsageError(
            "The manifests hold no AgentCluster, which names the pools and their modules.",
            "Add one, for example examples/counter/cluster.yaml.",
        )
    for second in others:
        raise second.error(
            ("metadata", "name"), "a local cluster is made from one AgentCluster, and this is the second."
        )
    return first


def _agent(document: Document[Agent], cluster: AgentCluster, namespace: str) -> registry_pb2.AgentSpec:
    agent = document.resource
    name, spec = agent.metadata.name, agent.spec
    if agent.metadata.namespace and agent.metadata.namespace != namespace:
        sentence = f"Agent {name} is in namespace {agent.metadata.namespace!r}; the cluster serves {namespace!r}."
        raise document.error(("metadata", "namespace"), sentence)
    if spec.cluster_ref and spec.cluster_ref.name != cluster.metadata.name:
        sentence = (
            f"Agent {name} is for the cluster {spec.cluster_ref.name!r}; the manifests hold {cluster.metadata.name!r}."
        )
        raise document.error(("spec", "clusterRef", "name"), sentence)
    pools = [pool.name for pool in cluster.spec.pools]
    if spec.pool not in pools:
        close = get_close_matches(spec.pool, pools, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"It has: {', '.join(pools)}."
        sentence = (
            f"Agent {name} asks for the pool {spec.pool!r}, which the cluster {cluster.metadata.name!r} does not have."
        )
        raise document.error(("spec", "pool"), sentence, hint)
    return wire.agent_spec(agent, namespace)


def _pool(pool: Pool, document: Document[AgentCluster], index: int) -> PoolPlan:
    for number, variable in enumerate(pool.env):
        if variable.value_from is not None:
            raise document.error(
                ("spec", "pools", index, "env", number),
                f"{variable.name} takes its value from Kubernetes (valueFrom), which a local cluster does not have.",
                "Give it a value, or set it in the environment of `tenure dev` and leave it out here.",
            )
    return PoolPlan(
        name=pool.name,
        modules=tuple(pool.modules),
        replicas=pool.replicas,
        workers=pool.workers_per_host,
        env=tuple((variable.name, variable.value or "") for variable in pool.env),
    )


def _python_root(pools: Sequence[Pool], document: Document[AgentCluster], directory: Path) -> Path:
    """The current directory, or the manifest's when only that one has the module."""
    beside = Path(document.file).resolve().parent
    first = pools[0].modules[0]
    for root in (directory, beside):
        if _has_module(root, first):
            return root
    return directory


def _has_module(root: Path, module: str) -> bool:
    parts = module.split(".")
    base = root.joinpath(*parts)
    return base.with_suffix(".py").is_file() or (base / "__init__.py").is_file()


def _notices(cluster: AgentCluster) -> list[str]:
    images = sorted({pool.image for pool in cluster.spec.pools})
    notices = [f"image is ignored ({', '.join(images)}): modules are imported from this machine"]
    if any(pool.env_from for pool in cluster.spec.pools):
        notices.append("envFrom is ignored: there are no ConfigMaps or Secrets here")
    return notices
