"""What this host tells the leader of its agents: batched, in the background, repeated until taken (protocol additions
7).
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import NamedTuple

from tenure_proto.v1.hostlink_pb2 import AgentReport, AgentReports, Ended, Hibernated, HostFrame, Trouble
from tenured.transport.errors import TransportError
from tenured.transport.serverlinks import ServerLinks

log = logging.getLogger("tenured.host.reports")

TIMEOUT_S = 3.0
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0
MAX_REPORTS = 1000
"""Of one frame."""


class Patience(NamedTuple):
    """How long a word may wait for others: each entry costs every server a write of its log, in the way of the replies
    that are waited for.
    """

    quiet_s: float
    """It goes once nothing has come for so long."""
    at_most_s: float
    """It goes even while others come."""


SOON = Patience(0.02, 0.02)
"""Of a word that somebody may wait for: with those of the same moment."""
GATHERED = Patience(0.1, 1.0)
"""Of a word that nobody waits for."""


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
        self._latest = math.inf
        """When what waits must go, by the loop's clock."""

    def ready(self, uid: str, epoch: int, *, patience: Patience | None = None) -> None:
        """The agent serves. `patience`: told with what comes in the next moments (it may have answered already, and
        nobody waits for its place), out of the way of first replies.
        """
        self._put(AgentReport(uid=uid, epoch=epoch, ready=True), patience)

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
        """Until everything reported so far is committed; what waits for others goes now."""
        if self._open:
            self._send_now()
        await self._idle.wait()

    async def run(self) -> None:
        """Sends reports until cancelled."""
        pause = FIRST_PAUSE_S
        while True:
            await self._wake.wait()
            self._wake.clear()
            due = list(self._open)
            while due:
                batch = {uid: self._open[uid] for uid in due[:MAX_REPORTS]}
                if not await self._send(batch):
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE_S)
                    continue
                pause = FIRST_PAUSE_S
                del due[:MAX_REPORTS]
                for uid, report in batch.items():
                    if self._open.get(uid) is report:  # else a newer word of it goes in its own time
                        del self._open[uid]
            if not self._open:
                self._idle.set()

    async def _send(self, batch: dict[str, AgentReport]) -> bool:
        frame = HostFrame(agent_reports=AgentReports(incarnation=self._incarnation, reports=batch.values()))
        try:
            return await ask_leader(self._links, frame)
        except TransportError as error:
            log.debug("reports wait: %s", error)
            return False

    def _put(self, report: AgentReport, patience: Patience | None = None) -> None:
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
        if patience is None:
            self._send_now()
            return
        loop = asyncio.get_running_loop()
        self._latest = min(self._latest, loop.time() + patience.at_most_s)
        if self._gathering is not None:
            self._gathering.cancel()
        self._gathering = loop.call_at(min(loop.time() + patience.quiet_s, self._latest), self._send_now)

    def _send_now(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self._latest = math.inf
        self._wake.set()
