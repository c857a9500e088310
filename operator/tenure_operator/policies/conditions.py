"""Kubernetes conditions: a finding says what is so, `merged` gives it its time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from tenure_api.model import Json

Verdict = Literal["True", "False", "Unknown"]
AS_EXPECTED = "AsExpected"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is said of an object under one condition type."""

    type: str
    status: Verdict
    reason: str
    message: str


def verdict(value: bool) -> Verdict:
    return "True" if value else "False"


def timestamp(moment: datetime) -> str:
    """As Kubernetes writes it: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_wall(seconds: float) -> str:
    return timestamp(datetime.fromtimestamp(seconds, UTC))


def merged(old: Iterable[Json], findings: Iterable[Finding], generation: int, now: datetime) -> list[Json]:
    """The findings as conditions; one whose status did not change keeps its time."""
    before: dict[str, Any] = {condition.get("type", ""): condition for condition in old}
    made: list[Json] = []
    for finding in findings:
        known = before.get(finding.type, {})
        same = known.get("status") == finding.status and known.get("lastTransitionTime")
        made.append(
            {
                "type": finding.type,
                "status": finding.status,
                "reason": finding.reason or AS_EXPECTED,
                "message": finding.message,
                "observedGeneration": generation,
                "lastTransitionTime": known["lastTransitionTime"] if same else timestamp(now),
            }
        )
    return made


def find(status: Json, kind: str) -> Json:
    """The condition of this type, or an empty one."""
    conditions: list[Json] = status.get("conditions", [])
    nothing: Json = {}
    return next((condition for condition in conditions if condition.get("type") == kind), nothing)
