"""The operator against a real API server, with the chart's rights, and servers that the test speaks for."""

import asyncio
import json
from typing import Any

from tenure_proto.v1 import registry_pb2 as pb


def cluster(name: str = "demo", **spec: Any) -> dict[str, Any]:
    pools = [{"name": "default", "image": "localhost/counter:1", "modules": ["agents"]}]
    return {
        "apiVersion": "tenure.dev/v1alpha1",
        "kind": "AgentCluster",
        "metadata": {"name": name},
        "spec": {"pools": pools, **spec},
    }


def agent(name: str = "counter-1", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "tenure.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": name},
        "spec": {"class": "Counter", **spec},
    }


def said(item: dict[str, Any], kind: str) -> tuple[str, str]:
    found = next(found for found in item["status"]["conditions"] if found["type"] == kind)
    return found["status"], found["reason"]


async def running(shop: Any, *names: str) -> None:
    """A cluster whose servers answer, and agents that run."""
    await shop.apply(cluster(), *(agent(name) for name in names or ("counter-1",)))
    await shop.start_servers()
    for name in names or ("counter-1",):
        agent_id = f"{shop.namespace}/{name}"
        await shop.servers.until(f"{agent_id} applied", lambda agent_id=agent_id: agent_id in shop.servers.agents)
        await shop.servers.run(agent_id)
        await shop.wait(f"agent/{name}", ".status.phase", "Running")


async def test_an_agent_runs_whatever_was_applied_first(shop: Any) -> None:
    """An Agent waits for its cluster, then for the servers, and then says where it runs."""
    await shop.apply(agent(state={"count": 4}, config={"b": 1, "a": 2}))
    waiting = await shop.wait("agent/counter-1", ".status.reason", "ClusterNotFound")
    assert waiting["status"]["summary"] == f"Waiting: namespace {shop.namespace} has no AgentCluster"
    assert said(waiting, "Accepted") == ("False", "ClusterNotFound")
    await shop.apply(cluster())
    await shop.wait("agent/counter-1", ".status.reason", "NoQuorum")
    await shop.start_servers()
    await shop.servers.until("applied", lambda: shop.servers.agents)
    row = shop.servers.agents[f"{shop.namespace}/counter-1"]
    assert (getattr(row.spec, "class"), row.spec.pool, row.spec.cpu_milli, row.spec.memory_bytes) == (
        *("Counter", "default", 100, 128 << 20),
    )
    assert row.managed_by == pb.MANAGED_BY_KUBERNETES
    await shop.servers.run(row.spec.id, "node-2")
    found = await shop.wait("agent/counter-1", ".status.summary", "Running on node-2")
    assert said(found, "Ready") == ("True", "Running")
    assert found["status"]["epoch"] == 1
    assert found["status"]["uid"] == row.uid
    assert found["status"]["observedGeneration"] == found["metadata"]["generation"]
    assert found["metadata"]["finalizers"] == ["tenure.dev/cleanup"]
    assert {("Normal", "Accepted"), ("Normal", "Running")} <= await shop.events("counter-1")
    assert shop.servers.callers == {f"spiffe://demo.{shop.namespace}/operator/tenure-operator"}
    listed = (await shop.kubectl("get", "agents")).splitlines()
    assert listed[0].split() == ["NAME", "READY", "STATUS", "NODE", "EPOCH", "RESTARTS", "AGE"]
    assert "Running on node-2" in listed[1]


async def test_a_cluster_owns_everything_it_needs(shop: Any) -> None:
    """Every object is there, owned by the AgentCluster, and made by one field manager."""
    await shop.apply(cluster())
    await shop.wait_made("daemonset/demo-host-default")
    names = [
        *("statefulset/demo-server", "daemonset/demo-host-default", "service/demo", "service/demo-peers"),
        *("secret/demo-ca", "secret/demo-server-tls", "configmap/demo-ca", "poddisruptionbudget/demo-server"),
        *("serviceaccount/demo-server", "serviceaccount/demo-host-default", "serviceaccount/demo-client"),
    ]
    owner = await shop.get("agentcluster/demo")
    for name in names:
        item = await shop.get(name)
        (reference,) = item["metadata"]["ownerReferences"]
        assert (reference["uid"], reference["controller"]) == (owner["metadata"]["uid"], True), name
    assert "ca.key" not in (await shop.get("configmap/demo-ca"))["data"]
    binding = await shop.get(f"clusterrolebinding/tenure:{shop.namespace}:demo:server")
    assert binding["roleRef"]["name"] == "tenure-server"
    fields = (await shop.get("statefulset/demo-server", "--show-managed-fields"))["metadata"]["managedFields"]
    assert {entry["manager"] for entry in fields} == {"tenure-operator"}


async def test_nothing_is_written_when_nothing_differs(shop: Any, operator: Any) -> None:
    """A second operator, which knows nothing of the first, finds everything as it should be."""
    await running(shop)
    names = ["statefulset/demo-server", "daemonset/demo-host-default", "service/demo", "secret/demo-server-tls"]
    names += ["agentcluster/demo", "agent/counter-1", "poddisruptionbudget/demo-server", "serviceaccount/demo-server"]
    await shop.wait_condition("agentcluster/demo", "QuorumHealthy", "True")
    await operator.stop()
    before = [(await shop.get(name))["metadata"]["resourceVersion"] for name in names]
    watched = shop.servers.count("Watch")
    earlier = len(shop.servers.requests)
    await operator.start()
    await shop.servers.until("it is back", lambda: shop.servers.count("Watch") > watched)
    await shop.apply(agent("counter-2"))  # what is handled after this has seen all the rest
    await shop.servers.until("counter-2", lambda: f"{shop.namespace}/counter-2" in shop.servers.agents)
    assert [(await shop.get(name))["metadata"]["resourceVersion"] for name in names[:4] + names[5:]] == (
        before[:4] + before[5:]
    )
    later = shop.servers.requests[earlier:]
    applied = {spec.id for kind, sent in later if kind == "ApplyAgents" for spec in sent.agents}
    assert applied == {f"{shop.namespace}/counter-2"}


async def test_status_is_derived_anew_after_a_restart(shop: Any, operator: Any) -> None:
    """What happened while the operator was away is in the status once it is back."""
    await running(shop)
    await operator.stop()
    agent_id = f"{shop.namespace}/counter-1"
    failover = pb.Failover(
        wall_time=1.7e9, from_node="node-1", to_node="node-3", reason="LeaseExpired", duration_ms=2100
    )
    await shop.servers.change(agent_id, restarts=1, last_failover=failover)
    await shop.servers.run(agent_id, "node-3", epoch=2)
    await operator.start()
    found = await shop.wait("agent/counter-1", ".status.epoch", "2")
    assert found["status"]["lastFailover"] == {
        "time": "2023-11-14T22:13:22Z",
        "from": "node-1",
        "to": "node-3",
        "reason": "LeaseExpired",
        "durationMs": 2100,
    }
    assert (found["status"]["nodeName"], found["status"]["restarts"]) == ("node-3", 1)


async def test_an_agent_that_has_ended_is_not_made_anew(shop: Any) -> None:
    """`ctx.stop`: its object says so, whatever is applied; its row is the one that was, so that nobody starts it."""
    await running(shop)
    agent_id = f"{shop.namespace}/counter-1"
    said_so = {"phase": "Ended", "summary": "Ended: done", "reason": "Ended", "ended": "done"}
    await shop.servers.change(agent_id, host="", node="", incarnation="", ready=False, **said_so)
    found = await shop.wait("agent/counter-1", ".status.summary", "Ended: done")
    assert found["status"]["phase"] == "Ended"
    assert [said(found, kind)[0] for kind in ("Ready", "Progressing", "Degraded")] == ["False"] * 3
    assert "Ended: done" in await shop.kubectl("get", "agents")
    uid, created = shop.servers.agents[agent_id].uid, shop.servers.count("ApplyAgents")
    await shop.apply(agent(resources={"requests": {"cpu": "200m"}}))
    await shop.servers.until("applied again", lambda: shop.servers.count("ApplyAgents") > created)
    found = await shop.wait("agent/counter-1", ".status.observedGeneration", "2")
    assert (found["status"]["summary"], shop.servers.agents[agent_id].uid) == ("Ended: done", uid)
    await shop.kubectl("delete", "agent", "counter-1")
    assert agent_id not in shop.servers.agents


async def test_a_failover_is_told_in_sentences_conditions_and_events(shop: Any) -> None:
    await running(shop)
    agent_id = f"{shop.namespace}/counter-1"
    sentence = "Failing over from node-1"
    await shop.servers.change(
        agent_id, ready=False, host="", node="", phase="FailingOver", summary=sentence, reason="LeaseExpired"
    )
    found = await shop.wait("agent/counter-1", ".status.summary", sentence)
    assert said(found, "Ready") == ("False", "LeaseExpired")
    assert said(found, "Degraded") == ("True", "LeaseExpired")
    assert ("Warning", "LeaseExpired") in await shop.events("counter-1")


async def test_hosts_that_join_and_hosts_that_are_lost_are_events_of_the_cluster(shop: Any, eventually: Any) -> None:
    """DISC-11 and DISC-14: one event each, for what changes once the cluster has been looked at."""
    await running(shop)
    await shop.wait("agentcluster/demo", ".status.agents", "1")
    await shop.servers.add_host("late", node="node-9")

    async def told(kind: str, reason: str) -> bool:
        return (kind, reason) in await shop.events("demo")

    await eventually(lambda: told("Normal", "HostJoined"))
    await shop.servers.add_host("late", node="node-9", expired=True, ended="LeaseExpired")
    await eventually(lambda: told("Warning", "LeaseExpired"))


async def test_deleting_an_agent_stops_it_and_then_removes_it(shop: Any, eventually: Any) -> None:
    """The object stays until the servers have said that the row is gone."""
    await running(shop)
    agent_id = f"{shop.namespace}/counter-1"
    await shop.kubectl("delete", "agent", "counter-1", "--wait=false")
    await shop.servers.until("asked to delete", lambda: shop.servers.count("DeleteAgents"))
    await shop.wait("agent/counter-1", ".status.phase", "Terminating")
    assert shop.servers.agents[agent_id].deleting
    await shop.servers.drop(agent_id)
    await shop.wait_gone("agent/counter-1")
    assert agent_id not in shop.servers.agents


async def test_silence_is_not_death(shop: Any, eventually: Any) -> None:
    """Servers that do not answer: nothing is torn down, what was said stands, a deletion waits and says so."""
    await running(shop)
    await shop.servers.stop()
    await shop.wait("agentcluster/demo", ".status.conditions[?(@.type=='QuorumHealthy')].status", "Unknown")
    found = await shop.get("agent/counter-1")
    assert (found["status"]["summary"], said(found, "Ready")[0]) == ("Running on node-1", "True")
    await shop.kubectl("delete", "agent", "counter-1", "--wait=false")
    found = await shop.wait("agent/counter-1", ".status.reason", "NoQuorum")
    assert found["status"]["summary"].startswith("Terminating: waits for AgentCluster demo, no server answers")
    assert f"{shop.namespace}/counter-1" in shop.servers.agents
    await shop.kubectl("get", "statefulset/demo-server", "daemonset/demo-host-default")
    await shop.servers.serve(await shop.get("secret/demo-server-tls"), "demo-server-0")
    await shop.servers.until("asked to delete", lambda: shop.servers.count("DeleteAgents"))
    await shop.servers.drop(f"{shop.namespace}/counter-1")
    await shop.wait_gone("agent/counter-1")


async def test_what_spans_objects_is_refused_in_conditions(shop: Any) -> None:
    """An unknown pool, several clusters, no cluster: each with one sentence, and nobody else disturbed."""
    await running(shop)
    await shop.apply(agent("pooled", pool="gpu"), agent("lost", clusterRef={"name": "other"}))
    found = await shop.wait("agent/pooled", ".status.reason", "PoolNotFound")
    assert found["status"]["summary"] == "Waiting: AgentCluster demo has no pool gpu (it has default)"
    assert found["status"]["nextAction"] == "Add the pool to the AgentCluster, or correct spec.pool."
    assert ("Warning", "PoolNotFound") in await shop.events("pooled")
    found = await shop.wait("agent/lost", ".status.reason", "ClusterNotFound")
    assert "AgentCluster other does not exist" in found["status"]["summary"]
    await shop.apply(cluster("other"))
    await shop.apply(agent("unsure"))
    found = await shop.wait("agent/unsure", ".status.reason", "ClusterAmbiguous")
    assert "several AgentClusters (demo, other)" in found["status"]["summary"]
    await shop.apply(agent("unsure", clusterRef={"name": "demo"}))
    await shop.servers.until("unsure", lambda: f"{shop.namespace}/unsure" in shop.servers.agents)
    assert (await shop.get("agent/counter-1"))["status"]["phase"] == "Running"


async def test_a_refusal_of_the_registry_is_said_once_and_lifted(shop: Any) -> None:
    """A row that came through the API has the name: the sentence says so; when it is gone, the agent is taken up."""
    await running(shop)
    taken = f"{shop.namespace}/taken"
    await shop.servers.create_by_api(taken)
    await shop.apply(agent("taken"))
    found = await shop.wait("agent/taken", ".status.reason", "ManagedElsewhere")
    assert said(found, "Accepted") == ("False", "ManagedElsewhere")
    await shop.servers.drop(taken)
    await shop.servers.until("taken up", lambda: taken in shop.servers.agents)


async def test_an_edit_of_the_state_says_that_it_changes_nothing(shop: Any) -> None:
    await running(shop)
    await shop.apply(agent(state={"count": 9}))
    found = await shop.wait("agent/counter-1", ".status.conditions[?(@.type=='Accepted')].reason", "StateIgnored")
    assert said(found, "Accepted") == ("True", "StateIgnored")
    assert found["status"]["phase"] == "Running"


async def test_a_spec_edit_takes_effect(shop: Any) -> None:
    """Image, environment, number of hosts: the pods' templates follow, a superfluous set goes."""
    await running(shop)
    new = cluster()
    new["spec"]["image"] = "localhost/tenure:2"
    new["spec"]["pools"][0] |= {"replicas": 2, "image": "localhost/counter:2", "env": [{"name": "A", "value": "b"}]}
    await shop.apply(new)
    deployment = await shop.wait_made("deployment/demo-host-default")
    await shop.wait_gone("daemonset/demo-host-default")
    pod = deployment["spec"]["template"]["spec"]
    assert deployment["spec"]["replicas"] == 2
    assert pod["containers"][0]["image"] == "localhost/counter:2"
    assert {"name": "A", "value": "b"} in pod["containers"][0]["env"]
    assert pod["initContainers"][0]["image"] == "localhost/tenure:2"
    await shop.wait("statefulset/demo-server", ".spec.template.spec.containers[0].image", "localhost/tenure:2")
    new["spec"]["pools"][0]["env"] = []
    await shop.apply(new)
    await shop.wait("agentcluster/demo", ".status.observedGeneration", "3")
    pod = (await shop.get("deployment/demo-host-default"))["spec"]["template"]["spec"]
    assert not pod["containers"][0].get("env")


async def test_an_edit_by_hand_is_undone(shop: Any) -> None:
    await running(shop)
    patch = json.dumps({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}})
    await shop.kubectl("patch", "daemonset/demo-host-default", "--type=merge", "-p", patch)
    await shop.wait("daemonset/demo-host-default", ".spec.template.spec.terminationGracePeriodSeconds", "60")


async def test_a_cluster_with_agents_is_not_torn_down(shop: Any) -> None:
    """Until the agents are gone, or the annotation says that they may go."""
    await running(shop, "counter-1", "counter-2")
    await shop.servers.create_by_api(f"{shop.namespace}/by-api")
    await shop.wait("agentcluster/demo", ".status.agents", "3")
    await shop.kubectl("delete", "agentcluster", "demo", "--wait=false")
    found = await shop.wait("agentcluster/demo", ".status.conditions[?(@.type=='Degraded')].reason", "DeletionBlocked")
    assert found["status"]["summary"].startswith("Deletion blocked: 3 agents.")
    await shop.kubectl("get", "statefulset/demo-server")
    await shop.kubectl("annotate", "agentcluster", "demo", "tenure.dev/delete-agents=true")
    await shop.wait_gone("agentcluster/demo")
    await shop.wait_gone("agent/counter-1")
    await shop.wait_gone("agent/counter-2")
    await shop.wait_gone(f"clusterrolebinding/tenure:{shop.namespace}:demo:server")


async def test_an_agent_without_its_cluster_can_be_deleted(shop: Any) -> None:
    """A cluster that does not exist holds nobody back."""
    await shop.apply(agent("orphan"))
    await shop.wait("agent/orphan", ".status.reason", "ClusterNotFound")
    await shop.kubectl("delete", "agent", "orphan", f"--timeout={20}s")


async def test_a_cluster_that_never_ran_can_be_deleted(shop: Any) -> None:
    await shop.apply(cluster(), agent())
    await shop.wait("agent/counter-1", ".status.reason", "NoQuorum")
    await shop.kubectl("delete", "agentcluster", "demo", "--timeout=20s")
    await shop.wait("agent/counter-1", ".status.reason", "ClusterNotFound")


async def test_a_row_whose_object_went_without_us_is_removed(shop: Any, operator: Any) -> None:
    """Finalizers were taken off while the operator was away: the row goes, on the API server's word."""
    await running(shop)
    await operator.stop()
    await shop.kubectl("patch", "agent/counter-1", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    await shop.kubectl("delete", "agent", "counter-1", "--timeout=20s")
    await shop.servers.change(f"{shop.namespace}/counter-1", host="", node="", ready=False)
    await operator.start()
    await shop.servers.until("removed", lambda: not shop.servers.agents)


async def test_cordoned_nodes_are_told_to_the_servers(shop: Any) -> None:
    await running(shop)
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1", "labels": {"zone": "a"}}}
    await shop.apply(node)
    await shop.servers.until("node-1", lambda: "node-1" in shop.servers.nodes)
    assert shop.servers.nodes["node-1"].labels["zone"] == "a"
    await shop.kubectl("cordon", "node-1")
    await shop.servers.until("cordoned", lambda: not shop.servers.nodes["node-1"].schedulable)
    await shop.kubectl("delete", "node", "node-1")
    await shop.servers.until("gone", lambda: "node-1" not in shop.servers.nodes)


async def test_a_paused_cluster_is_left_alone(shop: Any) -> None:
    """The annotation stops writes; taking it off makes up for what was missed."""
    await running(shop)
    await shop.kubectl("annotate", "agentcluster", "demo", "tenure.dev/paused=true")
    new = cluster(image="localhost/tenure:3")
    new["metadata"]["annotations"] = {"tenure.dev/paused": "true"}
    await shop.apply(new)
    await shop.wait("agentcluster/demo", ".status.observedGeneration", "2")
    before = await shop.get("statefulset/demo-server")
    assert before["spec"]["template"]["spec"]["containers"][0]["image"] == "localhost/tenure:test"
    await shop.kubectl("annotate", "agentcluster", "demo", "tenure.dev/paused-")
    await shop.wait("statefulset/demo-server", ".spec.template.spec.containers[0].image", "localhost/tenure:3")


async def test_one_bad_cluster_blocks_nobody(shop: Any) -> None:
    """What only the API server can judge ends in the status of the cluster that it is about."""
    bad = cluster("bad")
    terms = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": "none"}}
    bad["spec"]["pools"][0]["affinity"] = {"nodeAffinity": terms}
    await shop.apply(bad)
    found = await shop.wait("agentcluster/bad", ".status.conditions[?(@.type=='Degraded')].reason", "ObjectRefused")
    assert "DaemonSet bad-host-default" in found["status"]["summary"]
    await shop.wait_made("statefulset/bad-server")
    await shop.kubectl("delete", "agentcluster", "bad", "--timeout=20s")
    await running(shop)


async def test_an_authority_that_was_spoiled_is_not_replaced(shop: Any) -> None:
    await shop.apply(cluster())
    await shop.wait_made("secret/demo-server-tls")
    await shop.kubectl("patch", "secret/demo-ca", "--type=merge", "-p", '{"data":{"ca.key":"AAAA"}}')
    await shop.kubectl("patch", "agentcluster/demo", "--type=merge", "-p", '{"spec":{"image":"localhost/tenure:4"}}')
    await shop.wait("agentcluster/demo", ".status.conditions[?(@.type=='Degraded')].reason", "AuthorityUnusable")
    assert (await shop.get("secret/demo-ca"))["data"]["ca.key"] == "AAAA"


async def test_hosts_and_classes_of_a_pool_are_shown(shop: Any) -> None:
    await running(shop)
    status = {"desiredNumberScheduled": 1, "updatedNumberScheduled": 1, "observedGeneration": 1}
    status |= {"currentNumberScheduled": 1, "numberReady": 1, "numberMisscheduled": 0}
    patch = json.dumps({"status": status})
    await shop.kubectl("patch", "daemonset/demo-host-default", "--subresource=status", "--type=merge", "-p", patch)
    await shop.servers.add_host("demo-host-default-x", node="node-1", classes=[pb.ClassInfo(name="Counter")])
    found = await shop.wait("agentcluster/demo", ".status.hosts", "1/1")
    assert found["status"]["pools"] == [{"name": "default", "desired": 1, "ready": 1, "classes": ["Counter"]}]
    assert (found["status"]["leader"], found["status"]["quorum"], found["status"]["term"]) == (
        "demo-server-1",
        "3/3",
        4,
    )
    assert await shop.wait_condition("agentcluster/demo", "Ready", "True")
    assert found["status"]["summary"] == "Running: 3 servers, 1 host, 1 agent"


async def test_many_agents_are_registered_in_few_requests(shop: Any) -> None:
    """200 Agents applied at once are written to the registry in batches."""
    await running(shop)
    before = shop.servers.count("ApplyAgents")
    await shop.apply(*(agent(f"many-{n}") for n in range(200)))
    await shop.servers.until("all", lambda: len(shop.servers.agents) == 201)
    assert shop.servers.count("ApplyAgents") - before <= 120
    await asyncio.gather(*(shop.servers.run(agent_id) for agent_id in list(shop.servers.agents)))
    await shop.kubectl("wait", "agents", "--all", "--for=condition=Ready", "--timeout=60s")
