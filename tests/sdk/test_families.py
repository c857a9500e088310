"""Parents and children: who is told what, what ends with whom, and who begins again."""

import pytest
from family_agents import Boss, Notes, Worker, boss_of, fail, virtual

import tenure
from tenure import directives, errors
from tenure._local import families
from tenure._local.families import Known
from tenure.directives import Restart
from tenure.policies import StopOnError
from tenure.storage import MemoryStorage

# --- beginning ---


async def test_a_child_knows_its_parent_and_the_parent_its_children() -> None:
    async with virtual() as rt:
        boss = await boss_of(rt, "ann", tag="a")
        worker = rt.agent(Worker, "ann")
        assert await boss.team() == {"a": "default/ann"}
        assert await worker.whose() == ("default/boss", "a")
        await worker.work("sums")
        await rt.idle()
        assert rt.state(boss).log == ["a began", "ann did sums"]


async def test_what_is_sent_to_a_new_child_in_the_same_turn_arrives() -> None:
    for storage in (None, MemoryStorage()):
        async with virtual(storage=storage) as rt:
            boss = await rt.create(Boss, "boss")
            await boss.hire_and_tell("ann", "sums")
            await rt.idle()
            assert set(rt.state(boss).log) == {"ann began", "ann did sums"}


async def test_an_agent_without_a_parent_has_nobody_to_tell() -> None:
    async with virtual() as rt:
        lone = await rt.create(Worker, "lone")
        assert await lone.whose() is None
        assert await lone.ask_parent() is False


async def test_a_spawn_that_cannot_be_refuses_its_turn() -> None:
    async with virtual() as rt:
        boss = await boss_of(rt, "ann", tag="a")
        with pytest.raises(errors.Conflict, match="tag 'a' is in use: it is default/ann"):
            await boss.hire("bob", "a")
        with pytest.raises(errors.Conflict, match="default/ann exists already: adopt it"):
            await boss.hire("ann", "b")
        with pytest.raises(errors.StateInvalid, match="fails"):
            await boss.hire("bob", state={"fails": "what"})
        with pytest.raises(errors.InvalidArguments, match="names no agent"):
            await boss.hire("No Name", "n")
        assert await boss.team() == {"a": "default/ann"}
        await rt.idle()
        assert not rt.alive("bob")


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        (directives.SpawnAgent(Worker, "w", "w", restart="sometimes"), "restart is one of transient, permanent, temp"),  # type: ignore[arg-type]
        (directives.SpawnAgent(Worker, "w", "w", on_parent_end="mourn"), "on_parent_end is one of stop, continue, or"),  # type: ignore[arg-type]
        (directives.SpawnAgent(Worker, "w", ""), "needs a tag"),
        (directives.SpawnAgent(int, "w", "w"), "no subclass of tenure.Agent"),  # type: ignore[arg-type]
    ],
)
def test_options_of_children_are_checked(wanted: directives.SpawnAgent, problem: str) -> None:
    class Nobody:
        def full_id(self, agent_id: str) -> str:
            return f"default/{agent_id}"

        def known(self, agent_id: str) -> Known:
            return Known("unknown")

    with pytest.raises(errors.InvalidArguments, match=problem):
        families.fold({}, wanted, "default/boss", Nobody())


async def test_a_child_that_cannot_begin_is_no_child_and_its_parent_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with virtual() as rt:
        boss = await boss_of(rt, "ann", state={"fails": True})
        assert await boss.team() == {}
        assert rt.state(boss).log == ["ann failed: it could not begin: ValueError in on_start: no legs"]
    assert "DirectiveFailed: SpawnAgent: ValueError in on_start" in caplog.text


# --- ends ---


async def test_what_becomes_of_children_when_their_parent_ends() -> None:
    async with virtual() as rt:
        boss = await rt.create(Boss, "boss")
        await boss.hire("s", on_end="stop")
        await boss.hire("c", on_end="continue")
        await boss.hire("o", on_end="orphan")
        await rt.idle()
        await boss.leave("enough")
        await rt.idle()
        assert [rt.alive(name) for name in ("boss", "s", "c", "o")] == [False, False, True, True]
        assert await rt.agent(Worker, "c").whose() is None
        assert await rt.agent(Worker, "o").whose() is None
        assert rt.state(rt.agent(Worker, "c")).log == []
        assert rt.state(rt.agent(Worker, "o")).log == ["orphan of default/boss: enough"]


async def test_a_stopped_child_is_gone_and_its_parent_knows_why() -> None:
    async with virtual() as rt:
        boss = await boss_of(rt, "ann")
        await boss.dismiss("ann")
        await rt.idle()
        assert not rt.alive("ann")
        assert await boss.team() == {}
        assert rt.state(boss).log[1:] == ["ann ended: dismissed"]
        await boss.hire("ann")
        await rt.idle()
        assert rt.alive("ann"), "the tag and the id are free again"


async def test_stopping_a_child_that_there_is_not_is_for_the_error_policy(caplog: pytest.LogCaptureFixture) -> None:
    async with virtual() as rt:
        boss = await boss_of(rt)
        await boss.dismiss("nobody")
        await rt.idle()
        assert rt.alive(boss)
    assert "DirectiveFailed: StopChild: default/boss has no child 'nobody'" in caplog.text


async def test_an_agent_without_routes_hears_nothing_and_that_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    class Deaf(tenure.Agent[Notes], on_error=StopOnError()):
        @tenure.action
        def hire(self, ctx: tenure.Context, name: str) -> None:
            ctx.spawn(Worker, name)

        @tenure.action
        def team(self, ctx: tenure.Context) -> list[str]:
            return list(ctx.children)

    async with virtual() as rt:
        deaf = await rt.create(Deaf, "deaf")
        await deaf.hire("ann")
        await rt.idle()
        await rt.stop("ann")
        await rt.idle()
        assert await deaf.team() == []
    assert caplog.text == ""


class Clerk(tenure.Skill[Notes], key="clerk"):
    """Keeps the list."""

    @tenure.on("tenure.child.ended")
    @tenure.action
    def ended(self, tag: str, reason: str) -> None:
        self.state.log.append(f"{tag}: {reason}")

    @tenure.query
    def listed(self) -> list[str]:
        return self.state.log


class Office(tenure.Agent[Notes], skills=[Clerk()]):
    """Its skill hears of its children."""

    @tenure.action
    def hire(self, ctx: tenure.Context, name: str) -> None:
        ctx.spawn(Worker, name)


async def test_skills_hear_of_children_too() -> None:
    async with virtual() as rt:
        office = await rt.create(Office, "office")
        await office.hire("ann")
        await rt.idle()
        await rt.stop("ann", "retired")
        await rt.idle()
        assert await rt.call_by_name("office", "clerk.listed") == ["ann: retired"]


# --- restarts ---


@pytest.mark.parametrize(
    ("restart", "after_failure", "after_stop"),
    [("transient", True, False), ("permanent", True, True), ("temporary", False, False)],
)
async def test_who_begins_again(restart: Restart, after_failure: bool, after_stop: bool) -> None:
    async with virtual() as rt:
        boss = await boss_of(rt, "ann", "bob", restart=restart, state={"log": ["new"]})
        await rt.agent(Worker, "ann").work("sums")
        await fail(rt, "ann")
        await rt.agent(Worker, "bob").leave("a reason of its own")
        await rt.idle()
        assert (rt.alive("ann"), rt.alive("bob")) == (after_failure, after_stop)
        if after_failure:
            assert rt.state(rt.agent(Worker, "ann")).log == ["new"], "without a storage, as it was made"
            assert await rt.agent(Worker, "ann").whose() == ("default/boss", "ann")
            assert "ann began again, 1" in rt.state(boss).log
        else:
            assert "ann failed: ActionFailed: ValueError in work: no luck" in rt.state(boss).log
        if not after_stop:
            assert "bob ended: a reason of its own" in rt.state(boss).log


async def test_restarts_are_bounded() -> None:
    async with virtual() as rt:
        boss = await boss_of(rt, "ann")
        for _ in range(3):
            await fail(rt, "ann")
        assert rt.alive("ann")
        await fail(rt, "ann")
        assert not rt.alive("ann")
        assert rt.state(boss).log == [
            "ann began",
            *(f"ann began again, {n}" for n in (1, 2, 3)),
            "ann failed: ActionFailed: ValueError in work: no luck",
        ]
        await boss.hire("bob")
        await rt.idle()
        for _ in range(5):
            await fail(rt, "bob")
            await rt.advance(60)
        assert rt.alive("bob"), "three in a minute, not in a life"


async def test_a_permanent_child_that_is_dismissed_stays_away() -> None:
    async with virtual() as rt:
        boss = await boss_of(rt, "ann", restart="permanent")
        await boss.dismiss("ann")
        await rt.idle()
        assert not rt.alive("ann")


async def test_a_parent_that_begins_again_can_have_its_children_anew() -> None:
    class Lead(tenure.Agent[Notes], on_error=StopOnError()):
        def on_start(self, ctx: tenure.Context) -> None:
            ctx.spawn(Worker, "hand")

        @tenure.action
        def fail(self) -> None:
            raise ValueError("no luck")

    class Top(tenure.Agent[Notes]):
        @tenure.action
        def begin(self, ctx: tenure.Context) -> None:
            ctx.spawn(Lead, "lead")

    async with virtual() as rt:
        top = await rt.create(Top, "top")
        await top.begin()
        await rt.idle()
        await rt.agent(Worker, "hand").work("x")
        with pytest.raises(errors.ActionFailed):
            await rt.agent(Lead, "lead").fail()
        await rt.idle()
        assert rt.alive("lead")
        assert rt.state(rt.agent(Worker, "hand")).log == [], "another one"


# --- adoption ---


async def test_an_agent_that_is_there_can_be_adopted() -> None:
    async with virtual() as rt:
        boss = await boss_of(rt)
        lone = await rt.create(Worker, "lone")
        await boss.take("lone", "l")
        await rt.idle()
        assert await lone.whose() == ("default/boss", "l")
        assert rt.state(boss).log == ["l began"]
        await rt.stop(boss)
        await rt.idle()
        assert not rt.alive(lone)


async def test_who_cannot_be_adopted() -> None:
    async with virtual() as rt:
        boss = await boss_of(rt, "ann", tag="a")
        other = await rt.create(Boss, "other")
        await rt.create(Worker, "lone")
        await rt.create(Worker, "dead")
        await rt.stop("dead", "old age")
        with pytest.raises(errors.NotFound, match="no agent default/nobody to adopt"):
            await boss.take("nobody", "n")
        with pytest.raises(errors.AgentUnavailable, match="default/dead cannot be adopted: it has stopped: old age"):
            await boss.take("dead", "d")
        with pytest.raises(errors.Conflict, match="tag 'a' is in use"):
            await boss.take("lone", "a")
        with pytest.raises(errors.Conflict, match="default/ann cannot be adopted: it is a child of default/boss"):
            await other.take("ann", "x")
        with pytest.raises(errors.Conflict, match="itself"):
            await boss.take("boss", "me")
        await boss.take("other", "o")
        await rt.idle()
        with pytest.raises(errors.Conflict, match="an ancestor"):
            await other.take("boss", "b")
        assert await boss.team() == {"a": "default/ann", "o": "default/other"}


async def test_of_two_that_adopt_one_agent_at_once_one_gets_it(caplog: pytest.LogCaptureFixture) -> None:
    class Grab(tenure.Agent[Notes]):
        @tenure.action
        def both(self, ctx: tenure.Context) -> None:
            ctx.send("b1", Boss.take("lone", "l"))
            ctx.send("b2", Boss.take("lone", "l"))

    async with virtual() as rt:
        b1, b2 = await rt.create(Boss, "b1"), await rt.create(Boss, "b2")
        lone = await rt.create(Worker, "lone")
        await (await rt.create(Grab, "grab")).both()
        await rt.idle()
        teams = [await b1.team(), await b2.team()]
        assert sorted(map(len, teams)) == [0, 1]
        assert (await lone.whose() or ("", ""))[0] == ("default/b1" if teams[0] else "default/b2")
