"""FAIL-11: failovers as a counter by cause and a histogram of durations."""

from prometheus_client import CollectorRegistry

from tenured.core import commands as c
from tenured.core.agentspec import AgentSpec
from tenured.core.model import AgentClass, Pool
from tenured.server.losses import Losses
from tenured.server.replica import Replica


class World:
    def __init__(self) -> None:
        self.replica = Replica()
        self.metrics = CollectorRegistry()
        self.losses = Losses(self.replica, self.metrics)
        self.replica.listen(self.losses)
        self.index = 0
        self.apply(c.ApplyPools(pools=(Pool(name="default"),)))
        for number in range(2):
            host = c.RegisterHost(name=f"h{number}", incarnation=f"i{number}", pool="default", node=f"n{number}")
            self.apply(host)
            classes = (AgentClass(name="Counter"),)
            self.apply(c.ReportHost(incarnation=f"i{number}", ready=True, classes=classes))
        specs = (AgentSpec(id="shop/vital", class_name="Counter"), AgentSpec(id="shop/plain", class_name="Counter"))
        self.apply(c.ApplyAgents(agents=specs, managed_by="API"))
        self.uids = list(self.replica.registry.agents)
        items = tuple(c.Assignment(uid=uid, epoch=0, incarnation="i0", reason="Scheduled") for uid in self.uids)
        self.apply(c.Assign(items=items))

    def apply(self, command: c.Command) -> None:
        self.index += 1
        self.replica.apply(self.index, c.encode(command))

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.get_sample_value(name, labels) or 0.0


def test_a_failover_is_counted_once_and_timed_to_its_end() -> None:
    world = World()
    vital, plain = world.uids
    world.apply(c.ExpireHost(incarnation="i0", last_heard_wall=100.0, wall=102.4))
    world.apply(c.ExpireHost(incarnation="i0", last_heard_wall=100.0, wall=102.4))
    assert world.value("tenure_failovers_total", cause="LeaseExpired") == 1
    world.apply(c.Assign(items=(c.Assignment(uid=vital, epoch=1, incarnation="i1", reason="LeaseExpired"),)))
    marked = c.UnavailableItem(uid=plain, epoch=1, reason="NodeLost", message="n0 was lost")
    world.apply(c.MarkUnavailable(items=(marked,)))
    assert world.value("tenure_failover_seconds_count") == 0
    ready = c.AgentReport(uid=vital, epoch=2, ready=True)
    world.apply(c.AgentReports(incarnation="i1", reports=(ready,), wall=102.6))
    assert world.value("tenure_failover_seconds_count") == 1
    assert abs(world.value("tenure_failover_seconds_sum") - 2.6) < 1e-6
    assert world.value("tenure_failover_agents_total", became="ready") == 1
    assert world.value("tenure_failover_agents_total", became="unavailable") == 1


def test_silent_and_held_hosts_are_gauges() -> None:
    world = World()
    world.apply(c.ClassifyHosts(items=(c.HostClass("i0", True, "Held"), c.HostClass("i1", True, "Silent"))))
    assert world.value("tenure_hosts_silent") == 2
    assert world.value("tenure_failover_held_hosts") == 1


def test_what_a_snapshot_brings_was_counted_by_others() -> None:
    world = World()
    world.apply(c.ExpireHost(incarnation="i0", last_heard_wall=100.0, wall=102.4))
    other = World()
    taking = other.replica.restore()
    for chunk in world.replica.snapshot():
        taking.feed(chunk)
    taking.finish()
    assert other.value("tenure_failovers_total", cause="LeaseExpired") == 0
    other.apply(c.DeleteAgents(ids=("shop/vital", "shop/plain"), managed_by="API"))
    assert other.value("tenure_failover_agents_total", became="left") == 2
