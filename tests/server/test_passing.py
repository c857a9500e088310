"""Calls through a server: the same call id until it is settled, and honesty about what is known when time is up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from tenure_api.identity import Identity, Role
from tenure_proto.v1.calls_pb2 import CALL_KIND_CONTROL, Call, LogBatch, LogsRequest, Reply
from tenure_proto.v1.common_pb2 import OUTCOME_NOT_APPLIED, OUTCOME_UNKNOWN, Error
from tenured.core import commands
from tenured.core.agentspec import AgentSpec
from tenured.core.model import AgentClass, Pool
from tenured.raft import Applied, Outcome
from tenured.server.passing import Passing
from tenured.server.replica import Replica
from tenured.transport.errors import LinkLost, NotConnected

ME = Identity("demo.shop", Role.CLIENT, "me")
Answer = Callable[[Call], Reply]


class Hosts:
    """Hosts by address; each answers with what the test has set, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer | Exception]] = {}
        self.asked: list[tuple[str, str, Call]] = []

    def connect(self, address: str, expected: str) -> Client:
        return Client(self, address, expected)


class Client:
    def __init__(self, hosts: Hosts, address: str, expected: str) -> None:
        self.hosts, self.address, self.expected = hosts, address, expected

    async def call(self, call: Call, timeout_s: float) -> Reply:
        copy = Call()
        copy.CopyFrom(call)
        self.hosts.asked.append((self.address, self.expected, copy))
        await asyncio.sleep(0)
        answers = self.hosts.answers[self.address]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer(call)

    async def logs(self, request: LogsRequest) -> AsyncIterator[LogBatch]:
        yield LogBatch()

    async def close(self) -> None:
        pass


class Consensus:
    async def barrier(self, timeout_s: float) -> Outcome:
        return Applied(0, b"")


class World:
    def __init__(self) -> None:
        self.replica, self.hosts, self.index = Replica(), Hosts(), 0
        self.passing = Passing("demo.shop", self.replica, Consensus(), self.hosts.connect)
        self.place(commands.ApplyPools(pools=(Pool(name="default"),)))
        for name in ("h0", "h1"):
            self.place(
                commands.RegisterHost(name=name, incarnation=name, pool="default", node=name, address=f"{name}:7445")
            )
            self.place(commands.ReportHost(incarnation=name, ready=True, classes=(AgentClass(name="Counter"),)))
        self.place(commands.ApplyAgents(agents=(AgentSpec(id="shop/a", class_name="Counter"),), managed_by="API"))
        (self.uid,) = self.replica.registry.agents

    def place(self, command: commands.Command) -> None:
        self.index += 1
        self.replica.apply(self.index, commands.encode(command))

    def assign(self, host: str, epoch: int) -> None:
        item = commands.Assignment(uid=self.uid, epoch=epoch, incarnation=host, reason="Scheduled")
        self.place(commands.Assign(items=(item,)))
        report = commands.AgentReport(uid=self.uid, epoch=epoch + 1, ready=True)
        self.place(commands.AgentReports(incarnation=host, reports=(report,)))

    def release(self, host: str, epoch: int) -> None:
        report = commands.AgentReport(uid=self.uid, epoch=epoch, released=True)
        self.place(commands.AgentReports(incarnation=host, reports=(report,)))

    async def call(self, timeout_ms: int = 2000) -> Reply:
        call = Call(agent="shop/a", method="increment", client_id="me", key=7, timeout_ms=timeout_ms, caller="forged")
        async with asyncio.timeout(5):
            return await self.passing.call(ME, call)


def value(_: Call) -> Reply:
    return Reply(value=b"2")


def refusal(code: str, outcome: int, *, retryable: bool = True) -> Answer:
    error = Error(code=code, message=code, outcome=outcome, retryable=retryable)  # type: ignore[arg-type]
    return lambda _: Reply(error=error)


async def test_the_holder_is_asked_in_the_name_of_the_verified_caller() -> None:
    world = World()
    world.assign("h0", 0)
    world.hosts.answers["h0:7445"] = [value]
    assert (await world.call()).value == b"2"
    ((address, expected, call),) = world.hosts.asked
    assert (address, expected) == ("h0:7445", "h0.host.demo.shop.tenure")
    assert (call.caller, call.key) == ("spiffe://demo.shop/client/me", 7)
    assert 0 < call.timeout_ms <= 2000


async def test_a_moved_agent_is_asked_again_at_its_new_holder_under_the_same_call_id() -> None:
    world = World()
    world.assign("h0", 0)

    def moved(call: Call) -> Reply:
        world.release("h0", 1)
        world.assign("h1", 1)
        return refusal("Moved", OUTCOME_NOT_APPLIED)(call)

    world.hosts.answers = {"h0:7445": [moved], "h1:7445": [value]}
    assert (await world.call()).value == b"2"
    assert [(address, call.client_id, call.key) for address, _, call in world.hosts.asked] == [
        ("h0:7445", "me", 7),
        ("h1:7445", "me", 7),
    ]


async def test_an_agent_that_nobody_holds_is_waited_for() -> None:
    world = World()
    world.hosts.answers["h0:7445"] = [value]
    calling = asyncio.ensure_future(world.call())
    await asyncio.sleep(0)
    world.assign("h0", 0)
    assert (await calling).value == b"2"


async def test_what_may_have_been_applied_stays_unknown_when_time_is_up() -> None:
    world = World()
    world.assign("h0", 0)
    world.hosts.answers["h0:7445"] = [LinkLost("cut"), NotConnected("refused")]
    reply = await world.call(timeout_ms=1500)
    assert reply.error.outcome == OUTCOME_UNKNOWN
    assert reply.error.retryable
    assert len(world.hosts.asked) > 1


async def test_what_never_left_is_not_applied() -> None:
    world = World()
    world.assign("h0", 0)
    world.hosts.answers["h0:7445"] = [NotConnected("refused")]
    reply = await world.call(timeout_ms=1000)
    assert (reply.error.code, reply.error.outcome) == ("Unavailable", OUTCOME_NOT_APPLIED)


async def test_a_verdict_that_is_final_is_not_repeated() -> None:
    world = World()
    world.assign("h0", 0)
    world.hosts.answers["h0:7445"] = [refusal("ActionFailed", OUTCOME_NOT_APPLIED, retryable=False)]
    assert (await world.call()).error.code == "ActionFailed"
    assert len(world.hosts.asked) == 1


async def test_an_unknown_agent_is_not_found() -> None:
    world = World()
    reply = await world.passing.call(ME, Call(agent="shop/b", timeout_ms=1000))
    assert (reply.error.code, reply.error.outcome) == ("NotFound", OUTCOME_NOT_APPLIED)


async def test_an_operation_reaches_the_host_of_a_paused_agent() -> None:
    """It is not Ready, and its holder is the one who can let it go on; the caller is whom the server has verified."""
    world = World()
    world.assign("h0", 0)
    paused = commands.TroubleReport(phase="Paused", reason="Paused", message="increment failed 5 times", attempt=5)
    world.place(
        commands.AgentReports(incarnation="h0", reports=(commands.AgentReport(uid=world.uid, epoch=1, trouble=paused),))
    )
    world.hosts.answers["h0:7445"] = [lambda _: Reply(value=b"\x80")]
    call = Call(agent="shop/a", kind=CALL_KIND_CONTROL, method="resume", client_id="me", key=7, timeout_ms=2000)
    assert (await world.passing.call(ME, call)).value == b"\x80"
    (asked,) = [call for _, _, call in world.hosts.asked]
    assert (asked.kind, asked.caller, asked.key) == (CALL_KIND_CONTROL, ME.uri, 7)
