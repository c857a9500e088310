"""A registry under test, with verbs: each applies one entry and returns its result."""

from collections.abc import Iterable

from tenured.core import commands as c
from tenured.core import machine
from tenured.core.changes import Delta
from tenured.core.model import Agent, AgentClass, ManagedBy, Pool
from tenured.core.registry import Registry
from tenured.core.results import Result, RowResult

COUNTER = (AgentClass(name="Counter"),)


class World:
    def __init__(self) -> None:
        self.registry = Registry()
        self.index = 0
        self.log: list[bytes] = []
        self.changed = Delta()

    def apply(self, command: c.Command) -> Result:
        self.index += 1
        data = c.encode(command)
        self.log.append(data)
        applied = machine.apply(self.registry, self.index, c.decode(data))
        self.changed = applied.changed
        return applied.result

    def pool(self, *names: str, limit: int = 0) -> Result:
        return self.apply(
            c.ApplyPools(pools=tuple(Pool(name=n, max_agents_per_host=limit) for n in names or ("default",)))
        )

    def host(
        self,
        name: str,
        node: str = "",
        *,
        incarnation: str = "",
        ready: bool = True,
        pool: str = "default",
        classes: tuple[AgentClass, ...] = COUNTER,
        dead: Iterable[str] = (),
        **fields: object,
    ) -> str:
        incarnation = incarnation or f"{name}.1"
        self.apply(
            c.RegisterHost(
                name=name,
                incarnation=incarnation,
                pool=pool,
                node=node or f"node-{name}",
                dead_incarnations=tuple(dead),
                **fields,
            ),
        )
        if ready:
            self.apply(c.ReportHost(incarnation=incarnation, ready=True, classes=classes))
        return incarnation

    def create(self, *names: str, door: ManagedBy = "API", class_name: str = "Counter", **fields: object) -> list[str]:
        specs = tuple(c.AgentSpec(id=f"shop/{n}", class_name=class_name, **fields) for n in names)
        result = self.apply(c.ApplyAgents(agents=specs, managed_by=door, wall=100.0))
        return [row.uid for row in result.rows]

    def assign(self, uid: str, incarnation: str, *, epoch: int | None = None, reason: str = "Scheduled") -> RowResult:
        epoch = self.registry.agents[uid].epoch if epoch is None else epoch
        item = c.Assignment(uid=uid, epoch=epoch, incarnation=incarnation, reason=reason)
        return self.apply(c.Assign(items=(item,))).rows[0]

    def report(
        self,
        uid: str,
        *,
        epoch: int | None = None,
        incarnation: str = "",
        wall: float = 0.0,
        **what: object,
    ) -> Result:
        agent = self.registry.agents[uid]
        report = c.AgentReport(uid=uid, epoch=agent.epoch if epoch is None else epoch, **what)
        return self.apply(
            c.AgentReports(incarnation=incarnation or agent.incarnation, reports=(report,), wall=wall),
        )

    def expire(self, incarnation: str, *, wall: float = 0.0) -> Result:
        return self.apply(c.ExpireHost(incarnation=incarnation, last_heard_wall=wall))

    def agent(self, uid: str) -> Agent:
        return self.registry.agents[uid]
