"""Users' code in simulated worker processes, and what the checker sees of it.

User code speaks the worker link in bytes, as in a real worker. Between it and the daemon stands the worker process of
the simulation: it adds to each state the calls that made it, so that the checker can read "once", "kept" and "one
chain" off the states of any agent, and to each reply what was shown with it. Neither side knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

import tenure_link
from tenured.simulation.machines import Machine, Process, Setting
from tenured.simulation.worker import Observer, SimWorker, WorkerContainer

Send = Callable[[bytes], None]


_OF_CALLERS = frozenset({"action", "by_name"})


class Program(Protocol):
    """User code that can be started in a process: the pool's modules."""

    @property
    def classes(self) -> tuple[tenure_link.AgentClass, ...]:
        """What it offers."""
        ...

    def start(self, send: Send) -> Send:
        """Start in the process whose loop runs now; `send` takes its frames, what is returned takes the daemon's."""
        ...


class Shown(msgspec.Struct, frozen=True, array_like=True):
    """A reply, with what its agent had done when it was given."""

    uid: str
    call: str
    """Of an action; empty: a query."""
    effects: list[str]
    """Calls that the state holds, this one included."""
    reply: bytes


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """A state as the cluster keeps it here."""

    effects: list[str]
    state: bytes


_encode = msgspec.msgpack.Encoder().encode
_kept = msgspec.msgpack.Decoder(_Kept).decode
shown = msgspec.msgpack.Decoder(Shown).decode
"""The reply that a client got. Raises msgspec.DecodeError."""


def effect_of(turn: tenure_link.Turn) -> str:
    """What a turn leaves in the list of what its agent has done."""
    return turn.call_id or turn.key or f"{turn.kind} {turn.method} at {turn.at}"


class _Memory:
    """What one agent in the process has done."""

    def __init__(self, epoch: int, queries: Mapping[str, bool], kept: _Kept) -> None:
        self.epoch, self.queries, self.kept = epoch, queries, kept
        self.ahead: list[tuple[int, _Kept]] = []
        """Drafts of turns that are not settled, by the number of the turn."""

    @property
    def draft(self) -> _Kept:
        """What the next turn builds on."""
        return self.ahead[-1][1] if self.ahead else self.kept

    def is_query(self, turn: tenure_link.Turn) -> bool:
        """By its kind, or by the name that it was called by."""
        return turn.kind == "query" or self.queries.get(turn.method, False)


class UserWorker(SimWorker):
    """A worker process that runs a user's program."""

    def __init__(self, container: UserContainer, pid: int, life: int) -> None:
        super().__init__(container, pid, life)
        self._observer, self._where = container.observer, container.name
        self._queries = {each.name: {m.name: m.query for m in each.methods} for each in container.classes}
        self._agents: dict[str, _Memory] = {}
        self._turns: dict[int, tuple[tenure_link.Turn, list[str]]] = {}
        """With what its agent had done when it came."""
        self._splitter = tenure_link.Splitter()
        self.process = Process(container.setting, container.machine, f"{container.name}.w{pid}")
        with self.process.loop.running():
            self._feed = container.program.start(self._sent)

    def committed(self, uid: str) -> tuple[list[str], bytes] | None:
        """Calls and state of an agent, if it is here."""
        memory = self._agents.get(uid)
        return None if memory is None else (memory.kept.effects, memory.kept.state)

    def end(self) -> None:
        """Its coroutines end with it."""
        super().end()
        self.process.kill()

    # --- from the daemon --------------------------------------------------------------------------------------------

    def _received(self, frame: Any) -> None:
        if not self.alive:
            return
        match frame:
            case tenure_link.Activate():
                frame = self._activate(frame)
            case tenure_link.Deactivate():
                memory = self._agents.get(frame.uid)
                if memory is not None and memory.epoch == frame.epoch:
                    del self._agents[frame.uid]
            case tenure_link.Turn():
                memory = self._agents.get(frame.uid)
                self._turns[frame.turn] = (frame, memory.kept.effects if memory is not None else [])
            case tenure_link.Commit() | tenure_link.Drop():
                self._settle(frame)
            case _:
                pass
        now = self._container.setting.timeline.now
        self.process.loop.deliver(now, self._feed, tenure_link.encode(frame))

    def _activate(self, frame: tenure_link.Activate) -> tenure_link.Activate:
        kept = _Kept([], b"") if frame.state is None else _kept(frame.state)
        seen = None if frame.state is None else _encode(kept.effects)
        self._observer.activated(self._where, frame.uid, frame.epoch, seen)
        self._agents[frame.uid] = _Memory(frame.epoch, self._queries.get(frame.class_name, {}), kept)
        return frame if frame.state is None else msgspec.structs.replace(frame, state=kept.state)

    def _settle(self, frame: tenure_link.Commit | tenure_link.Drop) -> None:
        memory = self._agents.get(frame.uid)
        if memory is None:
            return
        if isinstance(frame, tenure_link.Drop):
            memory.ahead = [one for one in memory.ahead if one[0] < frame.turn]
            # One that the program had ended before it read this is told of yet, and counts for nothing.
            # Queries run beside the turns, and are not dropped.
            gone = [turn for turn, (asked, _) in self._turns.items() if asked.uid == frame.uid and turn >= frame.turn]
            for turn in [turn for turn in gone if not memory.is_query(self._turns[turn][0])]:
                del self._turns[turn]
            return
        for turn, kept in memory.ahead:
            if turn <= frame.turn:
                memory.kept = kept
                self._observer.committed(self._where, frame.uid, memory.epoch, _encode(kept.effects))
        memory.ahead = [one for one in memory.ahead if one[0] > frame.turn]

    # --- from the program -------------------------------------------------------------------------------------------

    def _sent(self, data: bytes) -> None:
        for body in self._splitter.feed(data):
            frame = tenure_link.decode_from_process(body)
            match frame:
                case tenure_link.Activated():
                    self._say(self._activated(frame))
                case tenure_link.TurnDone():
                    done = self._done(frame)
                    self._container.later(self._container.turn_ns(), lambda done=done: self._say(done))  # type: ignore[misc]
                case tenure_link.ActivationFailed() | tenure_link.Pong() | tenure_link.Progress():
                    self._say(frame)
                case _:
                    pass

    def _activated(self, frame: tenure_link.Activated) -> tenure_link.Activated:
        memory = self._agents.get(frame.uid)
        if frame.state is None or memory is None or memory.epoch != frame.epoch:
            return frame
        memory.kept = _Kept(memory.kept.effects, frame.state)  # of a later activation: what its hook made of it
        return msgspec.structs.replace(frame, state=_encode(memory.kept))

    def _done(self, done: tenure_link.TurnDone) -> tenure_link.TurnDone:
        known = self._turns.pop(done.turn, None)
        memory = self._agents.get(known[0].uid) if known is not None else None
        if known is None or memory is None or (done.reply is None and done.state is None):
            return done
        turn, seen = known
        if memory.is_query(turn):
            reply = Shown(turn.uid, "", seen, done.reply or b"")
            return msgspec.structs.replace(done, reply=_encode(reply))
        if turn.kind == "timer" and done.state is None:
            return done  # its plan was not there any more
        failed = done.fault is not None
        effects = memory.draft.effects if failed else [*memory.draft.effects, effect_of(turn)]
        kept = _Kept(effects, memory.draft.state if done.state is None else done.state)
        memory.ahead.append((done.turn, kept))
        if failed:
            return msgspec.structs.replace(done, state=_encode(kept))
        if turn.kind not in _OF_CALLERS:  # nobody of the story gets to see it
            return msgspec.structs.replace(done, state=_encode(kept))
        reply = Shown(turn.uid, turn.call_id, effects, done.reply or b"")
        return msgspec.structs.replace(done, reply=_encode(reply), state=_encode(kept))

    def _say(self, frame: Any) -> None:
        if self.alive:
            self._container.say(self.socket, frame)


class UserContainer(WorkerContainer):
    """A worker container with a user's image."""

    def __init__(
        self, setting: Setting, machine: Machine, observer: Observer, longest_turn_ns: int, program: Program
    ) -> None:
        super().__init__(setting, machine, observer, longest_turn_ns)
        self.program = program
        self.classes = program.classes

    def new_worker(self, pid: int, life: int) -> SimWorker:
        """With modules of its own."""
        return UserWorker(self, pid, life)

    def committed(self, uid: str) -> tuple[list[str], bytes] | None:
        """Of an agent in one of its processes."""
        workers = [worker for worker in self._workers.values() if isinstance(worker, UserWorker)]
        return next((found for worker in workers if (found := worker.committed(uid)) is not None), None)

    def power_off(self) -> None:
        """Everything in it is gone."""
        super().power_off()
        for worker in self._workers.values():
            worker.end()
        self._workers.clear()
