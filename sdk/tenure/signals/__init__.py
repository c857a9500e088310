"""Signals: CloudEvents 1.0.2 envelopes, patterns that route them, and a bus in this process.

    signal = tenure.Signal.new("order.paid", {"order": 7}, source="shop/orders")
    router = signals.Router([signals.Route("order.*", handle), signals.Route("**", log)])
    for handler in router.route(signal): ...

docs/sdk/signals.md has it all with examples. Nothing here needs a runtime or an event loop but the bus.
"""

from tenure.signals._bus import Bus, Overflow, Spy, Stream, Subscription
from tenure.signals._correlation import Correlation
from tenure.signals._extension import Extension, Policy, SignalData
from tenure.signals._ids import Ids, new_id, sequence_of, time_of
from tenure.signals._router import Route, Router, matches
from tenure.signals._serial import (
    PAYLOAD_LIMIT,
    from_json,
    from_msgpack,
    to_json,
    to_msgpack,
)
from tenure.signals._signal import SPEC_VERSION, Signal, SignalInvalid
from tenure.signals._trace import Trace

__all__ = [
    "PAYLOAD_LIMIT",
    "SPEC_VERSION",
    "Bus",
    "Correlation",
    "Extension",
    "Ids",
    "Overflow",
    "Policy",
    "Route",
    "Router",
    "Signal",
    "SignalData",
    "SignalInvalid",
    "Spy",
    "Stream",
    "Subscription",
    "Trace",
    "from_json",
    "from_msgpack",
    "matches",
    "new_id",
    "sequence_of",
    "time_of",
    "to_json",
    "to_msgpack",
]
