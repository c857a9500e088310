"""Manifests and quantities without any Kubernetes: what `tenure dev` and the CLI say of them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tenure_api import manifest, quantity
from tenure_api.agent import Agent
from tenure_api.agentcluster import AgentCluster


def document(kind: str = "Agent", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "tenure.dev/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec}


def test_an_agent_is_read_with_its_defaults() -> None:
    found = manifest.parse(document(**{"class": "Counter"}))
    assert isinstance(found, Agent)
    assert (found.spec.class_, found.spec.pool, found.spec.resources.requests.cpu) == ("Counter", "default", "100m")


def test_a_cluster_is_read_with_its_defaults() -> None:
    found = manifest.parse(document("AgentCluster", pools=[{"name": "a", "image": "i", "modules": ["m"]}]))
    assert isinstance(found, AgentCluster)
    assert (found.spec.servers.replicas, found.spec.lease.profile) == (3, "Balanced")


POOL = {"name": "a", "image": "i", "modules": ["m"]}
BAD = {
    "a typo": (document(**{"class": "C", "placment": {}}), "unknown field 'spec.placment'; did you mean 'placement'?"),
    "a typo below": (
        document("AgentCluster", pools=[{**POOL, "modulse": []}]),
        "unknown field 'spec.pools[0].modulse'; did you mean 'modules'?",
    ),
    "nothing said": (document(), "Agent x: spec.class is missing"),
    "another kind": (document("Pod"), "kind is 'Pod'"),
    "another version": ({**document(), "apiVersion": "v1"}, "apiVersion is 'v1'"),
    "two servers": (document("AgentCluster", pools=[POOL], servers={"replicas": 2}), "servers.replicas is 1, 3 or 5"),
    "two pools of one name": (document("AgentCluster", pools=[POOL, POOL]), "two pools are named 'a'"),
    "near for nobody": (
        document(**{"class": "C", "placement": {"near": "n"}}),
        "spec.placement: near needs the strategy LocalPreferred or Optimal",
    ),
    "a skew of nothing": (
        document(**{"class": "C", "placement": {"spread": [{"by": "Zone", "maxSkew": 0}]}}),
        "spec.placement.spread[0].maxSkew: Input should be greater than or equal to 1",
    ),
    "sleep without a bed": (
        document(**{"class": "C", "durability": "Volatile", "lifecycle": {"idleTimeout": 60}}),
        "lifecycle.idleTimeout needs the durability Quorum",
    ),
    "too many attempts": (
        document(**{"class": "C", "delivery": {"maxAttempts": 101}}),
        "spec.delivery.maxAttempts: Input should be less than or equal to 100",
    ),
    "no manifest": (["x"], "The document is not a mapping"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_manifest_is_refused_with_a_sentence(case: str) -> None:
    given, sentence = BAD[case]
    with pytest.raises(manifest.BadManifest) as caught:
        manifest.parse(given)
    assert sentence in str(caught.value)


QUANTITIES = [
    *(("1", 1000, 1), ("500m", 500, 1), ("0.1", 100, 1), ("1k", 1_000_000, 1000), ("128Mi", 128 * 2**20 * 1000, 2**27)),
    *(("1e3", 1_000_000, 1000), ("2E", 2 * 10**21, 2 * 10**18), ("-1", -1000, -1), ("1n", 1, 1)),
]


@pytest.mark.parametrize(("text", "milli", "whole"), QUANTITIES)
def test_quantities_are_exact_and_round_up(text: str, milli: int, whole: int) -> None:
    assert (quantity.milli(text), quantity.whole(text)) == (milli, whole)


@pytest.mark.parametrize("text", ["", "much", "1.2.3", "10 Mi", "1mi", "Mi"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(quantity.BadQuantity):
        quantity.parse(text)


def test_the_manifest_of_the_page_on_operating_is_valid() -> None:
    """What docs/operating.md shows can be applied."""
    text = (Path(__file__).parents[2] / "docs" / "operating.md").read_text().split("```yaml")[1].split("```")[0]
    found = manifest.parse(yaml.safe_load(text))
    assert isinstance(found, Agent)
    assert (found.spec.on_exhausted, found.spec.lifecycle.idle_timeout) == ("Pause", 600)


def test_the_manifests_of_the_page_on_placement_are_valid() -> None:
    """What docs/placement.md shows can be applied."""
    text = (Path(__file__).parents[2] / "docs" / "placement.md").read_text().split("```yaml")[1].split("```")[0]
    agent, cluster = yaml.safe_load_all(text)
    for shown, kind in ((agent, Agent), (cluster, AgentCluster)):
        made = {"apiVersion": "tenure.dev/v1alpha1", "metadata": {"name": "x"}, **shown}
        assert isinstance(manifest.parse(made), kind)
