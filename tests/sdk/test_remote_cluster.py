"""`tenure._remote` beside calls: rows, watches, logs, how a cluster is found and joined, the client without a loop."""

import asyncio
import contextlib
import fcntl
import json
import os
import sys
from pathlib import Path

import grpc
import pytest
from sdk_cluster import TOKEN, FakeCluster, value
from sdk_remote import AGENT, call, client

from tenure import errors
from tenure._remote import Remote, discover, enrol, parse_url
from tenure._remote.sessions import ended
from tenure_api import identity
from tenure_proto.v1 import common_pb2, registry_pb2


async def test_an_apply_is_repeated_under_one_command_id(cluster: FakeCluster) -> None:
    """A server that fails, and servers that cannot decide: the same command again; a refusal is final."""
    undecided = common_pb2.Error(code="NoQuorum", message="later", retryable=True)
    conflict = common_pb2.Error(code="Conflict", message="use kubectl", outcome=common_pb2.OUTCOME_NOT_APPLIED)
    cluster.registry.fail = [grpc.StatusCode.UNAVAILABLE]
    cluster.registry.refuse = [undecided]
    async with client(cluster) as remote:
        await remote.create(AGENT, "Counter", pool="default", state=b"\x80", config=b"\x80")
        assert len(cluster.registry.applied) == 3
        asked = cluster.registry.applied[0].agents[0]
        assert (asked.durability, asked.reads, asked.idle_timeout_s) == ("", "", 0)
        assert len({request.command_id for request in cluster.registry.applied}) == 1
        cluster.registry.refuse = [conflict]
        with pytest.raises(errors.Conflict, match="use kubectl"):
            await remote.create(AGENT, "Counter", pool="default", state=b"\x80", config=b"\x80")


async def test_a_new_agent_is_called_without_asking_where_it_is(cluster: FakeCluster) -> None:
    """The answer to the apply has said it."""
    host = await cluster.host("host-0", value(3))
    await cluster.place(AGENT, host)
    async with client(cluster) as remote:
        await call(remote)  # reads the cluster's time
        await cluster.place("shop/new", host)
        asked = cluster.registry.resolved
        await remote.apply_agents([registry_pb2.AgentSpec(id="shop/new")])
        assert await call(remote, agent="shop/new") == 3
    assert cluster.registry.resolved == asked


async def test_a_watch_goes_on_where_it_was(cluster: FakeCluster) -> None:
    """After a loss it resumes at the revision it has, but a snapshot that broke off begins anew."""
    half = registry_pb2.WatchBatch(revision=7, snapshot=True)
    whole = registry_pb2.WatchBatch(revision=8, snapshot=True, synced=True)
    delta = registry_pb2.WatchBatch(revision=9)
    cluster.registry.batches = [half, whole, delta]
    cluster.registry.fail = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE]
    revisions: list[int] = []
    async with client(cluster) as remote, contextlib.aclosing(remote.watch()) as batches:
        async for batch in batches:
            revisions.append(batch.revision)
            if batch.revision == 9:
                break
    assert revisions == [7, 8, 9]
    assert cluster.registry.watched_from == [0, 0, 8]


async def test_logs(cluster: FakeCluster) -> None:
    """The last lines, from the host that holds the agent."""
    host = await cluster.host("host-0", value(3))
    host.lines = ["one", "two", "three"]
    await cluster.place(AGENT, host)
    async with client(cluster) as remote:
        assert [line.text async for line in remote.logs(AGENT, tail=2)] == ["two", "three"]


async def test_enrolment(cluster: FakeCluster) -> None:
    """A token becomes a certificate; a wrong one is refused with the server's words."""
    address = parse_url(f"tenure://{cluster.api}/shop/main?enrol=127.0.0.1:1,{cluster.enrol}")
    endpoint = await enrol(address, TOKEN, cluster.authority.certificate_pem)
    assert identity.parse_identity(endpoint.certificate_pem).holder == "alice"
    assert "key_pem" not in repr(endpoint)
    async with Remote(endpoint) as remote:
        assert (await remote.status()).leader == "server-0"
    with pytest.raises(errors.Unauthenticated, match="who are you"):
        await enrol(address, "another", cluster.authority.certificate_pem)


async def test_discovery(cluster: FakeCluster, tmp_path: Path) -> None:
    """An URL with an identity in files or a token; a local cluster that runs; and what is said when there is none."""
    files = cluster.directory(tmp_path)
    url = f"tenure://{cluster.api}/shop/main"
    found = await discover(None, {"TENURE_URL": url, "TENURE_TLS": str(files)})
    assert (found.cluster, found.servers, found.why) == ("shop/main", (cluster.api,), "TENURE_URL is set")
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    environment = {"TENURE_TOKEN_FILE": str(token), "TENURE_CA": str(files / "ca.crt")}
    found = await discover(f"{url}?enrol={cluster.enrol}", environment)
    assert identity.parse_identity(found.certificate_pem).holder == "alice"
    home = tmp_path / "tenure" / "dev" / "dev"
    home.mkdir(parents=True)
    (home / "cluster.json").write_text(
        json.dumps({"cluster": "shop/main", "servers": [cluster.api], "tls": str(files)})
    )
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert (await discover(None, {"XDG_STATE_HOME": str(tmp_path)})).servers == (cluster.api,)
    with pytest.raises(errors.ConfigurationError, match=r"no cluster to connect to.*TENURE_URL"):
        await discover(None, {"XDG_STATE_HOME": str(tmp_path)})
    with pytest.raises(errors.ConfigurationError, match=r"no identity.*TENURE_TLS"):
        await discover(url, {})


@pytest.mark.parametrize("url", ["http://a/b/c", "tenure://", "tenure://host:1/shop", "tenure://host/a/b?x=1"])
def test_bad_urls(url: str) -> None:
    """The message shows the form."""
    with pytest.raises(errors.ConfigurationError, match=r"names no cluster|is not known"):
        parse_url(url)


def test_urls() -> None:
    """Ports have their defaults."""
    address = parse_url("tenure://a,b:1/shop/main")
    assert address.servers == ("a:7443", "b:1")
    assert address.enrol == ("a:7446", "b:7446")


async def test_closing_does_not_wait_for_what_cannot_be_cancelled() -> None:
    """gRPC's own tasks may swallow a cancellation: a client that waited for them would never end."""
    never = asyncio.Event()

    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await never.wait()
        await never.wait()

    async def failing() -> None:
        raise ConnectionError("of its own")

    tasks = [asyncio.create_task(stubborn()), asyncio.create_task(failing())]
    await asyncio.sleep(0)  # both have begun
    await ended(tasks, within_s=0.01)
    assert [task.done() for task in tasks] == [False, True]
    never.set()
    await tasks[0]


async def test_the_sync_client(cluster: FakeCluster, tmp_path: Path) -> None:
    """Typed calls without an event loop, from a process of its own (gRPC serves one loop a process)."""
    host = await cluster.host("host-0", value(3))
    await cluster.place(AGENT, host)
    code = """
import tenure, sdk_agents
with tenure.Client() as client:
    ref = client.agent(sdk_agents.Counter, "c")
    assert ref.call(sdk_agents.Counter.increment(by=2)) == 3
    assert ref.call_by_name("increment", {"by": 2}) == 3
    ref.send(sdk_agents.Counter.increment())
    assert client.create(sdk_agents.Counter, "c", reads="Quorum", idle_timeout=30).id == "shop/c"
"""
    environment = {**os.environ, "TENURE_URL": f"tenure://{cluster.api}/shop/main"}
    environment |= {"TENURE_TLS": str(cluster.directory(tmp_path)), "PYTHONPATH": str(Path(__file__).parent)}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, env=environment)
    assert await process.wait() == 0
    assert len(host.seen) == 3
    asked = cluster.registry.applied[0].agents[0]
    assert (asked.durability, asked.reads, asked.idle_timeout_s) == ("Quorum", "Quorum", 30)
