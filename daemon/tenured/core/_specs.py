"""What one spec shows by itself to be impossible."""

from __future__ import annotations

import math
import re

import msgspec

from tenure_api.reasons import Reason
from tenured.core.agentspec import DURABILITIES, ON_EXHAUSTED, READS, SPREAD_BY, STRATEGIES, AgentSpec

MAX_DOCUMENT = 64 * 1024
"""Bytes of spec.state and of spec.config: they are in the log, so they are small. State that grows lives in the
store.
"""
MAX_WORDS = 256
"""Labels, capabilities, tolerations and spreads of one spec, together."""

MAX_ATTEMPTS = 100
BACKOFF_LIMIT_S = 60.0
TTL_LIMIT_S = 3600.0
"""Half of the time for which marks are kept (protocol 3, Bounds): a signal is given up long before its mark is."""
IDLE_LIMIT_S = 366 * 86_400.0

_ID = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def spec_error(spec: AgentSpec) -> tuple[Reason, str] | None:  # noqa: PLR0911 - one line a field
    """Find what one spec shows by itself to be impossible."""
    if not _ID.fullmatch(spec.id):
        return (
            Reason.SPEC_INVALID,
            f"{spec.id!r} is no agent id: it is namespace/name, in lower case letters, digits and dashes",
        )
    if not spec.class_name:
        return Reason.SPEC_INVALID, f"{spec.id} names no class"
    if not spec.pool:
        return Reason.SPEC_INVALID, f"{spec.id} names no pool"
    if spec.strategy not in STRATEGIES:
        known = ", ".join(STRATEGIES)
        return Reason.SPEC_INVALID, f"{spec.id}: placement strategy {spec.strategy!r} is unknown (known: {known})"
    wrong = _placing_error(spec) or _working_error(spec)
    if wrong:
        return Reason.SPEC_INVALID, f"{spec.id}: {wrong}"
    if spec.cpu_milli < 0 or spec.memory_bytes < 0:
        return Reason.SPEC_INVALID, f"{spec.id}: resource requests must not be negative"
    if not _is_map(spec.state):
        return Reason.STATE_INVALID, f"{spec.id}: state must be a map of at most {MAX_DOCUMENT // 1024} KiB"
    if not _is_map(spec.config):
        return Reason.SPEC_INVALID, f"{spec.id}: config must be a map of at most {MAX_DOCUMENT // 1024} KiB"
    return None


def _placing_error(spec: AgentSpec) -> str:
    if any(spread.by not in SPREAD_BY or spread.max_skew < 1 for spread in spec.spread):
        return f"a spread needs by ({', '.join(SPREAD_BY)}) and a maxSkew of at least 1"
    if sum(map(len, (spec.capabilities, spec.requires, spec.tolerations, spec.spread, spec.labels))) > MAX_WORDS:
        return f"more than {MAX_WORDS} labels, capabilities, tolerations and spreads"
    if not all((*spec.capabilities, *spec.requires)):
        return "the name of a capability is empty"
    return ""


def _working_error(spec: AgentSpec) -> str:  # noqa: PLR0911 - one line a field
    """Of how it keeps its state and takes its signals."""
    for name, value, known in (
        ("durability", spec.durability, DURABILITIES),
        ("reads", spec.reads, READS),
        ("onExhausted", spec.on_exhausted, ON_EXHAUSTED),
    ):
        if value not in known:
            return f"{name} {value!r} is unknown (known: {', '.join(known)})"
    delivery = spec.delivery
    if not 1 <= delivery.max_attempts <= MAX_ATTEMPTS:
        return f"delivery.maxAttempts must be 1 to {MAX_ATTEMPTS}"
    if not 0 < delivery.backoff_s <= BACKOFF_LIMIT_S:
        return f"delivery.backoff must be more than 0 and at most {BACKOFF_LIMIT_S:g} seconds"
    if not 1 <= delivery.ttl_s <= TTL_LIMIT_S:
        return f"delivery.ttl must be 1 to {TTL_LIMIT_S:g} seconds"
    if not 0 <= spec.idle_timeout_s <= IDLE_LIMIT_S or math.isnan(spec.idle_timeout_s):
        return f"lifecycle.idleTimeout must be at most {IDLE_LIMIT_S:g} seconds, and not negative"
    if spec.durability == "Volatile" and spec.idle_timeout_s:
        return "lifecycle.idleTimeout needs the durability Quorum: a Volatile agent that leaves memory is gone"
    if spec.durability == "Volatile" and spec.reads == "Quorum":
        return "reads Quorum needs the durability Quorum: of a Volatile agent the servers know nothing"
    return ""


def _is_map(document: bytes) -> bool:
    if not document:
        return True
    if len(document) > MAX_DOCUMENT:
        return False
    try:
        msgspec.msgpack.decode(document, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, ValueError, RecursionError):  # ValueError: text that is not UTF-8
        return False
    return True
