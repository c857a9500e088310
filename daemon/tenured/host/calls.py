"""The Calls service of a host (port 7445): finds the activation, or says where it is; keeps the caller's deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tenure_api.identity import Identity, Role
from tenure_proto.v1.calls_pb2 import CALL_KIND_CONTROL, Call, LogBatch, LogsRequest, Reply
from tenure_proto.v1.common_pb2 import Error
from tenured.clocks import boot_ns
from tenured.host.activations import Activations
from tenured.host.failures import not_applied
from tenured.host.holder import Holder
from tenured.host.rows import Row
from tenured.host.site import Site
from tenured.transport.calls import Answered, defect
from tenured.transport.roles import CONTROLLERS

DEFAULT_TIMEOUT_S = 30.0
"""Of a call that carries no deadline: nothing waits for ever."""
LONGEST_TIMEOUT_S = 3600.0
PATIENCE_S = 0.5
"""How long a call may wait for a row that this host has not read yet: the caller may have asked a server that is ahead.
"""


@dataclass(slots=True)
class _Asked:
    """A call on its way to an answer."""

    call: Call
    caller: str
    timeout_s: float
    answered: Answered
    deadline_ns: int = field(init=False)
    """Boot clock."""

    def __post_init__(self) -> None:
        self.deadline_ns = boot_ns() + int(self.timeout_s * 1e9)


class HostCalls:
    """Implements `transport.calls.CallsHandler`."""

    def __init__(self, site: Site, activations: Activations) -> None:
        self._site = site
        self._activations = activations
        self._waiting: set[asyncio.Task[None]] = set()

    def begin(self, peer: Identity, call: Call, answered: Answered) -> None:
        """Answers within the call's deadline, in a result or a typed error (DESIGN.md, invariant 5)."""
        timeout_s = min(call.timeout_ms / 1000 or DEFAULT_TIMEOUT_S, LONGEST_TIMEOUT_S)
        # A server passes calls on for others and names whom it verified; everybody else speaks for himself.
        asked = _Asked(call, call.caller if peer.role is Role.SERVER and call.caller else peer.uri, timeout_s, answered)
        if call.kind == CALL_KIND_CONTROL and peer.role not in CONTROLLERS:
            self._end(asked, Reply(error=not_applied("PermissionDenied", f"a {peer.role} may not operate on agents")))
        elif (found := self._find(call.agent)) is None:
            task = asyncio.get_running_loop().create_task(self._wait(asked))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)
        else:
            self._go_on(asked, found)

    async def call(self, peer: Identity, call: Call) -> Reply:
        """`begin`, awaited."""
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.begin(peer, call, lambda answer: None if reply.done() else reply.set_result(answer))
        return await reply

    async def logs(self, peer: Identity, request: LogsRequest) -> AsyncIterator[LogBatch]:  # noqa: ARG002 - a protocol
        """Lines of one agent's log; ends when the agent leaves this host."""
        row = self._site.mirror.agent(request.agent)
        if row is None or not self._activations.here(row.uid):
            return
        async for batch in self._site.logs.read(row.uid, request.tail, follow=request.follow):
            yield batch

    # --- one call -----------------------------------------------------------------------------------------------------

    def _go_on(self, asked: _Asked, found: Holder | Error) -> None:
        """It is known who answers."""
        if isinstance(found, Error):
            self._end(asked, Reply(error=found))
            return
        job = found.submit(asked.call, asked.caller, asked.deadline_ns)
        if job.answered:
            self._end(asked, job.reply.result(), found.epoch)
            return
        timer = asyncio.get_running_loop().call_later(max(0.0, job.remaining_s()), job.out_of_time)

        def done(reply: asyncio.Future[Reply]) -> None:
            timer.cancel()
            self._end(asked, reply.result(), found.epoch)

        job.reply.add_done_callback(done)

    def _end(self, asked: _Asked, reply: Reply, epoch: int = 0) -> None:
        reply.epoch = epoch
        reply.host = self._site.host
        reply.cluster_time = self._site.lease.cluster_time
        self._site.metrics.calls.add(reply.error.code if reply.HasField("error") else "ok")
        asked.answered(reply)

    async def _wait(self, asked: _Asked) -> None:
        """For news of the agent, or until there is no more time for them."""
        loop, agent = asyncio.get_running_loop(), asked.call.agent
        until = loop.time() + min(asked.timeout_s, PATIENCE_S)
        while (found := self._find(agent)) is None and (left := until - loop.time()) > 0:
            await asyncio.wait({self._activations.next_change()}, timeout=left)
        try:
            self._go_on(asked, found or self._nobody(agent, self._site.mirror.agent(agent)))
        except Exception as error:  # noqa: BLE001 - as in an adapter: the caller is told
            self._end(asked, defect(error))

    def _find(self, agent: str) -> Holder | Error | None:
        """Who answers now: its activation, or why there is none. None: news of it may be on their way."""
        row = self._site.mirror.agent(agent)
        mine = row is not None and row.uid in self._site.mirror.mine
        holder = None if row is None else self._activations.find(row.uid)
        if holder is None and not (row is not None and row.host and not mine):
            return None
        return holder if holder is not None and mine and self._site.lease.held else self._nobody(agent, row)

    def _nobody(self, agent: str, row: Row | None) -> Error:
        """Why it is not answered here, and where it is."""
        if not self._site.lease.held:
            return not_applied("Fenced", "the lease of this host has lapsed")
        if row is None:  # whether there is none, a server says: what this host has read of the registry may be old
            return not_applied("NotReady", f"this host has not read of an agent {agent}")
        route = self._site.mirror.route(row)
        if row.host and row.incarnation != self._site.mirror.incarnation:
            return not_applied("Moved", f"{agent} is held by {row.host}", moved_to=route)
        return not_applied("NotReady", row.summary or f"{agent} is not running", moved_to=route)
