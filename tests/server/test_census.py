"""Who came and who went, as Prometheus counters."""

from prometheus_client import CollectorRegistry

from tenured.core import commands
from tenured.core.agentspec import AgentSpec
from tenured.core.model import AgentClass, Pool
from tenured.server.census import Census
from tenured.server.replica import Replica


class World:
    def __init__(self) -> None:
        self.replica = Replica()
        self.metrics = CollectorRegistry()
        self.replica.listen(Census(self.replica, self.metrics))
        self.index = 0
        self.apply(commands.ApplyPools(pools=(Pool(name="default"),)))

    def apply(self, command: commands.Command) -> None:
        self.index += 1
        self.replica.apply(self.index, commands.encode(command))

    def host(self, incarnation: str) -> None:
        self.apply(commands.RegisterHost(name="host-0", incarnation=incarnation, pool="default", node="node-a"))
        self.apply(commands.ReportHost(incarnation=incarnation, ready=True, classes=(AgentClass(name="Counter"),)))

    def agents(self, *names: str) -> None:
        specs = tuple(AgentSpec(id=f"shop/{name}", class_name="Counter") for name in names)
        self.apply(commands.ApplyAgents(agents=specs, managed_by="API"))

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.get_sample_value(name, labels)


def test_agents_are_counted_as_they_come_and_go() -> None:
    """REG-24 and REG-25 of the requirements: once each, whatever else changes in their rows."""
    world = World()
    world.agents("a", "b")
    world.agents("a", "b")
    world.host("i0")
    items = tuple(
        commands.Assignment(uid=uid, epoch=0, incarnation="i0", reason="Scheduled")
        for uid in world.replica.registry.agents
    )
    world.apply(commands.Assign(items=items))
    assert world.value("tenure_registry_agents_registered_total") == 2
    assert world.value("tenure_host_agents", host="host-0", node="node-a") == 2
    world.apply(commands.ReleaseHost(incarnation="i0"))
    world.apply(commands.DeleteAgents(ids=("shop/a",), managed_by="API"))
    assert world.value("tenure_registry_agents_unregistered_total") == 1
    assert world.value("tenure_registry_agents_registered_total") == 2


def test_hosts_are_counted_as_they_join_and_end() -> None:
    """DISC-16 and DISC-17: by why they ended; a host that comes again is another incarnation."""
    world = World()
    world.host("i0")
    world.host("i1")
    world.apply(commands.ExpireHost(incarnation="i0"))
    world.apply(commands.ExpireHost(incarnation="i0"))
    world.apply(commands.ReleaseHost(incarnation="i1"))
    assert world.value("tenure_registry_hosts_joined_total") == 2
    assert world.value("tenure_registry_hosts_ended_total", reason="LeaseExpired") == 1
    assert world.value("tenure_registry_hosts_ended_total", reason="Released") == 1
    assert world.value("tenure_host_agents", host="host-0", node="node-a") is None


def test_a_snapshot_is_no_crowd_that_comes() -> None:
    """After it only what changes is counted."""
    world = World()
    world.host("i0")
    before = world.value("tenure_registry_hosts_joined_total")
    for listener in world.replica._listeners:
        listener.replaced()
    world.apply(commands.ReportHost(incarnation="i0", ready=True))
    assert world.value("tenure_registry_hosts_joined_total") == before == 1
