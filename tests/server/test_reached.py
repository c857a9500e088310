"""A server that starts is Ready when hosts have found it: the next one may be replaced then."""

from contextlib import AsyncExitStack
from pathlib import Path

from cutting_proxy import CuttingProxy
from fake_host import FakeHost
from local_servers import LocalServers, free_ports, until

from tenured.core.model import Host
from tenured.core.profile import NS
from tenured.server.reached import WAIT_NS, Reached


def host(name: str, **other: object) -> Host:
    return Host(**{"name": name, "incarnation": f"of-{name}", "pool": "default", "node": "n", "ready": True, **other})  # type: ignore[arg-type]


def test_it_waits_for_each_host_in_service() -> None:
    hosts, reached = [host("b"), host("a"), host("c")], Reached()
    assert reached.missing(0, hosts, {"c"}) == ["a", "b"]
    assert reached.missing(NS, hosts, {"c", "b"}) == ["a"]
    assert reached.missing(2 * NS, hosts, {"c", "b", "a"}) == []


def test_a_host_that_leaves_later_is_another_matter() -> None:
    hosts, reached = [host("a")], Reached()
    assert reached.missing(0, hosts, {"a"}) == []
    assert reached.missing(NS, hosts, ()) == []


def test_hosts_that_serve_nobody_are_not_waited_for() -> None:
    """Silent, gone, or without workers."""
    others = [host("a", suspect=True, silence="Suspected"), host("b", ended="LeaseExpired"), host("c", ready=False)]
    assert Reached().missing(0, others, ()) == []


def test_a_host_that_never_comes_keeps_no_server_out_of_service() -> None:
    """Counted from the first look: a server may take long to catch up."""
    hosts, reached, began = [host("a")], Reached(), 700 * NS
    assert reached.missing(began, hosts, ()) == ["a"]
    assert reached.missing(began + WAIT_NS - 1, hosts, ()) == ["a"]
    assert reached.missing(began + WAIT_NS, hosts, ()) == []


async def test_a_real_one_says_whom_it_waits_for(tmp_path: Path) -> None:
    """As when the name of a pod that began anew still leads to where it was."""
    async with LocalServers(tmp_path, profile="Calm") as servers:
        await servers.ready()
        await servers.declare("default")
        leader = await servers.leader()
        again = next(name for name in servers.servers if name != leader)
        target, (way,) = servers.servers[again].peer_port, free_ports(1)
        before = AsyncExitStack()
        await before.enter_async_context(CuttingProxy(target, way))
        async with FakeHost(servers, ways={again: f"127.0.0.1:{way}"}):
            await before.aclose()
            await servers.kill(again)
            await servers.start(again)

            async def waits() -> bool:
                return await servers.http(again, "/readyz") == (503, "not reached yet by host-0\n")

            await until(waits, 20, lambda: servers.servers[again].log)
            async with CuttingProxy(target, way):
                await servers.ready(again)
