"""What one spec shows by itself to be impossible."""

from __future__ import annotations

import re

import msgspec

from tenure_api.reasons import Reason
from tenured.core.model import SPREAD_BY, STRATEGIES, AgentSpec

MAX_DOCUMENT = 64 * 1024
"""Bytes of spec.state and of spec.config: they are in the log, so they are small. State that grows lives in the
store.
"""
MAX_WORDS = 256
"""Labels, capabilities, tolerations and spreads of one spec, together."""

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
    wrong = _placing_error(spec)
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
