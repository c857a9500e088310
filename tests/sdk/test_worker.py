"""`python -m tenure.worker`: real processes, and a test that plays the daemon."""

import asyncio
import fcntl
import os
import signal
from pathlib import Path

import msgspec
import pytest
import sdk_daemon
from sdk_daemon import AGENTS, LATE, MINED, MOUNTED, SECOND, Daemon, boot_ns, exists, kill, running, until

from tenure_link import (
    Activate,
    Activated,
    ActivationFailed,
    Deactivate,
    Drop,
    Kill,
    Lease,
    LogLine,
    Ping,
    Pong,
    Spawn,
    Terminating,
    TurnDone,
    Workers,
    encode,
)


def fork_server(daemon: Daemon, workers: set[int]) -> int:
    children = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text().split()
    (found,) = {int(pid) for pid in children} - workers
    return found


async def answered(worker: sdk_daemon.Conversation) -> None:
    """Whatever it was doing in this turn of its loop is done."""
    worker.send(Ping(99))
    await worker.next(Pong)


async def test_a_turn_and_its_commit(tmp_path: Path) -> None:
    """First state, turns on it, a query, a second activation from what was committed."""
    async with running(tmp_path) as daemon:
        _, worker = await daemon.welcome()
        assert [info.name for info in worker.hello.classes] == ["Counter"]
        first = await worker.activate()
        assert msgspec.msgpack.decode(first.state) == {"count": 0}
        worker.turn("increment", by=5)
        done = await worker.next(TurnDone)
        assert (msgspec.msgpack.decode(done.reply), msgspec.msgpack.decode(done.state)) == (5, {"count": 5})
        assert [(signal.id, signal.type) for signal in done.signals] == [("7.3.1.0", "counter.changed")]
        worker.send(Drop(1, "7"))
        assert await worker.do("value") == 0
        again = await worker.activate(state=msgspec.msgpack.encode({"count": 9}))
        assert again.state is None
        assert await worker.do("increment") == 10


async def test_activation_says_why_not(tmp_path: Path) -> None:
    """An unknown class with near names; a state that does not fit, with the field."""
    async with running(tmp_path) as daemon:
        _, worker = await daemon.welcome()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await worker.activate(class_name="Conter")
        failed = await worker.next(ActivationFailed)
        assert (failed.fault.code, "did you mean Counter?" in failed.fault.message) == ("ClassNotFound", True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await worker.activate(state=msgspec.msgpack.encode({"count": "x"}))
        failed = await worker.next(ActivationFailed)
        assert failed.fault.code == "StateInvalid"
        assert "`count`" in failed.fault.message


async def test_the_hook_of_an_activation(tmp_path: Path) -> None:
    """Before any turn; what it makes of the state goes to the daemon, and so does what it sends."""
    async with running(tmp_path, MOUNTED) as daemon:
        _, worker = await daemon.welcome()
        first = await worker.activate(class_name="Mounted")
        assert msgspec.msgpack.decode(first.state) == {"count": 1}
        assert await worker.do("value") == 1
        again = await worker.activate(state=msgspec.msgpack.encode({"count": 7}), class_name="Mounted")
        assert msgspec.msgpack.decode(again.state) == {"count": 107}
        assert await worker.do("increment") == 108
        sending = await worker.activate(state=msgspec.msgpack.encode({"count": 901}), class_name="Mounted")
        assert [sent.to for sent in sending.sends] == [""]
        assert again.sends == ()


async def test_the_lock_is_held_while_the_worker_lives(tmp_path: Path) -> None:
    """Proof of death (API.md 3): the lock of the incarnation is free only when the worker is gone."""
    async with running(tmp_path) as daemon:
        _, worker = await daemon.welcome()
        worker.send(Ping(1))
        await worker.next(Pong)
        with daemon.lock.open() as file:
            with pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            kill(worker.hello.pid)
            await worker.ended()
            await until(lambda: not exists(worker.hello.pid), "the worker is gone")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Declared dead: a worker that is welcomed to this incarnation now must not serve.
            late = await daemon.worker()
            await late.ended()
            await until(lambda: not exists(late.hello.pid), "a worker without the lock ends")


async def test_the_lock_of_a_removed_file_is_no_lock(tmp_path: Path) -> None:
    """Protocol additions 1: a successor unlinks the file once the death is committed; who opened it before and locks it
    after that holds the lock of nothing. Opening it through /proc is the same as having opened it before.
    """
    async with running(tmp_path) as daemon:
        _, worker = await daemon.welcome()
        worker.send(Ping(1))
        await worker.next(Pong)  # it has its lock: else it would end by itself
        with daemon.lock.open() as file:
            daemon.lock.unlink()
            daemon.lock = Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")
            kill(worker.hello.pid)
            late = await daemon.worker()
            await late.ended()
            await until(lambda: not exists(late.hello.pid), "a worker with a lock on a removed file ends")


async def test_pings_are_answered_while_a_thread_works_and_not_while_the_loop_stands(tmp_path: Path) -> None:
    """The contract of the link: a blocked loop is a hung worker."""
    async with running(tmp_path) as daemon:
        _, worker = await daemon.welcome()
        await worker.activate()
        worker.turn("sleep", seconds=0.5)
        worker.send(Ping(1))
        await worker.next(Pong)
        await worker.next(TurnDone)  # in this order: the answer did not wait for the turn
        worker.send(Drop(1, "7"))
        worker.turn("block", seconds=0.5)
        await until((tmp_path / "blocked").exists, "the loop stands still")
        worker.send(Ping(2))
        await worker.next(TurnDone)
        await worker.next(Pong)


async def test_a_running_turn_can_be_dropped(tmp_path: Path) -> None:
    """It is cancelled and undone, and the next turn goes on from the committed state."""
    async with running(tmp_path) as daemon:
        _, worker = await daemon.welcome()
        await worker.activate()
        number = worker.turn("forever")
        worker.send(Drop(number, "7"))
        assert await worker.do("increment") == 1
        worker.turn("forever")
        worker.send(Deactivate("7", 3))
        await worker.activate()
        assert await worker.do("increment") == 1


async def test_words_of_user_code_reach_the_daemon(tmp_path: Path) -> None:
    """What is printed and logged comes with the agent's uid, and appears on stderr."""
    async with running(tmp_path) as daemon:
        _, worker = await daemon.welcome()
        await worker.activate()
        worker.turn("speak")
        printed, logged = await worker.next(LogLine), await worker.next(LogLine)
        assert (printed.uid, printed.level, printed.text) == ("7", "info", "printed")
        assert (logged.uid, logged.level, logged.text) == ("7", "warning", "logged 1")
        await until(lambda: "printed\n" in daemon.said(), "the line is on stderr")


async def test_a_dead_worker_is_replaced_at_once_with_its_children_gone(tmp_path: Path) -> None:
    """The supervisor reports how it ended; what user code had started ends too."""
    async with running(tmp_path) as daemon:
        supervisor, worker = await daemon.welcome()
        await worker.activate()
        child = await worker.do("child")
        worker.turn("leave", status=3)
        report = await supervisor.next(Workers, sdk_daemon.ended)
        assert (report.ended, report.status) == (worker.hello.pid, "exit status 3")
        assert (await daemon.worker()).hello.pid != worker.hello.pid
        await until(lambda: not exists(child), "the worker's child has ended")


async def test_kill_and_spawn(tmp_path: Path) -> None:
    """The daemon has one killed, and more or fewer kept."""
    async with running(tmp_path) as daemon:
        supervisor, worker = await daemon.welcome()
        supervisor.send(Spawn(2))
        second = await daemon.worker()
        supervisor.send(Kill(worker.hello.pid, "no answer"))
        report = await supervisor.next(Workers, sdk_daemon.ended)
        assert (report.ended, report.status) == (worker.hello.pid, "killed: no answer")
        third = await daemon.worker()
        supervisor.send(Spawn(1))
        report = await supervisor.next(Workers, sdk_daemon.ended)
        assert report.ended == third.hello.pid
        assert report.pids == (second.hello.pid,)


async def test_a_trial_that_ends_takes_no_other_trial_with_it(tmp_path: Path) -> None:
    """The daemon ends one and wants one fewer while PID 1 has not reaped it: the youngest is not one too many."""
    async with running(tmp_path) as daemon:
        supervisor, _ = await daemon.welcome()
        supervisor.send(Spawn(2))
        over = await daemon.worker()
        supervisor.send(Spawn(3))
        other = await daemon.worker()
        os.kill(over.hello.pid, signal.SIGSTOP)
        supervisor.writer.write(encode(Kill(over.hello.pid, "its trial is over")) + encode(Spawn(2)))
        report = await supervisor.next(Workers, sdk_daemon.ended)
        assert (report.ended, report.no_fault) == (over.hello.pid, False)
        supervisor.send(Ping(1))
        await supervisor.next(Pong)
        assert other.hello.pid in report.pids
        assert await other.activate()
        supervisor.send(Spawn(1, keep=(other.hello.pid,)))
        report = await supervisor.next(Workers, sdk_daemon.ended)
        assert (report.pids, report.no_fault) == ((other.hello.pid,), True)


async def test_the_end_of_a_worker_says_which_turns_had_begun(tmp_path: Path) -> None:
    """Protocol 3, poison [note_first]: not those that had ended, not those that waited. Nothing is left of the worker
    before.
    """
    async with running(tmp_path) as daemon:
        supervisor, worker = await daemon.welcome()
        await worker.activate()
        await worker.do("increment")
        ran = worker.turn("forever")
        worker.turn("increment")
        asked = worker.turn("value")
        assert (await worker.next(TurnDone)).turn == asked  # the loop has gone round since `forever` was sent
        await answered(worker)
        kill(worker.hello.pid)
        report = await supervisor.next(Workers, sdk_daemon.ended)
        assert (report.begun, report.no_fault) == ((ran,), False)
        second = await daemon.worker()
        await second.activate()
        second.turn("value")
        await second.next(TurnDone)
        await answered(second)
        kill(second.hello.pid)
        assert (await supervisor.next(Workers, sdk_daemon.ended)).begun == ()
        third = await daemon.worker()
        await third.activate()
        last = third.turn("leave", status=3)
        assert (await supervisor.next(Workers, sdk_daemon.ended)).begun == (last,)


async def test_an_activation_is_noted_as_a_turn_is(tmp_path: Path) -> None:
    """Protocol 3, poison [note_first]: `on_start` is user code, too. What is over, or was given up, is crossed out."""
    async with running(tmp_path, LATE) as daemon:
        supervisor, worker = await daemon.welcome()
        for number in range(2_000):  # more than there are places
            worker.send(Activate(f"a{number}", 1, f"shop/a{number}", "Counter", turn=number + 1))
            await worker.next(Activated)
        worker.send(Activate("8", 1, "shop/b", "Late", turn=5_000))
        worker.send(Deactivate("8", 1))
        worker.send(Activate("8", 2, "shop/b", "Late", turn=5_001))
        for _ in range(3):  # turns of its loop, in which what was cancelled ends
            await answered(worker)
        kill(worker.hello.pid)
        assert (await supervisor.next(Workers, sdk_daemon.ended)).begun == (5_001,)


async def test_a_turn_is_noted_before_its_agent_is_woken(tmp_path: Path) -> None:
    """Protocol 3, poison [note_first]: validators of the state of one that dozes are user code, too."""
    async with running(tmp_path, MINED) as daemon:
        supervisor, worker = await daemon.welcome()
        await worker.activate(class_name="Mined")
        await until((tmp_path / "mine").exists, "it dozes")
        asked = worker.turn("value")
        report = await supervisor.next(Workers, sdk_daemon.ended)
        assert (report.begun, report.status) == ((asked,), "exit status 3")


async def test_a_turn_that_is_dropped_wakes_nobody(tmp_path: Path) -> None:
    """There is nothing to undo of one that dozes, so nothing of it is read."""
    async with running(tmp_path, MINED) as daemon:
        _, worker = await daemon.welcome()
        await worker.activate(class_name="Mined")
        await until((tmp_path / "mine").exists, "it dozes")
        worker.send(Drop(1, "7"))
        await answered(worker)
        (tmp_path / "mine").unlink()
        assert await worker.do("value") == 0


async def test_a_validator_that_exits_ends_nothing_but_what_asked_for_it(tmp_path: Path) -> None:
    """SystemExit, as in a turn: of an agent that is woken, and of one that is activated."""
    async with running(tmp_path, MINED) as daemon:
        _, worker = await daemon.welcome()
        first = await worker.activate(class_name="Mined")
        await until((tmp_path / "mine").exists, "it dozes")
        (tmp_path / "mine").rename(tmp_path / "leave")
        worker.turn("value")
        fault = (await worker.next(TurnDone)).fault
        assert fault is not None
        assert "SystemExit" in fault.message
        worker.send(Activate("8", 1, "shop/d", "Mined", first.state))
        assert "SystemExit" in (await worker.next(ActivationFailed)).fault.message
        (tmp_path / "leave").unlink()
        assert await worker.do("value") == 0


async def test_a_worker_that_comes_when_it_is_wanted_no_more_is_ended(tmp_path: Path) -> None:
    """It was being forked when the daemon changed its mind."""
    async with running(tmp_path) as daemon:
        supervisor, worker = await daemon.welcome()
        slow = fork_server(daemon, {worker.hello.pid})
        os.kill(slow, signal.SIGSTOP)
        for number, wanted in enumerate((2, 1)):
            supervisor.send(Spawn(wanted))
            supervisor.send(Ping(number))
            await supervisor.next(Pong)
        os.kill(slow, signal.SIGCONT)
        report = await supervisor.next(Workers, sdk_daemon.ended)
        assert (report.status, report.pids) == ("fewer workers are wanted", (worker.hello.pid,))


async def test_workers_end_with_the_lease_and_come_back_with_the_next(tmp_path: Path) -> None:
    """Protocol additions 4: PID 1 kills running turns when the lease passes."""
    async with running(tmp_path) as daemon:
        supervisor, worker = await daemon.welcome(lease_s=3.0)
        await worker.activate()
        worker.turn("block", seconds=60)
        await worker.ended()
        report = await supervisor.next(Workers, sdk_daemon.ended)
        assert (report.ended, report.status) == (worker.hello.pid, "lease lapsed")
        supervisor.send(Lease(boot_ns() + 60 * SECOND))
        assert (await daemon.worker()).hello.pid != worker.hello.pid


async def test_workers_end_with_the_daemon_and_come_back_with_it(tmp_path: Path) -> None:
    """Silence of the daemon for as long as it takes; a worker whose loop stands still ends as well."""
    async with running(tmp_path) as daemon:
        _, worker = await daemon.welcome()
        await worker.activate()
        worker.turn("block", seconds=60)
        await daemon.away()
        await until(lambda: not exists(worker.hello.pid), "no worker without a daemon")
        await daemon.listen()
        _, again = await daemon.welcome()
        await again.activate()
        assert await again.do("increment") == 1


async def test_nothing_survives_the_supervisor(tmp_path: Path) -> None:
    """SIGKILL of PID 1 ends the fork server and the workers, blocked or not."""
    async with running(tmp_path) as daemon:
        _, worker = await daemon.welcome()
        await worker.activate()
        server = fork_server(daemon, {worker.hello.pid})
        worker.turn("block", seconds=60)
        kill(daemon.process.pid)
        await until(lambda: not exists(worker.hello.pid) and not exists(server), "all are gone")


async def test_workers_survive_the_fork_server(tmp_path: Path) -> None:
    """A killed fork server is replaced; the worker goes on, and the next one can be forked."""
    async with running(tmp_path) as daemon:
        supervisor, worker = await daemon.welcome()
        await worker.activate()
        kill(fork_server(daemon, {worker.hello.pid}))
        assert await worker.do("increment") == 1
        supervisor.send(Kill(worker.hello.pid, "test"))
        assert (await daemon.worker()).hello.pid != worker.hello.pid


async def test_sigterm_is_reported_and_work_goes_on_until_stop(tmp_path: Path) -> None:
    """API.md 3, Stopping: the worker gets SIGTERM first and must not exit."""
    async with running(tmp_path) as daemon:
        supervisor, worker = await daemon.welcome()
        await worker.activate()
        daemon.process.send_signal(signal.SIGTERM)
        await supervisor.next(Terminating)
        os.kill(worker.hello.pid, signal.SIGTERM)
        assert await worker.do("increment") == 1
        assert await daemon.stop(supervisor) == 0
        await until(lambda: not exists(worker.hello.pid), "the worker ends with Stop")


async def test_sigterm_without_a_daemon_ends_after_the_deadline(tmp_path: Path) -> None:
    """Nobody can say Stop."""
    async with Daemon(tmp_path) as daemon:
        daemon.write(AGENTS)
        await daemon.start("--exit-deadline", "0.2")
        await until(lambda: "waiting for the daemon" in daemon.said(), "it has started")
        daemon.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(sdk_daemon.DEADLINE_S):
            assert await daemon.process.wait() == 0


LOOP = """
import asyncio

import tenure


class Where(tenure.Agent[tenure.State]):
    @tenure.query
    async def loop(self) -> str:
        return type(asyncio.get_running_loop()).__module__
"""


@pytest.mark.parametrize(
    ("options", "module"), [([], "uvloop"), (["--loop", "asyncio"], "asyncio.unix_events")], ids=["uvloop", "asyncio"]
)
async def test_the_event_loop_can_be_chosen(tmp_path: Path, options: list[str], module: str) -> None:
    """Libraries that patch Python's own loop refuse another one."""
    async with running(tmp_path, LOOP, *options) as daemon:
        _, worker = await daemon.welcome()
        await worker.activate(class_name="Where")
        assert await worker.do("loop") == module


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import tenure\n\nprint(1 / 0)\n", "pool_agents.py:3: ZeroDivisionError: division by zero"),
        ("def f(:\n", "pool_agents.py:1: SyntaxError: invalid syntax"),
        ("import nothing_like_it\n", "pool_agents.py:1: ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("import os; os._exit(4)\n", "importing pool_agents ended the process: exit status 4"),
        (
            "from __future__ import annotations\n" + AGENTS.replace("by: int = 1", "by: Nothing = 1"),
            "Counter.increment: an annotation cannot be resolved: name 'Nothing' is not defined",
        ),
    ],
)
async def test_an_import_error_names_the_authors_line(tmp_path: Path, code: str, message: str) -> None:
    """No worker comes until the module can be imported; then one does, without a restart."""
    async with running(tmp_path, code) as daemon:
        supervisor = await daemon.accept("supervisor")
        supervisor.send(sdk_daemon.Welcome(1, "one", str(daemon.lock)))
        fault = supervisor.hello.fault
        if fault is None:
            fault = (await supervisor.next(Workers, lambda frame: frame.fault)).fault
        assert fault is not None
        assert fault.code == "ImportFailed"
        assert message in fault.message
        daemon.write(AGENTS)
        assert [info.name for info in (await daemon.worker()).hello.classes] == ["Counter"]


async def test_modules_that_start_threads_work_too(tmp_path: Path) -> None:
    """No fork of a process with threads: each worker imports for itself."""
    code = AGENTS + "\nimport threading\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
    async with running(tmp_path, code) as daemon:
        supervisor, worker = await daemon.welcome()
        await worker.activate()
        assert await worker.do("increment") == 1
        supervisor.send(Kill(worker.hello.pid, "test"))
        await daemon.worker()


async def test_sighup_reloads(tmp_path: Path) -> None:
    """New code, new workers; the state comes with the next activation."""
    async with running(tmp_path) as daemon:
        _, worker = await daemon.welcome()
        daemon.write(AGENTS.replace("class Counter(", "class Other("))
        daemon.process.send_signal(signal.SIGHUP)
        await worker.ended()
        assert [info.name for info in (await daemon.worker()).hello.classes] == ["Other"]
