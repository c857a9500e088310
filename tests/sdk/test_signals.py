"""Envelopes, ids, extensions, trace context and bytes of `tenure.signals`."""

import itertools
import uuid
from datetime import UTC, datetime

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from tenure import errors, signals
from tenure.signals import Extension, Ids, Signal, SignalData, SignalInvalid, Trace

SOURCE = "shop/orders"


class Tenant(Extension, prefix="tenant"):
    name: str
    tier_level: int | None = None


class OrderPaid(
    SignalData,
    type="order.paid",
    dataschema="https://shop/order.json",
    extensions={Tenant: "required", Trace: "forbidden"},
):
    order: int


def test_new_fills_in_what_it_can() -> None:
    """CloudEvents 1.0.2: id, source, type and specversion are required; ours adds the time."""
    before = datetime.now(UTC)
    signal = Signal.new("order.paid", {"order": 7}, source=SOURCE)
    assert (signal.type, signal.source, signal.data) == ("order.paid", SOURCE, {"order": 7})
    assert signal.time is not None
    assert before <= signal.time <= datetime.now(UTC)
    assert uuid.UUID(signal.id).version == 7


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"id": ""}, "`id`"),
        ({"type": "a..b"}, "`type`"),
        ({"type": "with space"}, "`type`"),
        ({"type": "x" * 300}, "`type`"),
        ({"source": ""}, "`source`"),
        ({"source": "with space"}, "`source`"),
        ({"time": datetime(2026, 1, 1)}, "`time`"),  # noqa: DTZ001 - that is the point
        ({"extensions": {"Upper": 1}}, "'Upper'"),
        ({"extensions": {"id": "x"}}, "'id'"),
        ({"extensions": {"tenant": [1]}}, "`tenant`"),
    ],
)
def test_an_invalid_envelope_names_the_attribute(change: dict[str, object], named: str) -> None:
    with pytest.raises(SignalInvalid, match=named.replace("`", ".")):
        Signal(**({"id": "1", "source": SOURCE, "type": "a.b"} | change))


# --- ids ------------------------------------------------------------------------------------------------------------


def test_ids_have_the_layout_of_rfc_9562() -> None:
    made = Ids(clock_ms=lambda: 0x0123456789AB, bits=lambda count: (1 << count) - 1).next()
    assert made == "01234567-89ab-7000-bfff-ffffffffffff"
    assert uuid.UUID(made).variant == uuid.RFC_4122
    assert signals.time_of(made) == 0x0123456789AB / 1000
    assert signals.sequence_of(made) == 0


def test_ids_grow_within_a_millisecond_and_when_the_clock_goes_back() -> None:
    times = itertools.chain([5, 5, 4, 3], itertools.repeat(5, 5000), itertools.repeat(9))
    ids = Ids(clock_ms=lambda: next(times), bits=lambda _: 0)
    made = [ids.next() for _ in range(5100)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert [signals.sequence_of(one) for one in made[:4]] == [0, 1, 2, 3]
    assert {signals.time_of(one) for one in made} == {0.005, 0.006, 0.009}, "the 4,097th borrows the next millisecond"


@pytest.mark.parametrize("text", ["", "x", str(uuid.UUID(int=5)), "01234567-89ab-4000-bfff-ffffffffffff"])
def test_what_is_no_id_of_ours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="version 7"):
        signals.time_of(text)


# --- extensions and types -------------------------------------------------------------------------------------------


def test_an_extension_is_attributes_with_a_schema() -> None:
    signal = Signal.new("a", source=SOURCE, extensions={"other": 1}).extended(Tenant(name="acme", tier_level=2))
    assert signal.extensions == {"other": 1, "tenantname": "acme", "tenanttierlevel": 2}
    assert signal.extension(Tenant) == Tenant(name="acme", tier_level=2)
    assert signal.extension(Trace) is None
    smaller = signal.extended(Tenant(name="b"))
    assert smaller.extensions == {"other": 1, "tenantname": "b"}, "of the same kind: replaced whole"
    assert signal.extensions["tenantname"] == "acme", "a signal is a value"


def test_a_bad_extension_is_told_when_it_is_read() -> None:
    signal = Signal.new("a", source=SOURCE, extensions={"tenanttierlevel": "high"})
    with pytest.raises(SignalInvalid, match=r"Tenant.*name"):
        signal.extension(Tenant)


def test_an_extension_whose_names_cannot_be_is_refused_at_its_definition() -> None:
    with pytest.raises(errors.DefinitionError, match="attribute"):
        type("Long", (Extension,), {"__annotations__": {"a_very_long_field_name_of_an_extension": str}})


def test_a_typed_signal_checks_data_and_extensions() -> None:
    signal = OrderPaid(order=7).signal(Tenant(name="acme"), source=SOURCE)
    assert (signal.type, signal.data, signal.dataschema) == ("order.paid", {"order": 7}, "https://shop/order.json")
    assert OrderPaid.of(signal).order == 7
    with pytest.raises(SignalInvalid, match="must carry the extension Tenant"):
        OrderPaid(order=7).signal(source=SOURCE)
    with pytest.raises(SignalInvalid, match="must not carry the extension Trace"):
        OrderPaid.of(signal.extended(Trace.root()))
    with pytest.raises(SignalInvalid, match=r"'order\.paid', not of 'order\.sent'"):
        OrderPaid.of(Signal.new("order.sent", {"order": 7}, source=SOURCE))
    with pytest.raises(SignalInvalid, match="`order`"):
        OrderPaid.of(Signal.new("order.paid", {"order": "x"}, source=SOURCE).extended(Tenant(name="a")))


# --- trace context --------------------------------------------------------------------------------------------------


def test_a_child_stays_in_its_trace() -> None:
    root = Trace.root(bits=lambda count: 1 << (count - 1))
    assert root.traceparent == f"00-8{'0' * 31}-8{'0' * 15}-01"
    child = Trace(traceparent=root.traceparent, tracestate="vendor=1").child()
    assert (child.trace_id, child.sampled, child.tracestate) == (root.trace_id, True, "vendor=1")
    assert child.span_id != root.span_id
    assert not Trace.root(sampled=False).sampled


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00-x",
        f"ff-{'1' * 32}-{'1' * 16}-01",
        f"00-{'0' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'0' * 16}-01",
        f"00-{'1' * 32}-{'1' * 16}-01-more",
        f"00-{'A' * 32}-{'1' * 16}-01",
    ],
)
def test_an_invalid_traceparent_is_refused(text: str) -> None:
    """W3C Trace Context, section 3.2."""
    signal = Signal.new("a", source=SOURCE, extensions={"traceparent": text})
    with pytest.raises(SignalInvalid, match="traceparent"):
        signal.extension(Trace)


def test_a_later_version_of_traceparent_may_be_longer() -> None:
    assert Trace(traceparent=f"01-{'1' * 32}-{'2' * 16}-01-more").span_id == "2" * 16


# --- bytes ----------------------------------------------------------------------------------------------------------

FULL = Signal.new(
    "order.paid",
    {"order": 7, "lines": [1.5, None, "ü"]},
    source=SOURCE,
    subject="7",
    datacontenttype="application/json",
    dataschema="https://shop/order.json",
    extensions={"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "unknown": "kept", "flag": True},
)


@pytest.mark.parametrize(
    "signal", [FULL, Signal(id="1", source="a", type="b"), Signal.new("b", b"\x00\xff", source="a")]
)
def test_bytes_and_back(signal: Signal) -> None:
    assert signals.from_json(signals.to_json(signal)) == signal
    assert signals.from_msgpack(signals.to_msgpack(signal)) == signal


def test_our_json_is_that_of_the_specification() -> None:
    """The CNCF's own library reads ours, and we read its."""
    peer = JSONFormat()
    theirs = peer.read(CloudEvent, signals.to_json(FULL))
    assert theirs.get_attributes()["type"] == "order.paid"
    assert theirs.get_attributes()["unknown"] == "kept"
    assert theirs.get_data() == FULL.data
    assert signals.from_json(peer.write(theirs)) == FULL
    binary = {"id": "1", "type": "a.b", "source": "x", "specversion": "1.0"}
    assert signals.from_json(peer.write(CloudEvent(binary, b"\x00\xff"))).data == b"\x00\xff"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b'{"specversion":"1.0","id":"1","source":"a"}',
        b'{"specversion":"0.3","id":"1","source":"a","type":"b"}',
        b'{"specversion":"1.0","id":1,"source":"a","type":"b"}',
        b'{"specversion":"1.0","id":"1","source":"a","type":"b","time":"yesterday"}',
        b'{"specversion":"1.0","id":"1","source":"a","type":"b","data":1,"data_base64":"AA=="}',
        b'{"specversion":"1.0","id":"1","source":"a","type":"b","data_base64":"!"}',
        b"[" * 100_000,
    ],
)
def test_garbage_is_refused(text: bytes) -> None:
    with pytest.raises(SignalInvalid):
        signals.from_json(text)
    with pytest.raises(SignalInvalid):
        signals.from_msgpack(text)


def test_too_large_a_signal_is_refused_on_both_sides() -> None:
    signal = Signal.new("a", "x" * 100, source=SOURCE)
    for write, read in ((signals.to_json, signals.from_json), (signals.to_msgpack, signals.from_msgpack)):
        with pytest.raises(SignalInvalid, match="at most 50"):
            write(signal, limit=50)
        with pytest.raises(SignalInvalid, match="at most 50"):
            read(write(signal), limit=50)


def test_what_cannot_be_written_is_refused() -> None:
    signal = Signal.new("a", object(), source=SOURCE)
    for write in (signals.to_json, signals.to_msgpack):
        with pytest.raises(SignalInvalid, match="a: "):
            write(signal)
