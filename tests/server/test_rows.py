"""What is asked for, what holders say and what users read, from the wire to the rows and back."""

from __future__ import annotations

import pytest

from tenure_proto.v1 import hostlink_pb2, registry_pb2
from tenured.core import agentspec, model
from tenured.core.registry import Registry
from tenured.server import fromwire, rows


def shown(spec: agentspec.AgentSpec, **fields: object) -> registry_pb2.AgentRow:
    agent = model.Agent(uid="1", spec=spec, managed_by="API", **fields)  # type: ignore[arg-type] # a test's own
    return rows.agent_row(Registry(), agent, 0.0)


def test_a_spec_that_says_nothing_has_the_defaults_and_the_row_shows_them() -> None:
    """A reader of rows needs no defaults of its own, and an earlier client needs not know the fields."""
    message = registry_pb2.AgentSpec(id="shop/a", critical=True)
    setattr(message, "class", "Counter")
    spec = fromwire.spec_from(message)
    assert spec == agentspec.AgentSpec(id="shop/a", class_name="Counter")
    assert spec.delivery is agentspec.DELIVERY
    row = shown(spec).spec
    assert (row.durability, row.reads, row.on_exhausted, row.idle_timeout_s) == ("Quorum", "Local", "DeadLetter", 0)
    assert (row.delivery.max_attempts, row.delivery.backoff_s, row.delivery.ttl_s) == (5, 0.1, 300)


def test_how_an_agent_works_goes_there_and_back() -> None:
    spec = agentspec.AgentSpec(
        id="shop/a",
        class_name="Counter",
        reads="Quorum",
        on_exhausted="Pause",
        delivery=agentspec.Delivery(max_attempts=3, ttl_s=60),
        idle_timeout_s=30,
    )
    assert fromwire.spec_from(shown(spec).spec) == spec
    volatile = agentspec.AgentSpec(id="shop/a", class_name="Counter", durability="Volatile")
    assert fromwire.spec_from(shown(volatile).spec) == volatile


def test_a_row_says_how_it_sleeps_and_what_it_could_not_process() -> None:
    spec = agentspec.AgentSpec(id="shop/a", class_name="Counter")
    row = shown(
        spec, incarnation="i", ready=True, hibernation=model.Hibernation(wake_wall=90.0), dead_letters=2, node="n"
    )
    assert (row.hibernated, row.wake_wall, row.dead_letters, row.phase, row.ready) == (True, 90, 2, "Hibernated", True)
    assert not shown(spec).hibernated


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ({"ready": True}, (True, None, None, None)),
        ({"dead_letters": 0}, (False, None, None, 0)),
        ({"ready": True, "dead_letters": 4}, (True, None, None, 4)),
        ({"hibernated": hostlink_pb2.Hibernated(wake_at=7)}, (False, 7.0, None, None)),
        ({"hibernated": hostlink_pb2.Hibernated()}, (False, 0.0, None, None)),
        ({"trouble": hostlink_pb2.Trouble(phase="Paused")}, (False, None, "Paused", None)),
        ({}, (False, None, None, None)),
    ],
)
def test_a_report_is_read_as_it_was_meant(what: dict[str, object], expected: tuple[object, ...]) -> None:
    """No count is not a count of none."""
    report = hostlink_pb2.AgentReport(uid="1", epoch=2, **what)  # type: ignore[arg-type] # a test's own
    (found,) = fromwire.agent_reports_from(hostlink_pb2.AgentReports(reports=[report]), 1.0).reports
    sleeps, trouble = found.hibernated, found.trouble
    assert (
        found.ready,
        None if sleeps is None else sleeps.wake_wall,
        None if trouble is None else trouble.phase,
        found.dead_letters,
    ) == expected


def test_what_a_class_hears_reaches_every_watcher() -> None:
    """From the worker's word to the row of the host."""
    info = registry_pb2.ClassInfo(name="Cart", subscribes=["order.*"])
    report = fromwire.report_from(hostlink_pb2.ReportHost(incarnation="i", classes=[info]), 1.0)
    host = model.Host(name="h", incarnation="i", pool="p", node="n", classes=report.classes)
    assert list(rows.host_row(Registry(), host).classes[0].subscribes) == ["order.*"]
