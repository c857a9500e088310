"""The conversation with a cluster's servers, without servers."""

import asyncio
from collections.abc import AsyncIterator

from tenure_operator.registry.session import Session
from tenure_operator.registry.values import (
    AgentRow,
    AgentSpec,
    Batch,
    ClusterState,
    NodeRow,
    Outcome,
    RegistryError,
    RegistryRefused,
)


class Failing:
    """Servers whose streams fail in the moment in which they are given up, as gRPC's may."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.closed = False

    async def watch(self, revision: int) -> AsyncIterator[Batch]:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RegistryError("the stream was removed") from None
        yield Batch()

    async def status(self) -> ClusterState:
        return ClusterState(leader="", term=0, servers=(), quorum_ready=0)

    async def close(self) -> None:
        self.closed = True


async def test_a_conversation_that_fails_while_it_is_given_up_ends() -> None:
    """Else the operator could not end, and a cluster that was deleted would be asked for ever."""
    servers = Failing()
    task = asyncio.create_task(Session(lambda: servers, lambda _: None).run())  # type: ignore[arg-type, return-value]
    await servers.asked.wait()
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=10)
    try:
        assert done, "it goes on"
        assert task.cancelled()
        assert servers.closed
    finally:
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)


class Forgetful(Failing):
    """Servers that take what they are told of nodes, and whose answer is lost or is a refusal, as `faults` says."""

    def __init__(self, *faults: RegistryError | None) -> None:
        super().__init__()
        self.faults = list(faults)
        self.said: list[tuple[bool, str]] = []
        """Whether the node takes new agents, and the command's id."""
        self.heard = asyncio.Condition()

    async def watch(self, revision: int) -> AsyncIterator[Batch]:
        yield Batch(synced=True)
        await asyncio.Event().wait()

    async def set_nodes(self, nodes: list[NodeRow], command: str) -> None:
        async with self.heard:
            self.said.append((nodes[0].schedulable, command))
            self.heard.notify_all()
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault

    async def said_so_often(self, count: int) -> list[tuple[bool, str]]:
        async with asyncio.timeout(10), self.heard:
            await self.heard.wait_for(lambda: len(self.said) >= count)
        return self.said


async def conversation(servers: Forgetful) -> tuple[Session, asyncio.Task[None]]:
    session = Session(lambda: servers, lambda _: None, reconnect_s=0)  # type: ignore[arg-type, return-value]
    return session, asyncio.create_task(session.run())


async def test_a_word_about_nodes_whose_answer_was_lost_cannot_come_after_a_newer_one() -> None:
    """It may be on its way still. Applied last, it would leave a node cordoned that is not."""
    servers = Forgetful(RegistryError("no answer"), RegistryError("no answer"))
    session, task = await conversation(servers)
    session.want_nodes([NodeRow(name="n1", schedulable=False)])
    await servers.said_so_often(1)
    session.want_nodes([NodeRow(name="n1", schedulable=True)])
    first, again, once_more, newer = (await servers.said_so_often(4))[:4]
    assert first == again == once_more, "said again with the same id, until it is answered"
    assert first[0] is False
    assert newer[0] is True
    assert newer[1] != first[1]
    task.cancel()


async def test_a_refused_word_about_nodes_holds_up_none_after_it() -> None:
    servers = Forgetful(RegistryRefused("a node without a name"))
    session, task = await conversation(servers)
    session.want_nodes([NodeRow(name="n1", schedulable=False)])
    first, second = (await servers.said_so_often(2))[:2]
    assert first[1] != second[1], "it is decided, so the next is a new command"
    task.cancel()


class Knowing(Failing):
    """Servers that have the row of agent `old`."""

    def __init__(self) -> None:
        super().__init__()
        self.applied: list[str] = []
        self.heard = asyncio.Event()

    async def watch(self, revision: int) -> AsyncIterator[Batch]:
        yield Batch(synced=True, agents=(AgentRow(uid="1", spec=agent("shop/old")),))
        await asyncio.Event().wait()

    async def apply_agents(self, specs: list[AgentSpec], command: str) -> list[Outcome]:
        self.applied += [spec.id for spec in specs]
        self.heard.set()
        return [Outcome(id=spec.id, outcome="created") for spec in specs]


async def test_what_was_wished_before_the_servers_told_what_they_have_is_not_written_again() -> None:
    """A new operator reads agents before the servers have answered it: that must not write every row once more."""
    servers = Knowing()
    session = Session(lambda: servers, lambda _: None)  # type: ignore[arg-type, return-value]
    for name in ("shop/old", "shop/new"):
        session.apply(agent(name))
    task = asyncio.create_task(session.run())
    async with asyncio.timeout(10):
        await servers.heard.wait()
    assert servers.applied == ["shop/new"]
    task.cancel()


def agent(name: str) -> AgentSpec:
    return AgentSpec(id=name, class_name="Counter", pool="default", object_uid=f"object of {name}", generation=1)
