"""What travels from a signal to all that follows from it: its place in a trace, and what it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from tenure.signals import Signal

NOTHING: Mapping[str, object] = MappingProxyType({})
_HANDED_ON = ("traceparent", "tracestate", "correlationid")


def carried_by(signal: Signal) -> Mapping[str, object]:
    """The attributes that signals caused by this one are to have."""
    if not signal.extensions:
        return NOTHING
    found = {name: signal.extensions[name] for name in _HANDED_ON if name in signal.extensions}
    if "correlationid" in found:
        found["causationid"] = signal.id
    return found


def onto(signal: Signal, carried: Mapping[str, object]) -> Signal:
    """The signal with these attributes; what it has already it keeps."""
    if not carried:
        return signal
    own = signal.extensions
    added = {name: value for name, value in carried.items() if name not in own}
    if "traceparent" in own:
        added.pop("tracestate", None)
    return msgspec.structs.replace(signal, extensions={**own, **added}) if added else signal
