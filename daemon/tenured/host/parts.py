"""What an activation consists of once its record is its own."""

from __future__ import annotations

from tenured.host.alarms import Alarms
from tenured.host.beginning import Beginning
from tenured.host.controls import Controls
from tenured.host.judging import Judge
from tenured.host.ledger import Ledger
from tenured.host.outgoing import Outgoing
from tenured.host.rows import Row
from tenured.host.signaljobs import HeldJob
from tenured.host.site import Site
from tenured.host.telling import Telling
from tenured.host.trials import Trials
from tenured.host.turning import Turns


class Parts:
    """See the module."""

    def __init__(self, site: Site, row: Row, telling: Telling, ledger: Ledger) -> None:
        policy = row.kind.policy
        judge = Judge(site, telling, ledger, policy)
        self.ledger = ledger
        self.outgoing = Outgoing(site, row, telling, policy)
        self.runner = Turns(site, telling, ledger, judge, self.outgoing)
        self.outgoing.on_due = judge.guard(self.runner.pump)
        self.alarms = Alarms(site.lease, self.runner.add, lambda: keeps_still(ledger), judge.guard)
        self.beginning = Beginning(site, ledger, self.outgoing, self.runner.write_first)
        self.trials = Trials(self.runner, ledger, site.lease, site.trials)
        self.controls = Controls(
            row.id,
            row.kind.name,
            ledger,
            lambda: self.alarms.due,
            lambda held: self.runner.add(HeldJob(held, row.uid)),
        )

    def close(self, why: str) -> None:
        """Nothing stays unanswered."""
        self.alarms.stop()
        self.outgoing.close()
        self.runner.refuse_all("NotReady", why)

    def dissolve(self) -> None:
        """Nothing is under way, and none of it is used any more. They let go of each other: all of it is freed now, not
        when Python looks for cycles.
        """
        self.outgoing.on_due = _nothing
        self.runner.dissolve()
        del self.controls


def _nothing() -> None: ...


def keeps_still(ledger: Ledger) -> bool:
    """Whether no plan is to be run: the agent is paused, or has ended."""
    return ledger.book.boxes.held is not None or ledger.book.ended is not None
