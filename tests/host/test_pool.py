"""The worker link from the daemon's side: who may connect, who is killed, and when a worker counts as dead."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import tenure_link
from tenured.host import link
from tenured.host import pool as pool_module
from tenured.host.pool import TRIALS_AT_ONCE, WorkerPool
from tenured.host.worker import ActivationRefused, WorkerLost

CLASSES = (tenure_link.AgentClass(name="Counter", methods=(tenure_link.Method(name="value", query=True),)),)


class Heard:
    """What the pool told its host."""

    def __init__(self) -> None:
        self.changes = 0
        self.gone = asyncio.Event()
        self.terminating = asyncio.Event()
        self.lines: list[tenure_link.LogLine] = []
        self.changed = asyncio.Condition()

    def workers_changed(self) -> None:
        self.changes += 1

    def workers_gone(self) -> None:
        self.gone.set()

    def worker_terminating(self) -> None:
        self.terminating.set()

    def worker_said(self, line: tenure_link.LogLine) -> None:
        self.lines.append(line)


@pytest.fixture
def heard() -> Any:
    return Heard()


@pytest.fixture
async def pool(tmp_path: Path, heard: Heard) -> AsyncIterator[Any]:
    """A pool that listens on tmp_path/worker.sock."""
    workers = WorkerPool("inc-1", str(tmp_path / "inc-1.lock"), 2, heard)
    server = await link.listen(tmp_path / "worker.sock", workers)
    yield workers
    server.close()


@pytest.fixture
async def supervisor(pool: WorkerPool, dial: Callable[..., Any], make_hello: Callable[..., Any], tmp_path: Path) -> Any:
    """A connected PID 1 with two workers alive."""
    process = await dial(tmp_path / "worker.sock")
    process.say(make_hello("supervisor", pid=1))
    welcome = await process.hear(tenure_link.Welcome)
    assert (welcome.workers, welcome.incarnation) == (2, "inc-1")
    process.say(tenure_link.Workers(pids=(11, 12)))
    return process


@pytest.fixture
async def worker(pool: WorkerPool, dial: Callable[..., Any], make_hello: Callable[..., Any], tmp_path: Path) -> Any:
    """A connected worker, PID 11."""
    process = await dial(tmp_path / "worker.sock")
    process.say(make_hello("worker", pid=11, classes=CLASSES))
    assert (await process.hear(tenure_link.Welcome)).lock == str(tmp_path / "inc-1.lock")
    return process


def activate(uid: str = "7") -> Any:
    return tenure_link.Activate(uid=uid, epoch=1, id="shop/a", class_name="Counter")


def turn(number: int = 1, uid: str = "7") -> Any:
    return tenure_link.Turn(turn=number, uid=uid, kind="action", method="m", arguments=b"\x80", deadline_ns=0)


async def test_a_worker_makes_the_pool_ready_and_teaches_its_classes(pool: WorkerPool, worker: Any) -> None:
    """Readiness, and which methods are queries."""
    assert pool.ready
    assert pool.classes == CLASSES
    assert pool.is_query("Counter", "value") is True
    assert pool.is_query("Counter", "what") is None


def ask(chosen: Any) -> Any:
    """The end of a turn, as a future."""
    done = asyncio.get_running_loop().create_future()
    asker = SimpleNamespace(ended=lambda asked, end: asked.set_result(end))
    chosen.ask(turn(), asker, done)
    return done


async def test_activation_and_turn(pool: WorkerPool, worker: Any) -> None:
    """Frames out, answers back."""
    chosen = await pool.pick()
    asked = asyncio.ensure_future(chosen.activate(activate()))
    assert (await worker.hear(tenure_link.Activate)).uid == "7"
    worker.say(tenure_link.Activated(uid="7", epoch=1, state=b"s"))
    assert (await asked).state == b"s"
    running = ask(chosen)
    await worker.hear(tenure_link.Turn)
    worker.say(tenure_link.TurnDone(turn=1, reply=b"r"))
    assert (await running).reply == b"r"


async def test_a_worker_hears_of_a_commit_before_what_it_is_asked_next(pool: WorkerPool, worker: Any) -> None:
    """Queries read what is committed; and it is not woken for a commit alone at once."""
    chosen = await pool.pick()
    chosen.commit(7, "7")
    running = ask(chosen)
    assert await worker.hear(tenure_link.Commit) == tenure_link.Commit(turn=7, uid="7")
    assert (await worker.hear(tenure_link.Turn)).turn == 1
    assert not running.done()


async def test_a_worker_that_is_asked_nothing_more_hears_of_a_commit(pool: WorkerPool, worker: Any) -> None:
    """What the turn left to be done beside the agent waits for it."""
    chosen = await pool.pick()
    chosen.commit(7, "7")
    assert await worker.hear(tenure_link.Commit) == tenure_link.Commit(turn=7, uid="7")


async def test_a_refused_activation_says_why(pool: WorkerPool, worker: Any) -> None:
    """The fault of user code reaches the host."""
    chosen = await pool.pick()
    asked = asyncio.ensure_future(chosen.activate(activate()))
    await worker.hear(tenure_link.Activate)
    fault = tenure_link.Fault(code="StateInvalid", message="count: must be positive")
    worker.say(tenure_link.ActivationFailed(uid="7", epoch=1, fault=fault))
    with pytest.raises(ActivationRefused, match="must be positive"):
        await asked
    assert not chosen.agents


@pytest.mark.parametrize(
    "garbage",
    [b"\x00\x00\x00\x05hello", b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\xc1", tenure_link.encode(tenure_link.Pong(n=1))],
    ids=["not msgpack", "too large", "invalid byte", "before Hello"],
)
async def test_garbage_ends_the_connection_and_nothing_else(
    pool: WorkerPool, worker: Any, dial: Callable[..., Any], tmp_path: Path, garbage: Any
) -> None:
    """A process that speaks nonsense is cut off; the others go on."""
    process = await dial(tmp_path / "worker.sock")
    process.writer.write(garbage)
    await process.closed()
    assert pool.ready


@pytest.mark.parametrize(
    "nonsense",
    [
        tenure_link.TurnDone(turn=99, reply=b""),
        tenure_link.TurnDone(turn=1),
        tenure_link.Terminating(),
        tenure_link.Workers(pids=()),
    ],
    ids=["a turn never asked for", "neither reply nor fault", "not a worker's", "not a worker's either"],
)
async def test_a_worker_that_answers_nonsense_is_killed(
    pool: WorkerPool, supervisor: Any, worker: Any, nonsense: Any
) -> None:
    """It is user code and trusted with nothing but its own agents; what runs there ends as lost."""
    chosen = await pool.pick()
    lost = asyncio.Event()
    chosen.on_lost[lost.set] = None
    running = ask(chosen)
    await worker.hear(tenure_link.Turn)
    worker.say(nonsense)
    assert (await supervisor.hear(tenure_link.Kill)).pid == 11
    async with asyncio.timeout(5):
        await lost.wait()
    assert "nonsense" in chosen.connection.why_closed
    assert not running.done()
    with pytest.raises(WorkerLost):
        ask(chosen)


async def test_another_link_version_is_refused_and_reported(
    pool: WorkerPool, dial: Callable[..., Any], make_hello: Callable[..., Any], tmp_path: Path
) -> None:
    """VersionSkew, in words; gone once a good worker comes."""
    process = await dial(tmp_path / "worker.sock")
    process.say(make_hello(version=99))
    refused = await process.hear(tenure_link.Refused)
    assert refused.fault.code == "VersionSkew"
    assert pool.fault == refused.fault
    assert "99" in refused.fault.message
    good = await dial(tmp_path / "worker.sock")
    good.say(make_hello())
    await good.hear(tenure_link.Welcome)
    assert pool.fault is None


async def test_the_version_before_is_served(
    pool: WorkerPool, dial: Callable[..., Any], make_hello: Callable[..., Any], tmp_path: Path
) -> None:
    """A daemon serves N and N - 1."""
    process = await dial(tmp_path / "worker.sock")
    process.say(make_hello(version=tenure_link.LINK_VERSION - 1))
    assert (await process.hear(tenure_link.Welcome)).link_version == tenure_link.LINK_VERSION - 1


async def test_a_stranger_is_refused_by_its_credentials(
    tmp_path: Path, dial: Callable[..., Any], heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SO_PEERCRED: processes of other users get nothing but the end."""
    monkeypatch.setattr(link.os, "geteuid", lambda: os.getuid() + 1)
    workers = WorkerPool("inc-1", "lock", 1, heard)
    server = await link.listen(tmp_path / "other.sock", workers)
    process = await dial(tmp_path / "other.sock")
    await process.closed()
    server.close()
    allowed = await link.listen(tmp_path / "other.sock", workers, frozenset({os.getuid()}))
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(str(tmp_path / "other.sock"))
    peer.close()
    allowed.close()


async def test_trials_are_bounded(pool: WorkerPool, supervisor: Any) -> None:
    """After the end of a full worker there may be as many suspects as agents, and each is tried in a process."""
    asked = [asyncio.ensure_future(pool.trial_worker()) for _ in range(TRIALS_AT_ONCE + 5)]
    wanted = [(await supervisor.hear(tenure_link.Spawn)).workers for _ in asked]
    assert wanted == [*range(3, 3 + TRIALS_AT_ONCE), *[2 + TRIALS_AT_ONCE] * 5]
    for one in asked:
        one.cancel()


async def test_a_lost_worker_is_dead_once_pid_1_has_reaped_it(pool: WorkerPool, supervisor: Any, worker: Any) -> None:
    """Protocol additions 3: the same epoch goes on elsewhere only after PID 1 reported the end."""
    chosen = await pool.pick()
    lost = asyncio.Event()
    chosen.on_lost[lost.set] = None
    ask(chosen)
    await worker.hear(tenure_link.Turn)
    worker.writer.close()
    async with asyncio.timeout(5):
        await lost.wait()
    assert not chosen.dead.is_set()
    supervisor.say(tenure_link.Workers(pids=(12,), ended=11, status="signal SIGKILL"))
    async with asyncio.timeout(5):
        await chosen.dead.wait()


async def test_the_end_of_a_worker_says_what_had_begun_there(pool: WorkerPool, supervisor: Any, worker: Any) -> None:
    """Protocol 3, poison: PID 1 may say so before the connection is seen to end. One of an older SDK says nothing."""
    chosen = await pool.pick()
    supervisor.say(tenure_link.Workers(pids=(12,), ended=11, status="lease lapsed", no_fault=True, begun=(4, 7)))
    worker.writer.close()
    async with asyncio.timeout(5):
        await chosen.dead.wait()
    assert (chosen.begun, chosen.no_fault) == (frozenset({4, 7}), True)
    old = msgspec.msgpack.encode({"t": "Workers", "pids": [], "ended": 12, "status": "signal SIGKILL"})
    assert tenure_link.decode_from_process(old).begun is None


async def test_a_worker_without_its_socket_that_lives_on_is_killed(
    pool: WorkerPool, supervisor: Any, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It should end by itself within 1 s; PID 1 is told to help."""
    monkeypatch.setattr(pool_module, "REAP_LIMIT_S", 0.05)
    await pool.pick()
    worker.writer.close()
    assert (await supervisor.hear(tenure_link.Kill)).pid == 11


async def test_a_frozen_worker_is_killed_after_five_pings(
    pool: WorkerPool, supervisor: Any, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No Pong for 5 s: the agents of that worker must not wait for ever."""
    monkeypatch.setattr(pool_module, "PING_EVERY_S", 0.02)
    pinging = asyncio.ensure_future(pool.keep_pinging())
    kill = await supervisor.hear(tenure_link.Kill)
    assert (kill.pid, kill.reason) == (11, "worker 11 answered no ping for 5 s")
    pinging.cancel()


async def test_a_frozen_pid_1_costs_the_workers_their_sockets(
    pool: WorkerPool, supervisor: Any, worker: Any, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not kill them when the lease lapses: without sockets they end by themselves; then the agents are given
    up.
    """
    monkeypatch.setattr(pool_module, "PING_EVERY_S", 0.02)
    monkeypatch.setattr(pool_module, "AWAY_LIMIT_S", 0.1)
    supervisor.answer_pings = False
    pinging = asyncio.ensure_future(pool.keep_pinging())
    answering = asyncio.ensure_future(worker.hear(tenure_link.Stop))  # answers pings until the end
    await supervisor.closed()
    async with asyncio.timeout(5):
        await heard.gone.wait()
    with pytest.raises((AssertionError, ConnectionError)):
        await answering
    assert not pool.ready
    pinging.cancel()


async def test_workers_away_with_pid_1_for_two_seconds_are_given_up(
    pool: WorkerPool, supervisor: Any, worker: Any, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Container dead: away longer than the limit and the host releases its agents; the lost worker counts as dead."""
    monkeypatch.setattr(pool_module, "AWAY_LIMIT_S", 0.05)
    chosen = await pool.pick()
    supervisor.writer.close()
    worker.writer.close()
    async with asyncio.timeout(5):
        await heard.gone.wait()
        await chosen.dead.wait()


async def test_pid_1_that_comes_back_in_time_keeps_the_agents(
    pool: WorkerPool,
    supervisor: Any,
    worker: Any,
    heard: Heard,
    dial: Callable[..., Any],
    make_hello: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """A worker is connected again before the limit: nothing is given up."""
    supervisor.writer.close()
    worker.writer.close()
    again = await dial(tmp_path / "worker.sock")
    again.say(make_hello("worker", pid=21))
    await again.hear(tenure_link.Welcome)
    assert pool.ready
    assert pool._away is None
    assert not heard.gone.is_set()


async def test_import_errors_are_told(
    pool: WorkerPool, dial: Callable[..., Any], make_hello: Callable[..., Any], tmp_path: Path
) -> None:
    """From Hello and from Workers; gone when the modules import again."""
    fault = tenure_link.Fault(code="ImportFailed", message="shop/agents.py, line 3: no module named x")
    process = await dial(tmp_path / "worker.sock")
    process.say(make_hello("supervisor", pid=1, fault=fault))
    await process.hear(tenure_link.Welcome)
    assert pool.fault == fault
    process.say(tenure_link.Workers(pids=(11,)))
    process.say(tenure_link.Terminating())
    await pool._events.terminating.wait()
    assert pool.fault is None


async def test_a_lease_reaches_pid_1_at_each_renewal_and_when_it_comes_back(
    pool: WorkerPool, supervisor: Any, dial: Callable[..., Any], make_hello: Callable[..., Any], tmp_path: Path
) -> None:
    """Protocol additions 4: PID 1 kills the workers when it passes."""
    pool.lease(1000)
    assert (await supervisor.hear(tenure_link.Lease)).until_ns == 1000
    again = await dial(tmp_path / "worker.sock")
    again.say(make_hello("supervisor", pid=2))
    await again.hear(tenure_link.Welcome)
    assert (await again.hear(tenure_link.Lease)).until_ns == 1000


async def another_worker(dial: Callable[..., Any], hello: tenure_link.Hello, tmp_path: Path) -> None:
    """It is welcome."""
    extra = await dial(tmp_path / "worker.sock")
    extra.say(hello)
    await extra.hear(tenure_link.Welcome)


async def test_a_trial_waits_for_no_worker_that_is_there_already(
    pool: WorkerPool,
    supervisor: Any,
    worker: Any,
    dial: Callable[..., Any],
    make_hello: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """PID 1 has one more than the daemon wants, which has not heard of that yet: another one is asked for."""
    for pid in (12, 13):
        await another_worker(dial, make_hello(pid=pid), tmp_path)
    asked = asyncio.ensure_future(pool.trial_worker())
    assert (await supervisor.hear(tenure_link.Spawn)).workers == 4
    await another_worker(dial, make_hello(pid=14), tmp_path)
    assert (await asked).pid == 14


async def test_a_trial_gets_a_worker_of_its_own(
    pool: WorkerPool,
    supervisor: Any,
    worker: Any,
    dial: Callable[..., Any],
    make_hello: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """Protocol additions 15: one more worker, which takes no other agent and goes afterwards."""
    asked = asyncio.ensure_future(pool.trial_worker())
    assert (await supervisor.hear(tenure_link.Spawn)).workers == 3
    await another_worker(dial, make_hello(pid=13), tmp_path)
    trial = await asked
    assert trial.pid == 13
    assert (await pool.pick()).pid == 11
    another = asyncio.ensure_future(pool.trial_worker())
    assert await supervisor.hear(tenure_link.Spawn) == tenure_link.Spawn(workers=4, keep=(13,))
    another.cancel()
    assert await supervisor.hear(tenure_link.Spawn) == tenure_link.Spawn(workers=3, keep=(13,))
    pool.end_trial(trial)
    assert (await supervisor.hear(tenure_link.Kill)).pid == 13
    assert await supervisor.hear(tenure_link.Spawn) == tenure_link.Spawn(workers=2)
    supervisor.say(tenure_link.Workers(pids=(11, 12), ended=13, status="signal SIGKILL"))
    assert (await supervisor.hear(tenure_link.Spawn)).workers == 2
