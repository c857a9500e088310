"""Three servers on one loop: election, forwarding, the death of a leader, an empty disk, a restart."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tenured.raft import Applied, NotApplied, RaftConfig, Unknown, consensus
from tests.raft.raft_servers import Servers


async def test_three_empty_servers_found_a_cluster_and_elect(servers: Servers) -> None:
    await servers.start()
    leader = await servers.elected()
    assert {r.leader for r in servers.roles().values()} == {leader}
    assert len({r.term for r in servers.roles().values()}) == 1


async def test_a_follower_passes_a_proposal_to_the_leader_and_sees_its_effect(servers: Servers) -> None:
    await servers.start()
    leader = await servers.elected()
    follower = next(n for n in servers.names if n != leader)
    outcome = await servers.write(follower, b"hello")
    assert outcome.result == b"1"
    assert servers.machines[follower].commands == [b"hello"]


async def test_a_killed_leader_is_replaced_and_nothing_acknowledged_is_lost(servers: Servers) -> None:
    await servers.start()
    leader = await servers.elected()
    for n in range(20):
        await servers.write(leader, b"%d" % n)
    await servers.kill(leader)
    successor = await servers.elected()
    assert successor != leader
    await servers.write(successor, b"after")
    assert servers.machines[successor].commands == [*(b"%d" % n for n in range(20)), b"after"]


async def test_a_barrier_on_a_follower_shows_every_acknowledged_write(servers: Servers) -> None:
    await servers.start()
    leader = await servers.elected()
    follower = next(n for n in servers.names if n != leader)
    await servers.write(leader, b"x")
    assert isinstance(await servers.running[follower].barrier(5), Applied)
    assert servers.machines[follower].commands == [b"x"]


async def test_a_restart_of_all_keeps_everything(servers: Servers) -> None:
    await servers.start()
    leader = await servers.elected()
    await asyncio.gather(*(servers.write(leader, b"%d" % n) for n in range(50)))
    term = servers.roles()[leader].term
    for name in servers.names:
        await servers.kill(name)
    await servers.start()
    leader = await servers.elected()
    assert isinstance(await servers.running[leader].barrier(5), Applied)
    assert sorted(servers.machines[leader].commands) == sorted(b"%d" % n for n in range(50))
    assert servers.roles()[leader].term > term


async def test_a_new_leader_is_ready_only_with_all_that_was_acknowledged(tmp_path: Path) -> None:
    """Its commit index is old until an entry of its own term commits: it must not be asked before that."""
    alone = Servers(tmp_path, ("alone",))
    await alone.start()
    await alone.elected()
    await asyncio.gather(*(alone.write("alone", b"%d" % n) for n in range(300)))
    await alone.kill("alone")
    had: list[int] = []
    await alone.start()
    server = alone.running["alone"]
    server.on_role = lambda role: had.append(len(alone.machines["alone"].commands)) if role.ready else None
    await alone.until(lambda: bool(had))
    await server.stop()
    assert had[0] == 300


async def test_an_empty_disk_rejoins_without_a_vote_and_gets_it_back(servers: Servers) -> None:
    await servers.start()
    leader = await servers.elected()
    lost = next(n for n in servers.names if n != leader)
    await servers.write(leader, b"before")
    await servers.kill(lost)
    servers.wipe(lost)
    await servers.write(leader, b"meanwhile")
    await servers.start(lost)
    assert not servers.roles()[lost].voter
    await servers.until(lambda: servers.roles()[lost].voter and servers.roles()[lost].ready)
    assert servers.machines[lost].commands == [b"before", b"meanwhile"]


async def test_an_entry_of_a_leader_is_not_taken_by_its_successor(servers: Servers) -> None:
    """Protocol 1, leader: a tick or an expiry means something in its own term only."""
    await servers.start()
    leader = await servers.elected()
    term = servers.roles()[leader].term
    follower = next(n for n in servers.names if n != leader)
    assert isinstance(await servers.running[leader].propose(b"x", 5, term=term), Applied)
    assert isinstance(await servers.running[leader].propose(b"x", 5, term=term - 1), NotApplied)
    assert isinstance(await servers.running[follower].propose(b"x", 5, term=term), NotApplied)


async def test_a_follower_without_a_leader_says_so_and_is_not_ready(servers: Servers) -> None:
    await servers.start()
    leader = await servers.elected()
    survivor, other = (n for n in servers.names if n != leader)
    await servers.kill(leader)
    await servers.kill(other)
    await servers.until(lambda: servers.roles()[survivor].leader is None and not servers.roles()[survivor].ready)


async def test_a_stopping_server_answers_what_it_can_and_takes_nothing_more(servers: Servers) -> None:
    await servers.start()
    leader = await servers.elected()
    calls = [asyncio.ensure_future(servers.running[leader].propose(b"%d" % n, 5)) for n in range(20)]
    stopped = servers.running[leader]
    follower = next(n for n in servers.names if n != leader)
    calls += [asyncio.ensure_future(servers.running[follower].propose(b"%d" % n, 5)) for n in range(20, 40)]
    await servers.write(leader, b"first")
    await servers.stop(leader)
    outcomes = [await call for call in calls]
    assert isinstance(await stopped.propose(b"x", 5), NotApplied)
    successor = await servers.elected()
    assert isinstance(await servers.running[successor].barrier(5), Applied)
    kept = set(servers.machines[successor].commands)
    assert {b"%d" % n for n, o in enumerate(outcomes) if isinstance(o, Applied)} <= kept
    assert not {b"%d" % n for n, o in enumerate(outcomes) if isinstance(o, NotApplied)} & kept


class SlowToElect(Servers):
    """Servers that miss their leader after seconds only, so that a disk which stands still for less elects nobody."""

    def config(self, name: str) -> RaftConfig:
        return replace(super().config(name), election_min_s=2.0, election_max_s=3.0)


async def test_stop_hands_leadership_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another server stands before this one is gone, and nobody has to miss it first."""
    monkeypatch.setattr(consensus, "HAND_OVER_S", 10.0)
    servers = SlowToElect(tmp_path, ("a", "b", "c"))
    await servers.start()
    leader = await servers.elected()
    await servers.write(leader, b"x")
    term = servers.roles()[leader].term
    await servers.stop(leader)
    assert max(role.term for role in servers.roles().values()) == term + 1
    successor = await servers.elected()
    assert servers.roles()[successor].term == term + 1
    for name in list(servers.running):
        await servers.kill(name)
    assert not servers.fatal


async def test_a_proposal_without_a_leader_is_certainly_not_applied(servers: Servers) -> None:
    await servers.start("a")
    outcome = await servers.running["a"].propose(b"x", 5)
    assert isinstance(outcome, NotApplied)


async def test_a_proposal_that_a_lone_leader_cannot_commit_is_unknown_within_its_deadline(servers: Servers) -> None:
    await servers.start()
    leader = await servers.elected()
    for other in servers.names:
        if other != leader:
            await servers.kill(other)
    outcome = await servers.running[leader].propose(b"x", 0.2)
    assert isinstance(outcome, Unknown)


async def test_one_server_founds_by_itself(make_servers: type[Servers], tmp_path: Path) -> None:
    single = make_servers(tmp_path, ("only",))
    await single.start()
    await single.elected()
    assert (await single.write("only", b"x")).result == b"1"
    await single.kill("only")
    await single.start()
    await single.elected()
    await single.write("only", b"y")
    assert single.machines["only"].commands == [b"x", b"y"]
    await single.kill("only")


async def test_the_leader_completes_each_command_once_whoever_sent_it(servers: Servers) -> None:
    """Before it has a place in the log: all servers apply what the leader made of it."""
    await servers.start()
    leader = await servers.elected()
    for name, server in servers.running.items():
        server.on_place = lambda command, name=name: command + b" by " + name.encode()
    for name in servers.names:
        await servers.write(name, name.encode())
    assert servers.machines[leader].commands == [f"{name} by {leader}".encode() for name in servers.names]


async def test_a_command_that_cannot_be_completed_is_placed_as_it_came(servers: Servers) -> None:
    """A defect in what completes commands stops no server and loses no command."""
    await servers.start()
    leader = await servers.elected()

    def broken(command: bytes) -> bytes:
        raise ValueError("a defect")

    servers.running[leader].on_place = broken
    await servers.write(leader, b"x")
    servers.running[leader].on_place = lambda command: command + bytes(1 << 20)  # larger than a command may be
    await servers.write(leader, b"y")
    assert servers.machines[leader].commands == [b"x", b"y"]
