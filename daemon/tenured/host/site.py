"""What every activation of this host shares. A bundle of the host's services, made once in `app`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from tenured.host.courier import Courier
from tenured.host.gathering import Gathering
from tenured.host.leasing import Lease
from tenured.host.logs import AgentLogs
from tenured.host.metrics import Metrics
from tenured.host.mirror import Mirror
from tenured.host.newborns import Newborns
from tenured.host.pool import WorkerPool
from tenured.host.reports import Reporter
from tenured.host.stores import StateStore
from tenured.host.trialroom import TrialRoom


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One host process."""

    host: str
    lease: Lease
    pool: WorkerPool
    store: StateStore
    reports: Reporter
    logs: AgentLogs
    mirror: Mirror
    metrics: Metrics
    courier: Courier
    random: Callable[[], float]
    """0 to 1."""
    gathering: Gathering = field(default_factory=Gathering)
    newborns: Newborns = field(default_factory=Newborns)
    trials: TrialRoom = field(default_factory=TrialRoom)
    turns: count[int] = field(default_factory=lambda: count(1))
    """Numbers of turns on the worker link, never used twice by one daemon."""
