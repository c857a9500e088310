"""What this host tells the leader of its agents: batched, in the background, repeated until taken (protocol additions
7).
"""

from __future__ import annotations

import asyncio
import logging

from tenure_proto.v1.hostlink_pb2 import AgentReport, AgentReports, Ended, Hibernated, HostFrame, Trouble
from tenured.transport.errors import TransportError
from tenured.transport.serverlinks import ServerLinks

log = logging.getLogger("tenured.host.reports")

TIMEOUT_S = 3.0
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0
SOON_S = 0.02
"""How long a word that somebody may wait for waits for those that come in the same moment."""
GATHER_S = 0.1
"""How long a report that nobody waits for may wait for others: each entry costs every server a write of its log, in the
way of the replies that are waited for.
"""
MAX_REPORTS = 1000
"""Of one frame."""


async def ask_leader(links: ServerLinks, frame: HostFrame, timeout_s: float = TIMEOUT_S) -> bool:
    """Sends a command to the leader, or to any connected server while none is known; true when it was committed.

    A refusal is logged and counts as not committed. Raises TransportError.
    """
    server = links.leader if links.leader in links.connected else next(iter(sorted(links.connected)), "")
    answer = await links.request(server or "", frame, timeout_s)
    if answer.WhichOneof("body") != "result":
        raise TransportError(f"server {server} answered {answer.WhichOneof('body')} to a command")
    if not answer.result.ok:
        log.warning("server %s refused a %s: %s", server, frame.WhichOneof("body"), answer.result.error.message)
    return answer.result.ok


class Reporter:
    """The latest report of each agent that the registry has not taken yet. Bounded by the number of agents here."""

    def __init__(self, links: ServerLinks, incarnation: str) -> None:
        self._links = links
        self._incarnation = incarnation
        self._open: dict[str, AgentReport] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._gathering: asyncio.TimerHandle | None = None

    def ready(self, uid: str, epoch: int, *, within_s: float = 0.0) -> None:
        """The agent serves. `within_s`: with what comes in the next moments (it has answered already, and nobody waits
        for its place), out of the way of its first reply.
        """
        self._put(AgentReport(uid=uid, epoch=epoch, ready=True), within_s)

    def released(self, uid: str, epoch: int) -> None:
        """The agent is given up: somebody else may hold it (rule R, a). Say it only once nothing of it runs here."""
        self._put(AgentReport(uid=uid, epoch=epoch, released=True))

    def stopped(self, uid: str, epoch: int) -> None:
        """The agent, whose row is being deleted, ended."""
        self._put(AgentReport(uid=uid, epoch=epoch, stopped=True))

    def ended(self, uid: str, epoch: int, reason: str) -> None:
        """The agent has ended by itself, and owes nothing: its row may go. Say it only once nothing of it runs here."""
        self._put(AgentReport(uid=uid, epoch=epoch, ended=Ended(reason=reason)))

    def trouble(self, uid: str, epoch: int, trouble: Trouble) -> None:
        """The agent does not run, and why."""
        self._put(AgentReport(uid=uid, epoch=epoch, trouble=trouble))

    def hibernated(self, uid: str, epoch: int, wake_at: float) -> None:
        """The agent is not in memory; a timer wakes it at `wake_at` (wall clock, seconds), 0: none is set."""
        self._put(AgentReport(uid=uid, epoch=epoch, hibernated=Hibernated(wake_at=wake_at)))

    def dead_letters(self, uid: str, epoch: int, count: int) -> None:
        """So many dead letters are in the agent's record. What was reported before and is not taken yet, stands."""
        report = AgentReport(uid=uid, epoch=epoch)
        before = self._open.get(uid)
        if before is not None and before.epoch == epoch:
            report.CopyFrom(before)
        report.dead_letters = count
        self._put(report)

    async def settled(self) -> None:
        """Until everything reported so far is committed."""
        await self._idle.wait()

    async def run(self) -> None:
        """Sends reports until cancelled."""
        pause = FIRST_PAUSE_S
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._open:
                batch = dict(list(self._open.items())[:MAX_REPORTS])
                if await self._send(batch):
                    pause = FIRST_PAUSE_S
                    for uid, report in batch.items():
                        if self._open.get(uid) is report:
                            del self._open[uid]
                else:
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE_S)
            self._idle.set()

    async def _send(self, batch: dict[str, AgentReport]) -> bool:
        frame = HostFrame(agent_reports=AgentReports(incarnation=self._incarnation, reports=batch.values()))
        try:
            return await ask_leader(self._links, frame)
        except TransportError as error:
            log.debug("reports wait: %s", error)
            return False

    def _put(self, report: AgentReport, within_s: float = 0.0) -> None:
        before = self._open.get(report.uid)
        if (
            before is not None
            and before.epoch == report.epoch
            and before.HasField("dead_letters")
            and not report.HasField("dead_letters")
        ):
            report.dead_letters = before.dead_letters  # a count that is not taken yet goes with the next word
        self._open[report.uid] = report
        self._idle.clear()
        loop, gathering = asyncio.get_running_loop(), self._gathering
        if not within_s:
            self._send_now()
        elif gathering is None or gathering.when() > loop.time() + within_s:
            if gathering is not None:
                gathering.cancel()
            self._gathering = loop.call_later(within_s, self._send_now)

    def _send_now(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self._wake.set()
