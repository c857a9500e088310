"""Model J, one call of an external client (protocol 3, external clients; errors, additions 11).

The client sends its call to the holder, and again under the same call id wherever it believes the agent to be. Each
activation serves its queue, one job at a time, over a sealed cell (model B): the open write of an old epoch either was
adopted by the next one or never lands. An attempt is in flight once; the connection under it may break at any time, and
what its host does then goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from models.explore import Model, Step, put


class Record(NamedTuple):
    """The agent's record."""

    marks: frozenset[int] = frozenset()  # call ids that were applied
    times: int = 0  # user state: how often the call was applied


class Job(NamedTuple):
    """An attempt at a host."""

    attempt: int
    stage: str = "queued"  # queued, running, written


class Act(NamedTuple):
    """One activation."""

    mem: Record
    queue: tuple[Job, ...] = ()
    draft: Record | None = None
    landed: bool = False


class World(NamedTuple):
    """A state of the whole."""

    cell: Record = Record()
    acts: tuple[Act, ...] = (Act(Record()),)
    attempts: tuple[tuple[int, str], ...] = ()  # (host, flight | there | lost | not applied | unknown | applied)
    told: str = ""  # what the caller was told


class Calls(Model[World]):
    """See the module."""

    epochs, sends = 2, 2
    live = True
    FAST = ({},)
    SMALL = ({"epochs": 3, "sends": 2}, {"epochs": 2, "sends": 3})
    BIG = {"epochs": 4, "sends": 6}
    GUARDS = {
        "err_sent": {},
        "deadline_drop": {"epochs": 1, "sends": 1},
        "client_memory": {},
        "call_id": {},
        "judge": {},
        "mark_in_commit": {},
        "lease_release": {"sends": 1},
    }

    def init(self) -> World:
        """Nothing sent yet."""
        return World()

    def check(self, s: World) -> str | None:
        """Applied once at most; the caller is never told what is not so, or does not stay so."""
        if s.cell.times > 1:
            return "the call was applied twice"
        if s.told == "not applied" and s.cell.times:
            return "the caller was told that it was not applied, and it is"
        if s.told == "applied" and not s.cell.times:
            return "the caller was told that it was applied, and it is not"
        return None

    def goal(self, s: World) -> bool:
        """The caller has an answer."""
        return bool(s.told)

    def steps(self, s: World) -> Iterator[Step[World]]:
        """The client, take-overs, connections, hosts."""
        if not s.told:
            yield from self.client(s)
        if len(s.acts) < self.epochs:
            last = s.acts[-1]
            yield "!taken over", s._replace(acts=(*s.acts, Act(s.cell)))
            if last.draft and not last.landed:
                yield (
                    "!taken over, its open write adopted",
                    s._replace(acts=(*s.acts, Act(last.draft)), cell=last.draft),
                )
        for i, (host, state) in enumerate(s.attempts):
            if state in ("flight", "there"):
                yield f"the connection of attempt {i} breaks", self.answered(s, i, "lost")
            if state == "flight":
                act = s.acts[host]
                queued = s._replace(acts=put(s.acts, host, act._replace(queue=(*act.queue, Job(i)))))
                yield f"attempt {i} reaches host {host}", self.answered(queued, i, "there")
                yield f"attempt {i} is refused: Moved, NotReady, Busy", self.answered(s, i, "not applied")
                yield f"attempt {i} is lost on its way", self.answered(s, i, "lost")
        for e, act in enumerate(s.acts):
            if act.queue:
                yield from self.host(s, e, act)

    def answered(self, s: World, i: int, state: str) -> World:
        """An attempt is answered; to a broken connection nothing comes."""
        host, old = s.attempts[i]
        return s if old == "lost" else s._replace(attempts=put(s.attempts, i, (host, state)))

    def client(self, s: World) -> Iterator[Step[World]]:
        """Repeat, or tell the caller."""
        states = [state for _, state in s.attempts]
        if len(states) < self.sends:
            for host in range(len(s.acts)):
                yield (
                    f"the client sends attempt {len(states)} to host {host}",
                    s._replace(attempts=(*s.attempts, (host, "flight"))),
                )
        if "applied" in states:
            yield "told: applied", s._replace(told="applied")
        if states and (all(state == "not applied" for state in states) or self.forgets(states)):
            yield "told: not applied", s._replace(told="not applied")
        elif states:
            yield "told: unknown", s._replace(told="unknown")

    def forgets(self, states: list[str]) -> bool:
        """Without [client_memory] the last answer counts, whatever became of the others."""
        return states[-1] == "not applied" and not self.on("client_memory")

    def host(self, s: World, e: int, act: Act) -> Iterator[Step[World]]:
        """The job at the head of the queue, and deadlines."""
        job, rest = act.queue[0], act.queue[1:]
        newest = e == len(s.acts) - 1
        call = 0 if self.on("call_id") else job.attempt

        def turn(new: Act, **change: Any) -> World:
            return s._replace(acts=put(s.acts, e, new), **change)

        def end(answer: str, new: Act) -> World:
            return self.answered(turn(new._replace(queue=rest)), job.attempt, answer)

        known = call in act.mem.marks and self.on("judge")
        if job.stage == "queued" and known:
            yield f"host {e} knows the call", end("applied", act)
        elif job.stage == "queued":
            yield (
                f"host {e} runs attempt {job.attempt}",
                turn(act._replace(queue=(job._replace(stage="running"), *rest))),
            )
        elif job.stage == "running":
            draft = Record(act.mem.marks | {call} if self.on("mark_in_commit") else act.mem.marks, act.mem.times + 1)
            written = act._replace(queue=(job._replace(stage="written"), *rest), draft=draft)
            yield f"host {e} sends the write of attempt {job.attempt}", turn(written)
        elif act.draft and not act.landed and newest:
            yield f"host {e} commit lands", turn(act._replace(landed=True), cell=act.draft)
        if job.stage == "written" and act.draft and act.landed:
            new = act._replace(mem=act.draft, draft=None, landed=False)
            yield f"host {e} learns of its commit, replies", end("applied", new)
            told = "unknown" if self.on("lease_release") else "not applied"
            yield f"host {e} learns of its commit, its lease has lapsed", end(told, new)
        if job.stage == "written" and not newest:
            told = "unknown" if self.on("err_sent") else "not applied"
            yield f"host {e} is fenced", end(told, act._replace(draft=None, landed=False))
        yield from self.deadlines(s, act, turn)

    def deadlines(self, s: World, act: Act, turn: Callable[..., World]) -> Iterator[Step[World]]:
        """The deadline of a job passes at its host: what was called "not applied" must stay so."""
        for at, job in enumerate(act.queue):
            if s.attempts[job.attempt][1] != "there":
                continue
            others = act.queue[:at] + act.queue[at + 1 :]
            if job.stage == "written":
                yield f"deadline of attempt {job.attempt}: unknown", self.answered(s, job.attempt, "unknown")
            else:
                left = act._replace(queue=others) if self.on("deadline_drop") else act
                label = f"deadline of attempt {job.attempt} ({job.stage}): not applied"
                yield label, self.answered(turn(left), job.attempt, "not applied")
