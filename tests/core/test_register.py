"""The quorum register under a simulated store (protocol 2). Each guard that is switched off is caught."""

from collections.abc import Mapping
from typing import Any

import core_register_sim as sim
import msgspec
import pytest

from tenured.core import cells, frames
from tenured.core import joining as j
from tenured.core.owner import FIRST_EPOCH, NotReady, Owner
from tenured.core.peers import RETRY_NS

SEEDS = 300


@pytest.mark.parametrize("block", range(6))
def test_histories_are_one_chain_and_nothing_acknowledged_is_missing(block: int) -> None:
    """Loss, doubles, delay, reordering, competing owners, broken connections, one lost disk."""
    for seed in range(block * SEEDS // 6, (block + 1) * SEEDS // 6):
        sim.StoreSim(seed, servers=5 if seed % 5 == 0 else 3).run()


def test_the_same_seed_gives_the_same_run() -> None:
    """A failing seed can be repeated."""
    first, again = sim.StoreSim(11), sim.StoreSim(11)
    first.run()
    again.run()
    assert first.transcript == again.transcript


def caught(**mutation: object) -> str:
    """Whether any of many seeds shows the violation."""
    for seed in range(600):
        try:
            sim.StoreSim(seed, **mutation).run(400)
        except sim.Violation as violation:
            return str(violation)
    return ""


class NoRepair(Owner):
    def _adopt(self, now: int, entries: Mapping[str, bytes]) -> frames.Output:
        return self._ready(entries)


class AnyOneSeal(Owner):
    quorum = 1


def unsealed_write(cell: cells.Cell, version: cells.Version, base: cells.Version | None) -> cells.WriteDecision:
    return cells.guard_write(cells.Cell(0, cell.version), version, base)


def unordered_write(cell: cells.Cell, version: cells.Version, base: cells.Version | None) -> cells.WriteDecision:
    if version.epoch < cell.sealed:
        return cells.WriteDecision(cells.Verdict.FENCED, cell)
    return cells.WriteDecision(cells.Verdict.OK, cells.Cell(version.epoch, version), store=True)


def answers_at_once(view: int, own_view: int, *, joining: bool) -> cells.Verdict:
    """A new disk answers before it has copied."""
    return cells.Verdict.OK if view == own_view else cells.Verdict.OTHER_VIEW


def any_view(view: int, own_view: int, *, joining: bool) -> cells.Verdict:
    """A server answers requests of an old view."""
    return cells.Verdict.JOINING if joining else cells.Verdict.OK


class NobodySeals(Owner):
    """Every epoch is taken for the first."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **{**named, "first": True, "expect_state": False})


class OldAnswersCount(Owner):
    """An owner keeps what it collected under the old view."""

    def view_changed(self, now: int, view: int) -> frames.Output:
        kept = {name: (peer.seal, peer.acked) for name, peer in self._peers.items()}
        output = super().view_changed(now, view)
        for name, (seal, acked) in kept.items():
            self._peers[name].seal, self._peers[name].acked = seal, acked
        return output


def one_other_is_enough(pages: Mapping[str, j.Page], others: int) -> j.Step | None:
    """A joining server reads from one of the others instead of from a majority of them."""
    return j.merge(pages, 1)


def seals_are_forgotten(pages: Mapping[str, j.Page], others: int) -> j.Step | None:
    """A joining server takes the state over, and not the promises."""
    step = j.merge(pages, others)
    if step is None:
        return None
    needs = tuple(msgspec.structs.replace(need, sealed=0) for need in step.needs)
    return msgspec.structs.replace(step, needs=needs)


def baseless_write(cell: cells.Cell, version: cells.Version, base: cells.Version | None) -> cells.WriteDecision:
    return cells.guard_write(cell, version, None)


@pytest.mark.parametrize(
    "mutation",
    [
        pytest.param({"owner": NoRepair}, id="repair"),
        pytest.param({"owner": AnyOneSeal}, id="majority"),
        pytest.param({"owner": NobodySeals}, id="first-epoch"),
        pytest.param({"guards": sim.Guards(view=answers_at_once)}, id="rejoin"),
        pytest.param({"guards": sim.Guards(merge=one_other_is_enough)}, id="rejoin-majority"),
        pytest.param({"guards": sim.Guards(one_at_a_time=False)}, id="rejoin-one-at-a-time"),
        pytest.param({"guards": sim.Guards(write=unsealed_write)}, id="seal"),
        pytest.param({"guards": sim.Guards(write=unordered_write)}, id="order"),
        pytest.param({"guards": sim.Guards(write=baseless_write)}, id="base"),
    ],
)
def test_each_guard_that_is_off_is_caught(mutation: dict) -> None:
    """Mutation evidence: the checker sees what the guard prevents."""
    assert caught(**mutation)


# --- lost disks, step by step: what random runs seldom meet ---------------------------------------------------------


def lose_and_rejoin(run: sim.StoreSim, *owners: int) -> None:
    """The disk of s0 is lost; it reads both others under the new view and answers again. These owners are told."""
    run.lose_disk("s0")
    for name in ("s1", "s2"):
        run.tell_view(name)
        run.read_on("s0", run.servers["s0"], name)
    assert not run.servers["s0"].joining
    for epoch in owners:
        run.take(epoch, run.owners[epoch].view_changed(run.now, run.view))


def an_answer_of_the_lost_disk(run: sim.StoreSim, *told: int) -> None:
    """s0 acknowledges a write and loses its disk; s1 stores the write; the next owner meets s0 and s2."""
    run.do_assign()
    run.deliver_all(1, "s0", "s1", "s2")
    run.write(1)
    run.deliver_all(1, "s0")
    lose_and_rejoin(run, *told)
    run.deliver_all(1, "s1")
    run.do_assign()
    run.deliver_all(2, "s0", "s2")


def a_promise_of_the_lost_disk(run: sim.StoreSim) -> None:
    """s0 and s1 have sealed epoch 2; s0 loses its disk; owner 1, not told of epoch 2, writes to s0 and s2."""
    run.do_assign()
    run.write_on_all(1)
    run.do_assign()
    run.deliver_all(2, "s0", "s1")
    lose_and_rejoin(run, 1, 2)
    run.write(1)
    run.deliver_all(1, "s0", "s2")


def test_lost_disks_do_no_harm_in_the_scenarios_of_the_mutants() -> None:
    """With every guard on, the same steps lose nothing."""
    for told in ((), (1,)):
        an_answer_of_the_lost_disk(sim.StoreSim(0), *told)
    a_promise_of_the_lost_disk(sim.StoreSim(0))


def test_an_owner_that_keeps_answers_of_an_old_view_is_caught() -> None:
    """[view], at the owner: the lost disk's answer and one more are taken for a majority, which one disk holds."""
    with pytest.raises(sim.Violation, match=r"although .* was acknowledged"):
        an_answer_of_the_lost_disk(sim.StoreSim(0, owner=OldAnswersCount), 1)


def test_a_server_that_answers_an_old_view_is_caught() -> None:
    """[view], at the server: an owner that has not heard of the new view completes its majority there."""
    with pytest.raises(sim.Violation, match=r"although .* was acknowledged"):
        an_answer_of_the_lost_disk(sim.StoreSim(0, guards=sim.Guards(view=any_view)))


def test_a_joining_server_that_forgets_promises_is_caught() -> None:
    """[rejoin]: without the seals of the others an old owner gets an acknowledgement again."""
    with pytest.raises(sim.Violation, match="got an acknowledgement"):
        a_promise_of_the_lost_disk(sim.StoreSim(0, guards=sim.Guards(merge=seals_are_forgotten)))


# --- single rules ---------------------------------------------------------------------------------------------------

SERVERS = ("a", "b", "c")


def owner(epoch: int = 1, *, expect_state: bool = False) -> tuple[Owner, dict[str, frames.Request]]:
    made = Owner("7", epoch, SERVERS, view=1, expect_state=expect_state)
    return made, {send.server: send.request for send in made.start(0).sends}


def sealed(
    version: cells.Version = cells.NOTHING, entries: dict[str, bytes] | None = None, epoch: int = 1
) -> frames.Sealed:
    return frames.Sealed(
        verdict=cells.Verdict.OK, sealed=epoch, version=version, entries={} if entries is None else entries
    )


def kinds(output: frames.Output) -> list[str]:
    return [type(outcome).__name__ for outcome in output.outcomes]


def ready_owner() -> Owner:
    own, asked = owner()
    own.answered(0, "a", asked["a"], sealed())
    assert kinds(own.answered(0, "b", asked["b"], sealed())) == ["Adopted"]
    return own


def test_a_first_epoch_is_ready_at_once_and_its_first_write_is_whole() -> None:
    """Protocol 2 [first_epoch]: nobody held the agent before, so nobody is asked; a server without it needs no base."""
    own = Owner("7", FIRST_EPOCH, SERVERS, view=1, expect_state=False, first=True)
    output = own.start(0)
    assert (kinds(output), output.sends, own.phase) == (["Adopted"], [], frames.Phase.READY)
    assert not own.busy
    _, output = own.write(0, {"s": b"1"})
    write = output.sends[0].request
    assert [(send.server, send.request.version, send.request.base) for send in output.sends] == [
        (name, cells.Version(1, 1), None) for name in SERVERS
    ]
    done = frames.Written(verdict=cells.Verdict.OK, version=write.version)
    assert own.answered(0, "a", write, done).outcomes == []
    assert kinds(own.answered(0, "b", write, done)) == ["Committed"]


def test_a_first_epoch_that_was_taken_over_is_fenced_by_its_first_write() -> None:
    """Protocol 2 [seal]: it promised nothing to itself, and is refused by what was promised to the next one."""
    own = Owner("7", FIRST_EPOCH, SERVERS, view=1, expect_state=False, first=True)
    own.start(0)
    _, output = own.write(0, {"s": b"1"})
    assert cells.guard_write(cells.Cell(sealed=2), cells.Version(1, 1), None).verdict is cells.Verdict.FENCED
    fenced = frames.Written(verdict=cells.Verdict.FENCED, sealed=2)
    assert kinds(own.answered(0, "a", output.sends[0].request, fenced)) == ["Fenced"]


def test_answers_of_an_old_view_do_not_complete_a_majority() -> None:
    """Protocol 2 [view]: an answer of the lost disk plus one new answer is no majority."""
    own, asked = owner()
    own.answered(0, "a", asked["a"], sealed())
    again = {send.server: send.request for send in own.view_changed(1, 2).sends}
    assert sorted(again) == ["a", "b", "c"]
    assert own.answered(2, "a", asked["a"], sealed()).outcomes == []
    assert own.answered(2, "b", again["b"], sealed()).outcomes == []
    assert kinds(own.answered(2, "c", again["c"], sealed())) == ["Adopted"]


def test_writes_under_way_need_a_majority_of_the_new_view() -> None:
    """Protocol 2 [view], for writes: what the lost disk took does not count."""
    own = ready_owner()
    _, output = own.write(0, {"s": b"1"})
    write = output.sends[0].request
    own.answered(0, "a", write, frames.Written(verdict=cells.Verdict.OK, version=write.version))
    again = {send.server: send.request for send in own.view_changed(1, 2).sends}
    assert again["b"].view == 2
    done = frames.Written(verdict=cells.Verdict.OK, version=write.version)
    assert own.answered(2, "b", again["b"], done).outcomes == []
    assert kinds(own.answered(2, "a", again["a"], done)) == ["Committed"]


def test_nothing_found_is_a_loss_if_there_was_a_state() -> None:
    """Protocol 2: never start empty where there was something."""
    own, asked = owner(2, expect_state=True)
    own.answered(0, "a", asked["a"], sealed(epoch=2))
    assert kinds(own.answered(0, "b", asked["b"], sealed(epoch=2))) == ["Unreadable"]
    assert own.phase is frames.Phase.STOPPED


def test_a_record_found_on_one_server_is_written_back_before_it_shows() -> None:
    """Protocol 2 [repair]; the version is that of the new epoch with the old seq."""
    own, asked = owner(2)
    old = cells.Version(1, 4)
    own.answered(0, "a", asked["a"], sealed(old, {"s": b"x"}, 2))
    output = own.answered(0, "b", asked["b"], sealed(cells.Version(1, 3), {"s": b"w"}, 2))
    assert output.outcomes == []
    assert {send.request.version for send in output.sends} == {cells.Version(2, 4)}
    assert all(send.request.base is None and send.request.puts == {"s": b"x"} for send in output.sends)
    done = frames.Written(verdict=cells.Verdict.OK, version=cells.Version(2, 4))
    request = output.sends[0].request
    assert own.answered(1, "c", request, done).outcomes == []
    assert kinds(own.answered(1, "b", request, done)) == ["Adopted"]


def test_the_highest_epoch_is_adopted_not_the_highest_seq() -> None:
    """Protocol 2 [epoch_first]: a partial (1, 9) must not beat the acknowledged (2, 1)."""
    own, asked = owner(3)
    own.answered(0, "a", asked["a"], sealed(cells.Version(1, 9), {"s": b"partial"}, 3))
    output = own.answered(0, "b", asked["b"], sealed(cells.Version(2, 1), {"s": b"acknowledged"}, 3))
    assert {(s.request.version, s.request.puts["s"]) for s in output.sends} == {(cells.Version(3, 1), b"acknowledged")}


def test_a_repeated_write_has_the_same_version_and_bytes() -> None:
    """Protocol 2, owner 5: never another blob under one version."""
    own = ready_owner()
    _, first = own.write(0, {"s": b"1"})
    later = own.tick(RETRY_NS)
    assert [send.request for send in later.sends if send.server == "a"] == [first.sends[0].request]
    assert own.tick(RETRY_NS + 1).sends == []


def test_a_server_without_the_base_gets_the_whole_record_once() -> None:
    """Protocol additions 8: NeedBase; deltas that were behind it do not bring it again."""
    own = ready_owner()
    _, one = own.write(0, {"s": b"1", "m": b"x"})
    _, two = own.write(0, {"s": b"2"}, ["m"])
    need = frames.Written(verdict=cells.Verdict.NEED_BASE)
    output = own.answered(0, "b", one.sends[1].request, need)
    assert [(s.server, s.request.base, dict(s.request.puts)) for s in output.sends] == [("b", None, {"s": b"2"})]
    assert output.sends[0].request.version == cells.Version(1, 2)
    assert own.answered(0, "b", two.sends[1].request, need).sends == []


def test_a_fenced_owner_stops() -> None:
    """Protocol 2: a refused owner stops; it writes no more."""
    own = ready_owner()
    _, output = own.write(0, {"s": b"1"})
    answer = frames.Written(verdict=cells.Verdict.FENCED, sealed=2)
    assert own.answered(0, "a", output.sends[0].request, answer).outcomes == [frames.Fenced(2)]
    with pytest.raises(NotReady):
        own.write(0, {"s": b"2"})
    assert not own.busy


def test_a_deleted_agents_owner_stops() -> None:
    """Protocol 2 [uid]: the registry has no such uid."""
    own, asked = owner()
    assert own.answered(0, "a", asked["a"], frames.Sealed(verdict=cells.Verdict.DELETED)).outcomes == [frames.Deleted()]


def test_records_are_guarded_by_the_registry() -> None:
    """Protocol 2: a uid that is gone is refused, one that is not here yet has to wait."""
    agents = {"5": object()}
    assert cells.guard_uid("5", agents, 9) is cells.Verdict.OK
    assert cells.guard_uid("6", agents, 9) is cells.Verdict.DELETED
    assert cells.guard_uid("10", agents, 9) is cells.Verdict.BEHIND
    assert cells.guard_view(1, 2, joining=False) is cells.Verdict.OTHER_VIEW
    assert cells.guard_view(2, 2, joining=True) is cells.Verdict.JOINING


def test_other_refusals_are_kept_for_status_and_repeated() -> None:
    """A full disk or a server that is behind is asked again, with growing pauses."""
    own, asked = owner()
    own.answered(0, "a", asked["a"], frames.Sealed(verdict=cells.Verdict.BEHIND))
    assert "BEHIND" in own.trouble
    assert [send.server for send in own.tick(RETRY_NS).sends] == ["a", "b", "c"]
    assert own.tick(2 * RETRY_NS).sends == []
    assert len(own.tick(3 * RETRY_NS).sends) == 3


def test_what_makes_no_sense_is_ignored() -> None:
    """Servers that are none of ours, answers of another kind or out of their time, views that are over."""
    own, asked = owner()
    written = frames.Written(verdict=cells.Verdict.OK)
    assert own.answered(0, "z", asked["a"], sealed()) == frames.Output()
    assert own.answered(0, "a", asked["a"], written) == frames.Output()
    assert own.answered(0, "a", frames.Read(uid="7", view=1), frames.Record()) == frames.Output()
    own.lost("z")
    assert own.restored(0, "z") == frames.Output()
    assert own.view_changed(0, 1) == frames.Output()
    own.lost("a")
    own.lost("b")
    own.lost("c")
    assert not own.busy
    assert [send.server for send in own.restored(1, "b").sends] == ["b"]


def test_a_large_record_is_fetched_from_a_server_that_has_it() -> None:
    """The answer to the seal left it out; another version than the sealed one is no answer."""
    own, asked = owner(2)
    old = cells.Version(1, 4)
    large = frames.Sealed(verdict=cells.Verdict.OK, sealed=2, version=old)
    own.answered(0, "a", asked["a"], large)
    reads = own.answered(0, "b", asked["b"], large).sends
    assert [(send.server, type(send.request)) for send in reads] == [("a", frames.Read), ("b", frames.Read)]
    assert own.answered(0, "a", reads[0].request, frames.Record(version=cells.Version(1, 5))) == frames.Output()
    assert own.trouble
    output = own.answered(0, "b", reads[1].request, frames.Record(version=old, entries={"s": b"x"}))
    assert output.outcomes == [frames.Adopted(old, {"s": b"x"})]


def test_a_server_that_is_away_gets_nothing_until_it_is_back() -> None:
    """Then the whole record, as of the last write."""
    own = ready_owner()
    own.lost("c")
    _, output = own.write(0, {"s": b"1"})
    assert [send.server for send in output.sends] == ["a", "b"]
    (back,) = own.restored(1, "c").sends
    assert (back.server, back.request.base, dict(back.request.puts)) == ("c", None, {"s": b"1"})
