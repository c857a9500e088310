"""Bad input: one clear sentence where the user looks, and nothing else is disturbed."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from e2e_kube import Kube

AGENTS = "agents.tenure.dev"
CLUSTERS = "agentclusters.tenure.dev"
Apply = Callable[..., str]


def agent(name: str, **spec: object) -> str:
    metadata = {"name": name, "namespace": "shop"}
    return json.dumps(
        {
            "apiVersion": "tenure.dev/v1alpha1",
            "kind": "Agent",
            "metadata": metadata,
            "spec": {"class": "Counter", **spec},
        }
    )


@pytest.fixture
def wrong(shop: Kube) -> Iterator[Apply]:
    """Applies an agent that cannot run; removed in the end, which must not hang."""
    made = []

    def apply(name: str, **spec: object) -> str:
        shop.kubectl("apply", "-f", "-", stdin=agent(name, **spec))
        made.append(name)
        return name

    yield apply
    for name in made:
        shop.kubectl("delete", AGENTS, name, "-n", "shop", "--ignore-not-found", "--timeout=30s")


@pytest.fixture(autouse=True)
def undisturbed(shop: Kube) -> Iterator[None]:
    """Whatever the test does, the others run on: same holder, same epoch."""

    def holders() -> dict[str, object]:
        names = [f"counter-{number}" for number in (1, 2)]
        return {name: (shop.status(name).get("host"), shop.status(name).get("epoch")) for name in names}

    before = holders()
    yield
    assert holders() == before


@pytest.mark.parametrize(
    ("name", "spec", "reason", "words"),
    [
        ("no-class", {"class": "Conuter"}, "ClassNotFound", "Conuter"),
        ("no-pool", {"pool": "gpu"}, "PoolNotFound", "gpu"),
        ("no-cluster", {"clusterRef": {"name": "absent"}}, "ClusterNotFound", "absent"),
        ("bad-state", {"state": {"count": "many"}}, "StateInvalid", "count"),
    ],
)
def test_what_spans_objects_is_said_in_the_status_and_in_an_event(
    shop: Kube, wrong: Apply, name: str, spec: dict[str, Any], reason: str, words: str
) -> None:
    wrong(name, **spec)
    status = shop.wait_status(name, 30, lambda seen: reason in json.dumps(seen), f"says {reason}")
    assert words in status["summary"] + json.dumps(status.get("conditions", []))
    assert not any(entry["type"] == "Ready" and entry["status"] == "True" for entry in status["conditions"])

    def events() -> list[dict[str, Any]]:
        return [event for event in shop.items("events") if event["involvedObject"]["name"] == name]

    shop.wait(f"an event {reason}", 30, events, lambda found: any(event["reason"] == reason for event in found))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"clas": "Counter"}, 'unknown field "spec.clas"'),
        ({"class": "shop.agents.Counter"}, "spec.class"),
        ({"placement": {"strategy": "Fastest"}}, "LoadBalanced"),
        ({"resources": {"requests": {"cpu": "-1"}}}, "negative"),
    ],
)
def test_what_one_object_shows_is_refused_by_the_api_server(shop: Kube, spec: dict[str, Any], words: str) -> None:
    assert words in shop.refused("apply", "-f", "-", stdin=agent("refused", **spec))


def test_a_class_cannot_be_changed(shop: Kube, wrong: Apply) -> None:
    name = wrong("fixed-class")
    said = shop.refused("patch", AGENTS, name, "-n", "shop", "--type=merge", "-p", '{"spec": {"class": "Other"}}')
    assert "immutable" in said


def test_an_even_number_of_servers_is_refused(shop: Kube) -> None:
    cluster = shop.items(CLUSTERS)[0]
    manifest = {
        "apiVersion": cluster["apiVersion"],
        "kind": "AgentCluster",
        "metadata": {"name": "even", "namespace": "shop"},
        "spec": {**cluster["spec"], "servers": {**cluster["spec"]["servers"], "replicas": 2}},
    }
    assert "servers.replicas" in shop.refused("apply", "-f", "-", stdin=json.dumps(manifest))


def test_the_command_line_says_what_is_wrong(shop: Kube) -> None:
    for words, said in (
        (("call", "shop/nobody", "value"), "nobody"),
        (("call", "shop/counter-1", "incremnt"), "increment"),
        (("call", "shop/counter-1", "increment", "--by", "lots"), "by"),
    ):
        status, out, err = shop.tenure(*words, check=False)
        assert status, out
        assert said in err, err
        assert "Traceback" not in err
