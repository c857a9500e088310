"""Steps of a turn that a daemon keeps: what `LinkJournal` says to it, and when (protocol 9)."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import step_agents as sample
from step_agents import Asks, Shop

import tenure
from tenure import _codec
from tenure._journal import NOTHING, LinkJournal, chain_of, outcome
from tenure._steps import TURN_TIMEOUT_S
from tenure._turn import Activation
from tenure.signals import Signal, to_msgpack
from tenure_link import Entry, Fault, Progress, Turn, TurnDone, Work

pytestmark = pytest.mark.usefixtures("outside_anew")

NOW = 1000.0


class Gone(Exception):
    """The worker ends here."""


class Daemon:
    """Keeps the state and the journal of one agent's turn; `deadly`: the frame after which the worker is gone."""

    def __init__(self, cls: type[tenure.Agent[Any]], method: str, deadly: int = -1, **arguments: object) -> None:
        self.cls, self.method, self.arguments = cls, method, _codec.pack(arguments)
        self.state: bytes | None = None
        self.accepted, self.journal = False, list[Entry]()
        self.frames: list[Progress] = []
        self.deadly = deadly

    async def progress(self, frame: Progress) -> None:
        self.frames.append(frame)
        if frame.entry is None:
            self.accepted = True
        else:
            assert self.accepted, "[accept_first]"
            assert frame.position == len(self.journal)
            self.journal.append(frame.entry)
        if len(self.frames) == self.deadly:
            raise Gone

    async def attempt(self, chain: Sequence[str] = ()) -> TurnDone:
        """The turn in a new worker."""
        activation = Activation(self.cls, uid="7", agent_id="shop/s", epoch=len(self.frames) + 1, stored=self.state)
        turn = Turn(
            1,
            "7",
            "action",
            self.method,
            self.arguments,
            0,
            accepted=self.accepted,
            journal=tuple(self.journal),
            key="7/client/42",
        )
        journal = LinkJournal(turn, self.progress, lambda: NOW, tuple(chain))
        return await activation.run(turn, journal)


async def test_acceptance_comes_before_the_first_step_and_each_result_before_the_next() -> None:
    """[accept_first] [journal_first]: as the daemon hears of it; the end is in TurnDone alone [end_in_commit]."""
    daemon = Daemon(Shop, "buy", what="a cup")
    done = await daemon.attempt()
    assert [(frame.position, frame.entry and frame.entry.name) for frame in daemon.frames] == [
        (0, None),
        (0, "quote"),
        (1, "charge"),
    ]
    assert daemon.frames[0].lasts == TURN_TIMEOUT_S
    assert _codec.unpack(done.reply or b"") == "receipt 1 for a cup at 0"
    assert [signal.type for signal in done.signals] == ["bought"]
    assert done.waits is None


@pytest.mark.parametrize("deadly", [1, 2, 3])
async def test_a_worker_that_ends_at_a_step_is_followed_by_one_that_goes_on(deadly: int) -> None:
    """[stable_key]: the key is that of the turn and the place, in every epoch."""
    daemon = Daemon(Shop, "buy", deadly=deadly, what="a cup")
    with pytest.raises(Gone):
        await daemon.attempt()
    done = await daemon.attempt()
    assert _codec.unpack(done.reply or b"") == "receipt 1 for a cup at 0"
    assert set(sample.service.done) == {"7/client/42/1"}


async def test_a_wait_ends_the_attempt_and_its_result_the_wait() -> None:
    """Protocol 9, 5: with what it waits for; the daemon writes the entry."""
    daemon = Daemon(Shop, "order", what="a cup")
    for signal, end in ((Signal.new("order.approved", "ann", source="desk"), "receipt 1 for a cup at 0"), (None, "")):
        daemon.journal.clear()
        wait = (await daemon.attempt()).waits
        assert wait is not None
        assert (wait.position, wait.name, wait.until) == (1, "wait_for order.approved", NOW + 3600)
        assert wait.types == ("order.approved",)
        daemon.journal.append(Entry(wait.name, to_msgpack(signal) if signal is not None else NOTHING))
        assert _codec.unpack((await daemon.attempt()).reply or b"") == end


async def test_a_call_leaves_with_the_suspension_and_names_who_waits() -> None:
    """Under the key of its step; its reply, or its fault, is what it returns or raises."""
    daemon = Daemon(Asks, "ask", to="b")
    wait = (await daemon.attempt(chain=["shop/first"])).waits
    assert wait is not None
    assert (wait.key, wait.until, [one.to for one in wait.sends]) == ("7/client/42/0", 0.0, ["shop/b"])
    work = msgspec.msgpack.decode(wait.sends[0].work, type=Work)
    assert (work.name, _codec.unpack(work.arguments)) == ("answer", {"text": "hello"})
    assert chain_of(work.carried) == ("shop/first", "shop/s")
    daemon.journal.append(Entry(wait.name, outcome(_codec.pack("hi"), None)))
    assert _codec.unpack((await daemon.attempt()).reply or b"") == "hi"
    daemon.journal[0] = Entry(wait.name, outcome(None, Fault("Busy", "too much")))
    fault = (await daemon.attempt()).fault
    assert fault is not None
    assert (fault.code, fault.message) == ("Busy", "too much")
    fault = (await Daemon(Asks, "ask", to="first").attempt(chain=["shop/first"])).fault
    assert fault is not None
    assert (fault.code, "shop/first -> shop/s -> shop/first" in fault.message) == ("WaitCycle", True)


async def test_other_steps_than_the_journal_holds_are_a_fault() -> None:
    """[same_steps]: with both lists."""
    daemon = Daemon(Shop, "buy", what="a cup")
    daemon.accepted, daemon.journal = True, [Entry("refund", NOTHING)]
    fault = (await daemon.attempt()).fault
    assert fault is not None
    assert fault.code == "StepsChanged"
    assert "the journal: refund; asked for: quote" in fault.message


async def test_a_worker_without_a_journal_refuses_steps() -> None:
    """By name, before anything happens."""
    activation = Activation(Shop, uid="7", agent_id="shop/s", epoch=1, stored=None)
    done = await activation.run(Turn(1, "7", "action", "buy", _codec.pack({"what": "a cup"}), 0))
    assert done.fault is not None
    assert (done.fault.code, "the step 'quote'" in done.fault.message) == ("NotSupported", True)
    assert sample.service.asked == []
    await asyncio.sleep(0)
