"""What follows from the rules of families: children begin and end, and those concerned are told."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from tenure import _codec, errors
from tenure._agent import pack_arguments
from tenure._context import Parent
from tenure._local import families
from tenure._local.carrying import NOTHING
from tenure._local.families import ENDED, ORPHANED, STARTED, Bound, Gone, Row, Unbound
from tenure._local.held import Held, How, Seed
from tenure.directives import AdoptChild, Directive, SpawnAgent, StopChild
from tenure.signals import Signal

if TYPE_CHECKING:
    from tenure._local.engine import Engine

ENDS_KEPT = 10_000
"""Children whose end can still be asked for."""


class Kinship:
    """Parents and children of one runtime."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._restarts: dict[Parent, list[float]] = {}
        self._stopping: set[str] = set()
        """Children that are not to begin again."""
        self._told = 0
        self.left: OrderedDict[Parent, str] = OrderedDict()
        """Who was whose child."""

    # --- directives ---

    def spawn(self, held: Held, wanted: SpawnAgent) -> Coroutine[Any, Any, None]:
        """Begin a child. From now on who writes to it waits until it is here."""
        engine = self._engine
        full, bond = engine.full_id(wanted.id), Parent(held.id, wanted.tag)
        seed = Seed(pack_arguments("state", wanted.state), pack_arguments("config", wanted.config))
        arrival = engine.lives.arrive(wanted.cls, full, seed, How(held.storage, (Bound(*bond),)))
        return self._begun(bond, full, arrival, held.carried)

    async def _begun(
        self, bond: Parent, child: str, arrival: asyncio.Task[Held], carried: Mapping[str, object]
    ) -> None:
        try:
            await self._engine.arrival(arrival)
        except Exception as error:
            self._leave(bond, child, f"it could not begin: {error}", failed=True)
            raise
        self._tell_started(bond, child, carried=carried)

    async def adopt(self, held: Held, wanted: AdoptChild) -> None:
        """Bind a child that is here."""
        engine = self._engine
        carried = held.carried
        full, bond = engine.full_id(wanted.id), Parent(held.id, wanted.tag)
        try:
            child = await engine.reach(full)
            await engine.amend(child, (Bound(*bond),))
        except errors.CallError:
            engine.later(engine.amend(held, (Gone(wanted.tag, full),)), f"{held.id} without {full}")
            raise
        self._tell_started(bond, full, carried=carried)

    async def stop_child(self, held: Held, wanted: StopChild) -> None:
        """End a child. Raises NotFound for a tag that is not in use."""
        row = families.children_of(held.activation.slices).get(wanted.tag)
        if row is None:
            raise errors.NotFound(f"{held.id} has no child {wanted.tag!r}", agent=held.id)
        full = row["id"]
        self._stopping.add(full)
        try:
            await self._engine.lives.end(await self._engine.reach(full), wanted.reason, failed=False)
        except errors.NotFound:
            self._leave(Parent(held.id, wanted.tag), full, "it was not here", failed=False)
        finally:
            self._stopping.discard(full)

    # --- beginnings and ends ---

    def rebind(self, held: Held) -> None:
        """An agent goes on from its storage: it and its relatives that are here know of each other again."""
        slices, agents = held.activation.slices, self._engine.agents
        bond = families.parent_of(slices)
        parent = agents.get(bond.id) if bond is not None else None
        if bond is not None and parent is not None:
            row = families.children_of(parent.activation.slices).get(bond.tag)
            if row is not None and row["id"] == held.id:
                self._tell_started(bond, held.id)
            else:
                self._orphan(held, bond.id, "its parent does not know it any more")
        for tag, row in families.children_of(slices).items():
            child = agents.get(row["id"])
            if child is not None:
                self._rebind_child(Parent(held.id, tag), child)

    def _rebind_child(self, bond: Parent, child: Held) -> None:
        theirs = families.parent_of(child.activation.slices)
        if theirs is None:
            bind = self._engine.amend(child, (Bound(*bond),))
            self._engine.later(bind, f"{child.id} has a parent")
        elif theirs.id != bond.id:
            self._leave(bond, child.id, f"it is a child of {theirs.id}", failed=False)
            return
        self._tell_started(bond, child.id)

    def ended(self, held: Held, slices: Mapping[str, Any], reason: str, *, failed: bool) -> None:
        """An agent has ended, whose record was this."""
        parts = [
            self._engine.later(self._part(held.id, row, reason), f"{row['id']} without {held.id}")
            for row in families.children_of(slices).values()
        ]
        bond = families.parent_of(slices)
        if bond is None:
            return
        parent = self._engine.agents.get(bond.id)
        if parent is not None:
            self._lost(parent, bond, held, reason, failed=failed, parts=parts)
        elif self._engine.expected(bond.id):
            self._engine.later(self._lost_asleep(bond, held, reason, failed=failed), f"{bond.id} without {held.id}")

    async def _lost_asleep(self, bond: Parent, held: Held, reason: str, *, failed: bool) -> None:
        self._lost(await self._engine.reach(bond.id), bond, held, reason, failed=failed, parts=[])

    def _lost(
        self, parent: Held, bond: Parent, held: Held, reason: str, *, failed: bool, parts: list[asyncio.Task[None]]
    ) -> None:
        row = families.children_of(parent.activation.slices).get(bond.tag)
        if row is None or row["id"] != held.id:
            return
        if held.id not in self._stopping and self._may_begin_again(bond, row, failed=failed):
            arrival = self._arrive_again(bond, held, parts)
            self._engine.later(self._begun_again(bond, held, row, arrival), f"{held.id} begins again")
        else:
            self._leave(bond, held.id, reason, failed=failed)

    def _may_begin_again(self, bond: Parent, row: Row, *, failed: bool) -> bool:
        now = self._engine.clock.now()
        times = self._restarts[bond] = families.recent(self._restarts.get(bond, ()), now)
        may = families.begins_again(row["restart"], times, failed=failed)
        if may:
            times.append(now)
        return may

    def _arrive_again(self, bond: Parent, held: Held, parts: list[asyncio.Task[None]]) -> asyncio.Task[Held]:
        how = How(held.storage, (Bound(*bond),), after=parts)
        return self._engine.lives.arrive(held.activation.cls, held.id, held.seed, how)

    async def _begun_again(self, bond: Parent, held: Held, row: Row, arrival: asyncio.Task[Held]) -> None:
        while True:
            try:
                await self._engine.arrival(arrival)
            except Exception as error:  # noqa: BLE001 - hooks are the author's
                self._engine.report(held, "another beginning", error)
                if not self._may_begin_again(bond, row, failed=True):
                    self._leave(bond, held.id, f"it could not begin again: {error}", failed=True)
                    return
                arrival = self._arrive_again(bond, held, [])
            else:
                self._tell_started(bond, held.id, restarts=len(self._restarts.get(bond, ())))
                return

    async def _part(self, parent: str, row: Row, reason: str) -> None:
        """The parent of a child has ended."""
        try:
            child = await self._engine.reach(row["id"])
            if row["on_parent_end"] == "stop":
                await self._engine.lives.end(child, f"its parent ended: {reason}", failed=False)
            elif row["on_parent_end"] == "orphan":
                self._orphan(child, parent, reason)
            else:
                await self._engine.amend(child, (Unbound(parent),))
        except errors.NotFound:
            return  # it ended by itself, or is still to be activated in this process

    # --- telling ---

    def _orphan(self, child: Held, parent: str, reason: str) -> None:
        self._tell(child.id, ORPHANED, {"parent": parent, "reason": reason}, parent, extra=(Unbound(parent),))

    def _leave(self, bond: Parent, child: str, reason: str, *, failed: bool) -> None:
        """A child is its parent's no more, and the parent is told."""
        self._restarts.pop(bond, None)
        self.left[bond] = child
        self.left.move_to_end(bond)
        if len(self.left) > ENDS_KEPT:
            self.left.popitem(last=False)
        data = {"tag": bond.tag, "id": child, "reason": reason, "failed": failed}
        self._tell(bond.id, ENDED, data, child, extra=(Gone(bond.tag, child),))

    def _tell_started(
        self, bond: Parent, child: str, *, restarts: int = 0, carried: Mapping[str, object] = NOTHING
    ) -> None:
        self._tell(bond.id, STARTED, {"tag": bond.tag, "id": child, "restarts": restarts}, child, carried=carried)

    def _tell(
        self,
        agent_id: str,
        kind: str,
        data: Mapping[str, object],
        source: str,
        *,
        extra: tuple[Directive, ...] = (),
        carried: Mapping[str, object] = NOTHING,
    ) -> None:
        """A turn for an agent, if its class has a route for the signal; what is to be committed is, in any case."""
        self._told += 1
        signal = Signal(
            id=f"{source}.kin.{self._told}", source=source, type=kind, data=_codec.unpack(_codec.pack(data))
        )
        held = self._engine.agents.get(agent_id)
        if held is not None:
            self._deliver(held, signal, extra, carried)
        elif self._engine.expected(agent_id):
            self._engine.later(self._deliver_later(agent_id, signal, extra, carried), f"{agent_id} {kind}")

    async def _deliver_later(
        self, agent_id: str, signal: Signal, extra: tuple[Directive, ...], carried: Mapping[str, object]
    ) -> None:
        self._deliver(await self._engine.reach(agent_id), signal, extra, carried)

    def _deliver(self, held: Held, signal: Signal, extra: tuple[Directive, ...], carried: Mapping[str, object]) -> None:
        if held.activation.leads(signal):
            self._engine.post(held.id, signal, caller=signal.source, extra=extra, carried=carried)
        elif extra:
            self._engine.later(self._engine.amend(held, extra), f"{held.id} {signal.type}")
