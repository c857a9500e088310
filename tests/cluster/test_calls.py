"""Creating and calling agents on three servers and three hosts, each a process."""

import asyncio

import msgspec
import pytest

from tenure import errors
from tenure._remote import channels, sessions
from tenure_proto.v1 import calls_pb2
from tests.cluster.cluster_local import Local

pytestmark = pytest.mark.cluster


async def test_an_agent_is_created_called_and_asked(local: Local) -> None:
    """Its state begins where the manifest says, and a query sees what an action committed."""
    name = await local.running_agent(state={"count": 40})
    assert await local.call(name, "increment", by=2) == 42
    assert await local.call(name, "value") == 42


async def test_an_agent_is_found_by_what_its_class_offers(local: Local) -> None:
    """REG-08, REG-20: nobody wrote the capability down but the class; one of its own comes with the row."""
    by_class = await local.running_agent()
    own = await local.running_agent(capabilities=["reading-maps"], labels={"team": "atlas"})
    remote = local.remote.remote
    assert {by_class, own} <= {row.spec.id for row in await remote.find(capability="counting")}
    assert [row.spec.id for row in await remote.find(capability="reading-maps")] == [own]
    assert [row.spec.id for row in await remote.find(labels={"team": "atlas"})] == [own]
    (row,) = await remote.find(labels={"team": "atlas"})
    assert own in {found.spec.id for found in await remote.find(node=row.node)}


async def test_calls_of_many_agents_do_not_mix(local: Local) -> None:
    """Ten agents, ten calls each, all at once."""
    names = [await local.create() for _ in range(10)]
    await asyncio.gather(
        *(local.call(name, "increment", by=step) for step, name in enumerate(names) for _ in range(10))
    )
    assert [await local.call(name, "value") for name in names] == [step * 10 for step in range(10)]


async def test_a_repeated_call_id_is_answered_from_the_record(local: Local) -> None:
    """Protocol section 3, external clients: one mark, one effect, the same reply, told as recorded."""
    name = await local.running_agent()
    remote = local.remote.remote
    route = await remote.resolve(name)
    status = await local.cluster.status()
    here = remote.endpoint
    channel = channels.open_channel(
        route.address, here.host_name(route.host), here.authority_pem, here.certificate_pem, here.key_pem
    )
    call = calls_pb2.Call(
        agent=name, kind=calls_pb2.CALL_KIND_ACTION, method="increment", arguments=msgspec.msgpack.encode({"by": 5}),
        client_id="a-client", key=7, born=status.cluster_time, timeout_ms=10_000,
    )  # fmt: skip
    session = sessions.Session(channel, "test")
    try:
        async with asyncio.timeout(30):
            first = await session.send(call)
            second = await session.send(call)
    finally:
        await session.close()
        await channel.close()
    assert (msgspec.msgpack.decode(first.value), first.recorded) == (5, False)
    assert (msgspec.msgpack.decode(second.value), second.recorded) == (5, True)
    assert await local.call(name, "value") == 5


async def test_an_action_that_raises_changes_nothing_and_says_what_it_raised(local: Local) -> None:
    """The caller gets the exception's name and text, and the action's; the agent goes on."""
    name = await local.running_agent()
    with pytest.raises(errors.ActionFailed, match=r"ValueError.*no such luck") as caught:
        await local.call(name, "stumble")
    assert caught.value.outcome == "not_applied"
    assert await local.call(name, "increment") == 1


async def test_a_wrong_argument_is_refused_before_anything_runs(local: Local) -> None:
    """The parameter is named."""
    name = await local.running_agent()
    with pytest.raises(errors.InvalidArguments, match="by"):
        await local.call(name, "increment", by="many")
    with pytest.raises(errors.UnknownMethod, match="decrement"):
        await local.call(name, "decrement")


async def test_a_call_of_nobody_is_not_found(local: Local) -> None:
    """At once, not at the deadline."""
    with pytest.raises(errors.NotFound, match="shop/nobody"):
        await local.call("shop/nobody", "value")


async def test_deleting_stops_the_agent_and_then_removes_it(local: Local) -> None:
    """The row goes only after the holder has let go; a new agent of the same name starts empty."""
    name = await local.running_agent()
    await local.call(name, "increment", by=3)
    results = await local.cluster.delete_agents([name])
    assert [result.outcome for result in results] == ["deleting"]
    await local.until_rows(lambda rows: rows.agent(name) is None, f"{name} is gone")
    with pytest.raises(errors.NotFound):
        await local.call(name, "value")
    assert await local.running_agent(id=name) == name
    assert await local.call(name, "value") == 0


async def test_what_an_agent_logs_is_found_by_its_name(local: Local) -> None:
    """`tenure logs` prints it, with host and epoch."""
    name = await local.running_agent()
    await local.call(name, "note", text="the weather")
    shown = await local.tenure("logs", name)
    assert shown.status == 0, shown.err
    assert "noted the weather" in shown.out
    assert "epoch 1" in shown.out
