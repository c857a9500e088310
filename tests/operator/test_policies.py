"""The operator's decisions, as tables: what was gathered, what is decided."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from operator_views import CLAIM, NOW, demo, of, row, view

from tenure_api.agent import AgentSpec
from tenure_api.agentcluster import AgentClusterSpec
from tenure_operator.policies import agents, conditions, nodes, pods, rows, transitions
from tenure_operator.policies.conditions import Finding
from tenure_operator.registry.values import Delivery, HostRow, Outcome, Spread, Taint, Toleration

LATER = datetime(2026, 6, 1, 13, tzinfo=UTC)


# --- agents ----------------------------------------------------------------------------------------------------------

REJECTED = {
    "no cluster": (view(), (), "ClusterNotFound", "namespace shop has no AgentCluster"),
    "another cluster": (
        view({"clusterRef": {"name": "x"}}),
        (demo(),),
        "ClusterNotFound",
        "AgentCluster x does not exist",
    ),
    "several clusters": (view(), (demo(), demo(name="b")), "ClusterAmbiguous", "several AgentClusters (b, demo)"),
    "no such pool": (view({"pool": "gpu"}), (demo(),), "PoolNotFound", "has no pool gpu (it has default)"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_what_cannot_be_accepted_is_said_at_once(case: str) -> None:
    seen, found, reason, sentence = REJECTED[case]
    decision = agents.decide(replace(seen, clusters=found), NOW)
    assert decision.status is not None
    assert of(decision.status, "Accepted") == ("False", reason)
    assert of(decision.status, "Ready") == ("False", reason)
    assert sentence in decision.status["summary"]
    assert decision.status["nextAction"]
    assert not decision.apply_to


def test_a_row_is_applied_once_per_generation() -> None:
    """No row, a row of an older generation, a row as it should be."""
    seen = view(generation=2)
    assert agents.decide(replace(seen, clusters=(demo(),)), NOW).apply_to == "demo"
    old = row(view(generation=1))
    assert agents.decide(replace(seen, clusters=(demo(row=old),)), NOW).apply_to == "demo"
    assert agents.decide(replace(seen, clusters=(demo(row=row(seen)),)), NOW).apply_to == ""


def test_a_paused_agent_is_left_as_it_is() -> None:
    seen = view(generation=2, paused=True)
    decision = agents.decide(replace(seen, clusters=(demo(row=row(view(generation=1))),)), NOW)
    assert decision.apply_to == ""
    assert decision.status is not None
    assert decision.status["summary"] == "Running on node-a (paused)"


def test_a_refused_row_is_not_sent_again_until_the_spec_changes() -> None:
    seen = view()
    assert seen.wanted is not None
    refusal = (seen.wanted, Outcome(id="shop/c", outcome="refused", code="ManagedElsewhere", message="taken"))
    decision = agents.decide(replace(seen, clusters=(demo(refusal=refusal),)), NOW)
    assert (decision.apply_to, of(decision.status, "Accepted")) == ("", ("False", "ManagedElsewhere"))
    edited = replace(view(generation=2), clusters=(demo(refusal=refusal),))
    assert agents.decide(edited, NOW).apply_to == "demo"


def test_silence_leaves_the_status_of_an_agent_that_has_run() -> None:
    """Silence is not death (DESIGN.md section 3, invariant 4)."""
    silent = demo(reachable=False, problem="unavailable")
    assert agents.decide(replace(view(status={"uid": "17"}), clusters=(silent,)), NOW).status is None
    waiting = agents.decide(replace(view(), clusters=(silent,)), NOW).status
    assert waiting is not None
    assert waiting["summary"] == "Waiting: no server of AgentCluster demo answers (unavailable)"


PHASES = [
    ("Running", True, "True", "False", "False"),
    ("Starting", False, "False", "True", "False"),
    ("FailingOver", False, "False", "True", "True"),
    ("Backoff", False, "False", "True", "True"),
    ("Unavailable", False, "False", "False", "True"),
    ("Paused", False, "False", "False", "True"),
    ("Hibernated", True, "True", "False", "False"),
    ("Ended", False, "False", "False", "False"),
]


@pytest.mark.parametrize(("phase", "ready", "is_ready", "progressing", "degraded"), PHASES)
def test_phases_become_conditions(phase: str, ready: bool, is_ready: str, progressing: str, degraded: str) -> None:
    seen = view()
    found = row(seen, phase=phase, ready=ready, reason="Because", summary="so")
    status = agents.decide(replace(seen, clusters=(demo(row=found),)), NOW).status
    assert [of(status, kind)[0] for kind in ("Ready", "Progressing", "Degraded")] == [is_ready, progressing, degraded]


DELETIONS = {
    "never finalized": ({"finalized": False}, (demo(),), False, ()),
    "no cluster": ({}, (), False, ()),
    "cluster going": ({}, (demo(deleting=True, reachable=False),), False, ("demo",)),
    "asked for": ({}, (demo(),), True, ("demo",)),
    "servers silent": ({}, (demo(reachable=False),), True, ("demo",)),
    "confirmed gone": ({}, (demo(gone=True),), False, ()),
}


@pytest.mark.parametrize("case", DELETIONS)
def test_an_agent_is_stopped_before_its_object_goes(case: str) -> None:
    fields, found, finalizer, delete_from = DELETIONS[case]
    decision = agents.decide(replace(view(deleting=True, **fields), clusters=found), NOW)
    assert (decision.finalizer, decision.delete_from) == (finalizer, delete_from)


def test_a_row_that_is_stopping_is_not_asked_again() -> None:
    seen = view(deleting=True)
    stopping = demo(row=row(seen, deleting=True, phase="Terminating", summary="Stopping on node-a"))
    decision = agents.decide(replace(seen, clusters=(stopping,)), NOW)
    assert (decision.finalizer, decision.delete_from) == (True, ())
    assert decision.status is not None
    assert decision.status["summary"] == "Stopping on node-a"


# --- smaller ones ----------------------------------------------------------------------------------------------------


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    first = conditions.merged([], [Finding("Ready", "False", "A", "a")], 1, NOW)
    same = conditions.merged(first, [Finding("Ready", "False", "B", "b")], 2, LATER)
    assert same[0]["lastTransitionTime"] == "2026-06-01T12:00:00Z"
    assert (same[0]["reason"], same[0]["observedGeneration"]) == ("B", 2)
    turned = conditions.merged(same, [Finding("Ready", "True", "C", "c")], 2, LATER)
    assert turned[0]["lastTransitionTime"] == "2026-06-01T13:00:00Z"


def test_events_tell_transitions_and_nothing_twice() -> None:
    seen = view()
    running = agents.decide(replace(seen, clusters=(demo(row=row(seen)),)), NOW).status or {}
    assert [(event.type, event.reason) for event in transitions.of_agent({}, running)] == [("Normal", "Running")]
    assert transitions.of_agent(running, running) == []
    lost = row(seen, ready=False, phase="FailingOver", reason="LeaseExpired", summary="Failing over from node-a")
    failing = agents.decide(replace(seen, clusters=(demo(row=lost),)), NOW).status or {}
    (event,) = transitions.of_agent(running, failing)
    assert (event.type, event.reason, event.message) == ("Warning", "LeaseExpired", "Failing over from node-a")


def test_an_agent_that_falls_asleep_and_wakes_is_no_news() -> None:
    """It may do so many times an hour; that it runs again after something else is news."""
    seen = view()

    def status(**fields: object) -> Any:
        return agents.decide(replace(seen, clusters=(demo(row=row(seen, **fields)),)), NOW).status or {}

    running, asleep = status(), status(phase="Hibernated", reason="Hibernated", summary="Hibernated on node-a")
    assert transitions.of_agent(running, asleep) == []
    assert transitions.of_agent(asleep, running) == []
    paused = status(phase="Paused", reason="Paused", ready=False, summary="Paused: m")
    (event,) = transitions.of_agent(asleep, paused)
    assert (event.type, event.reason, event.message) == ("Warning", "Paused", "Paused: m")
    (event,) = transitions.of_agent(paused, asleep)
    assert event.type == "Normal"


def test_a_new_dead_letter_is_told_with_what_to_do() -> None:
    """That there are fewer is not."""
    seen = view()
    few, more = (
        agents.decide(replace(seen, clusters=(demo(row=row(seen, dead_letters=count)),)), NOW).status or {}
        for count in (1, 3)
    )
    (event,) = transitions.of_agent(few, more)
    assert (event.type, event.reason) == ("Warning", "DeadLetters")
    assert event.message.startswith("3 dead letters. `tenure dlq list` shows them")
    assert transitions.of_agent(more, few) == []
    assert (
        transitions.of_agent({key: more[key] for key in more if key != "deadLetters"}, few)[0].reason == "DeadLetters"
    )


def test_a_failover_that_is_over_before_anybody_looks_is_an_event_all_the_same() -> None:
    """It takes the new holder milliseconds: the status may go from Running to Running."""
    seen = view()
    running = agents.decide(replace(seen, clusters=(demo(row=row(seen)),)), NOW).status or {}
    over = {"time": "2026-01-01T00:00:03Z", "from": "h1 (node-a)", "to": "h2 (node-b)", "reason": "LeaseExpired"}
    still = {**running, "epoch": 2, "lastFailover": over}
    assert transitions.of_agent(running, still) == []  # not ended yet: its duration is not known
    ended = {**still, "lastFailover": over | {"durationMs": 2521}}
    (event,) = transitions.of_agent(still, ended)
    assert (event.type, event.reason) == ("Warning", "LeaseExpired")
    assert event.message == "Failed over from h1 (node-a) to h2 (node-b) in 2521 ms"
    assert transitions.of_agent(ended, ended) == []


def test_a_host_that_joins_or_ends_is_told_once() -> None:
    """DISC-11, DISC-14: and nothing after a restart of the operator, which has only forgotten."""
    alive = [HostRow(name=f"h{n}", incarnation=f"i{n}", pool="default", node=f"node-{n}") for n in range(3)]
    events, told = transitions.of_hosts(None, alive[:2])
    assert events == []
    events, told = transitions.of_hosts(told, alive)
    assert [(event.type, event.reason) for event in events] == [("Normal", "HostJoined")]
    assert events[0].message == "Host h2 of pool default on node-2 joined"
    lost = [replace(alive[0], expired=True, ended="LeaseExpired"), replace(alive[1], expired=True, ended="Released")]
    events, told = transitions.of_hosts(told, [*lost, alive[2]])
    assert [(event.type, event.reason) for event in events] == [("Warning", "LeaseExpired"), ("Normal", "HostLeft")]
    assert transitions.of_hosts(told, [*lost, alive[2]])[0] == []
    events, told = transitions.of_hosts(told, [alive[2], HostRow(name="h0", incarnation="i9", pool="default")])
    assert [event.reason for event in events] == ["HostJoined"], (
        "the next incarnation; rows that were dropped are no news"
    )
    short = HostRow(name="h5", incarnation="i5", pool="default", expired=True, ended="LeaseExpired")
    assert [event.reason for event in transitions.of_hosts(told, [short])[0]] == ["LeaseExpired"]


NODES = {
    "plain": ({}, True),
    "cordoned": ({"unschedulable": True}, False),
    "about to be removed": ({"taints": [{"key": "ToBeDeletedByClusterAutoscaler"}]}, False),
    "tainted otherwise": ({"taints": [{"key": "gpu", "effect": "NoSchedule"}]}, True),
    "not ready": ({"taints": [{"key": "node.kubernetes.io/not-ready"}]}, True),
}


@pytest.mark.parametrize("case", NODES)
def test_nodes_that_are_about_to_go_take_no_agents(case: str) -> None:
    """Health is judged by leases: a node that Kubernetes calls not ready may well be."""
    spec, expected = NODES[case]
    assert nodes.schedulable({"metadata": {"name": "n"}, "spec": spec}) is expected


def class_(name: str, *, default: bool = False, late: bool = False) -> dict[str, Any]:
    metadata = {"name": name, "annotations": {pods.DEFAULT_CLASS: "true"} if default else {}}
    return {"metadata": metadata, "volumeBindingMode": "WaitForFirstConsumer" if late else "Immediate"}


CLAIMS = {
    "no class at all": (None, (), "no default StorageClass"),
    "a default": (None, (class_("a", default=True),), ""),
    "unknown class": ("b", (class_("a"),), "there is no StorageClass b"),
    "waits for its pod": ("a", (class_("a", late=True),), ""),
    "slow": ("a", (class_("a"),), "StorageClass a has not provided a volume yet"),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_a_claim_says_what_it_waits_for(case: str) -> None:
    wanted, classes, sentence = CLAIMS[case]
    claim = {**CLAIM, "spec": {"storageClassName": wanted} if wanted else {}}
    expected = f"claim data-demo-server-0 waits: {sentence}" if sentence else ""
    assert pods.waiting_claim([claim], classes) == expected


def test_equal_states_are_equal_bytes() -> None:
    """The order of keys says nothing, so it must not look like an edit."""
    one = rows.agent_row(
        "a/b", AgentSpec.model_validate({"class": "C", "state": {"a": 1, "b": {"c": 1, "d": 2}}}), "", 1
    )
    two = rows.agent_row(
        "a/b", AgentSpec.model_validate({"class": "C", "state": {"b": {"d": 2, "c": 1}, "a": 1}}), "", 1
    )
    assert one == two


def test_what_an_agent_asks_of_placement_reaches_its_row() -> None:
    """Every field of spec.placement, the capabilities that it offers, and the object's labels."""
    spec = {
        "class": "C",
        "capabilities": ["billing"],
        "placement": {
            "strategy": "LocalPreferred",
            "requires": ["gpu"],
            "tolerations": [{"key": "dedicated", "value": "db"}, {"key": "spot"}],
            "spread": [{"by": "Zone", "maxSkew": 2, "group": "g"}],
            "near": "shop/other",
        },
    }
    made = rows.agent_row("a/b", AgentSpec.model_validate(spec), "", 1, {"team": "x"})
    assert (made.strategy, made.capabilities, made.requires, made.near) == (
        "LocalPreferred",
        ("billing",),
        ("gpu",),
        "shop/other",
    )
    assert made.tolerations == (Toleration(key="dedicated", value="db"), Toleration(key="spot"))
    assert made.spread == (Spread(by="Zone", max_skew=2, group="g"),)
    assert made.labels == {"team": "x"}


def test_how_an_agent_works_reaches_its_row() -> None:
    """Durability, reads, what becomes of a signal that fails, delivery and idle time; and the defaults of each."""
    spec = {
        "class": "C",
        "reads": "Quorum",
        "onExhausted": "Pause",
        "delivery": {"maxAttempts": 3, "backoff": 1, "ttl": 60},
        "lifecycle": {"idleTimeout": 30},
    }
    made = rows.agent_row("a/b", AgentSpec.model_validate(spec), "", 1)
    assert (made.durability, made.reads, made.on_exhausted, made.idle_timeout_s) == ("Quorum", "Quorum", "Pause", 30)
    assert made.delivery == Delivery(max_attempts=3, backoff_s=1, ttl_s=60)
    plain = rows.agent_row("a/b", AgentSpec.model_validate({"class": "C", "durability": "Volatile"}), "", 1)
    assert (plain.durability, plain.reads, plain.on_exhausted, plain.idle_timeout_s) == (
        "Volatile",
        "Local",
        "DeadLetter",
        0,
    )
    assert plain.delivery == Delivery()


def test_dead_letters_stand_in_the_status() -> None:
    """For a column, and for whoever watches."""
    seen = view()
    status = agents.decide(replace(seen, clusters=(demo(row=row(seen, dead_letters=3)),)), NOW).status
    assert status is not None
    assert status["deadLetters"] == 3


def test_an_edited_label_is_told_to_the_servers() -> None:
    """Labels do not count in metadata.generation."""
    seen = view(clusters=(demo(),))
    assert agents.decide(replace(seen, clusters=(demo(row=row(seen)),)), NOW).apply_to == ""
    assert seen.wanted is not None
    edited = replace(seen, wanted=replace(seen.wanted, labels={"team": "x"}), clusters=(demo(row=row(seen)),))
    assert agents.decide(edited, NOW).apply_to == "demo"


def test_a_pool_tells_its_capabilities_and_taints_and_what_its_pods_tolerate() -> None:
    """A taint of a node that the pool's own pods accept keeps none of its agents away."""
    pool = {
        "name": "gpu",
        "image": "i",
        "modules": ["m"],
        "capabilities": ["gpu"],
        "taints": [{"key": "dedicated", "value": "ml"}],
        "tolerations": [
            {"key": "nvidia.com/gpu", "operator": "Exists", "value": None},
            {"key": "team", "value": "ml"},
            {"operator": "Exists"},
        ],
    }
    (made,) = rows.pool_rows(AgentClusterSpec.model_validate({"pools": [pool]}))
    assert (made.capabilities, made.taints) == (("gpu",), (Taint(key="dedicated", value="ml"),))
    assert [(each.key, each.value) for each in made.tolerations] == [("nvidia.com/gpu", ""), ("team", "ml"), ("", "")]


def test_taints_of_a_node_without_kubernetes_own_words() -> None:
    """What is about to go is not schedulable; whether a host lives, its lease says."""
    given = [
        {"key": "dedicated", "value": "db", "effect": "NoSchedule"},
        {"key": "spot", "effect": "PreferNoSchedule"},
        {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},
        {"key": "karpenter.sh/disrupted", "effect": "NoSchedule"},
    ]
    node = {"metadata": {"name": "n", "labels": {"a": "b"}}, "spec": {"taints": given}}
    (made,) = nodes.rows([node])
    assert made.taints == (Taint(key="dedicated", value="db"), Taint(key="spot", effect="PreferNoSchedule"))
    assert (made.labels, made.schedulable) == ({"a": "b"}, False)
