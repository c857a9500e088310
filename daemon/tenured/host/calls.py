"""The Calls service of a host (port 7445): finds the activation, or says where it is; keeps the caller's deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from tenure_api.identity import Identity, Role
from tenure_proto.v1.calls_pb2 import CALL_KIND_CONTROL, Call, LogBatch, LogsRequest, Reply
from tenure_proto.v1.common_pb2 import Error
from tenure_proto.v1.registry_pb2 import AgentRow
from tenured.clocks import boot_ns
from tenured.host.activations import Activations
from tenured.host.failures import not_applied
from tenured.host.holder import Holder
from tenured.host.site import Site
from tenured.transport.roles import CONTROLLERS

DEFAULT_TIMEOUT_S = 30.0
"""Of a call that carries no deadline: nothing waits for ever."""
LONGEST_TIMEOUT_S = 3600.0
PATIENCE_S = 0.5
"""How long a call may wait for a row that this host has not read yet: the caller may have asked a server that is ahead.
"""


class HostCalls:
    """Implements `transport.calls.CallsHandler`."""

    def __init__(self, site: Site, activations: Activations) -> None:
        self._site = site
        self._activations = activations

    async def call(self, peer: Identity, call: Call) -> Reply:
        """Answers within the call's deadline, in a result or a typed error (DESIGN.md, invariant 5)."""
        timeout_s = min(call.timeout_ms / 1000 or DEFAULT_TIMEOUT_S, LONGEST_TIMEOUT_S)
        deadline_ns = boot_ns() + int(timeout_s * 1e9)
        # A server passes calls on for others and names whom it verified; everybody else speaks for himself.
        caller = call.caller if peer.role is Role.SERVER and call.caller else peer.uri
        if call.kind == CALL_KIND_CONTROL and peer.role not in CONTROLLERS:
            refusal = f"a {peer.role} may not operate on agents"
            reply = Reply(error=not_applied("PermissionDenied", refusal))
        else:
            reply = await self._answer(call, caller, deadline_ns, timeout_s)
        reply.host = self._site.host
        reply.cluster_time = self._site.lease.cluster_time
        self._site.metrics.calls.add(reply.error.code if reply.HasField("error") else "ok")
        return reply

    async def logs(self, peer: Identity, request: LogsRequest) -> AsyncIterator[LogBatch]:  # noqa: ARG002 - a protocol
        """Lines of one agent's log; ends when the agent leaves this host."""
        row = self._site.mirror.agent(request.agent)
        if row is None or not self._activations.here(row.uid):
            return
        async for batch in self._site.logs.read(row.uid, request.tail, follow=request.follow):
            yield batch

    async def _answer(self, call: Call, caller: str, deadline_ns: int, timeout_s: float) -> Reply:
        found = await self._find(call.agent, min(timeout_s, PATIENCE_S))
        if isinstance(found, Error):
            return Reply(error=found)
        job = found.submit(call, caller, deadline_ns)
        if not job.answered:
            await asyncio.wait({job.reply}, timeout=max(0.0, job.remaining_s()))
            job.out_of_time()
        reply = job.reply.result()
        reply.epoch = found.epoch
        return reply

    async def _find(self, agent: str, patience_s: float) -> Holder | Error:
        deadline = asyncio.get_running_loop().time() + patience_s
        while True:
            row = self._site.mirror.agent(agent)
            mine = row is not None and row.uid in self._site.mirror.mine
            holder = None if row is None else self._activations.find(row.uid)
            left = deadline - asyncio.get_running_loop().time()
            if holder is not None or left <= 0 or (row is not None and row.host and not mine):
                break
            await asyncio.wait({self._activations.next_change()}, timeout=left)
        if not self._site.lease.held:
            return not_applied("Fenced", "the lease of this host has lapsed")
        if holder is not None and row is not None and mine:
            return holder
        return self._elsewhere(agent, row)

    def _elsewhere(self, agent: str, row: AgentRow | None) -> Error:
        if row is None:  # whether there is none, a server says: what this host has read of the registry may be old
            return not_applied("NotReady", f"this host has not read of an agent {agent}")
        route = self._site.mirror.route(row)
        if row.host and row.incarnation != self._site.mirror.incarnation:
            return not_applied("Moved", f"{agent} is held by {row.host}", moved_to=route)
        return not_applied("NotReady", row.summary or f"{agent} is not running", moved_to=route)
