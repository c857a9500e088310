"""The catalogue: what modules hold, found, filtered, searched, merged."""

import subprocess
import sys
import types
from pathlib import Path

import pydantic
import pytest
import sdk_agents as sample

import tenure
from tenure import catalog, errors, sensors
from tenure.catalog import Catalog, Entry


class BillState(tenure.State):
    total: int = 0


class Billing(tenure.Agent[BillState], capabilities=["money"]):
    """Bills and their payment."""

    @tenure.action(category="billing", tags=["mail", "customer"], risk="medium")
    def send_invoice(self, customer: str) -> None:
        """Send an invoice to a customer."""

    @tenure.action(category="billing", tags=["money"], risk="high", description="Give money back.")
    def refund(self, amount: int) -> None:
        """For the authors of this class."""

    @tenure.action(visibility="internal")
    def repair(self) -> None:
        """Set right what went wrong."""

    @tenure.query(category="reports")
    def total(self) -> int:
        """How much was billed."""
        return self.state.total

    @tenure.action
    def _hidden(self) -> None: ...


class Special(Billing):
    """Bills with a discount."""

    @tenure.action
    def discount(self) -> None: ...


@tenure.action(category="billing")
def archive_invoice(agent: Billing) -> None:
    """Put an invoice away."""


class TillConfig(pydantic.BaseModel):
    port: int = 1


class Till(sensors.Sensor[TillConfig], category="billing", tags=["money"], signals=["till.opened"]):
    """Tells when the till is opened."""

    def on_event(self, event: object) -> list[sensors.SensorEffect]:
        return [sensors.Report("till.opened")]


shop = types.ModuleType("shop")
vars(shop).update(Billing=Billing, Special=Special, archive_invoice=archive_invoice, Till=Till, other=3)


@pytest.fixture
def known() -> Catalog:
    return catalog.find([shop])


def names(entries: object) -> list[str]:
    return [entry.name for entry in entries]  # type: ignore[attr-defined]


def test_modules_are_searched_for_agents_and_actions(known: Catalog) -> None:
    """Inherited actions stand there once, hidden ones not at all; metadata comes along."""
    assert sorted(names(known)) == [
        "Billing", "Special", "Till", "archive_invoice", "discount", "refund", "repair", "send_invoice", "total",
    ]  # fmt: skip
    refund = known.get(f"{__name__}.Billing.refund")
    assert (refund.kind, refund.description, refund.risk, refund.read_only) == (
        "action", "Give money back.", "high", False,
    )  # fmt: skip
    assert refund.target is Billing.refund
    total = known.get(f"{__name__}.Billing.total")
    assert (total.kind, total.read_only, total.risk) == ("query", True, "low")
    agent = known.get(f"{__name__}.Special")
    assert (agent.kind, agent.description, agent.tags) == ("agent", "Bills with a discount.", ("money",))
    assert known.get(f"{__name__}.archive_invoice").target is archive_invoice
    (till,) = known.list(kind="sensor")
    assert (till.name, till.description, till.category, till.target) == (
        "Till", "Tells when the till is opened.", "billing", Till,
    )  # fmt: skip


def test_a_catalogue_is_filtered_and_paged(known: Catalog) -> None:
    """Public ones, sorted by id, by what they have in common."""
    assert names(known.list(category="billing")) == ["refund", "send_invoice", "Till", "archive_invoice"]
    assert names(known.list(tag="money")) == ["Billing", "refund", "Special", "Till"]
    assert names(known.list(kind="query")) == ["total"]
    assert names(known.list(name="INVOICE")) == ["send_invoice", "archive_invoice"]
    assert names(known.list(name="repair")) == []
    assert names(known.list(name="repair", internal=True)) == ["repair"]
    everything = known.list()
    assert known.list(limit=2) + known.list(limit=99, offset=2) == everything
    assert known.list(limit=0) == known.list(offset=99) == ()
    with pytest.raises(errors.UsageError, match="0 or more"):
        known.list(limit=-1)
    assert Catalog().list() == ()


def test_words_are_searched_for(known: Catalog) -> None:
    """In names, tags, categories and descriptions, in this order; also their plurals and beginnings."""
    assert names(known.search("send invoice"))[:2] == ["send_invoice", "archive_invoice"]
    assert names(known.search("SendInvoices"))[0] == "send_invoice"
    assert names(known.search("customers mail"))[0] == "send_invoice"
    assert names(known.search("discount")) == ["discount", "Special"]
    assert known.search("wrong") == ()
    assert names(known.search("wrong", internal=True)) == ["repair"]
    assert known.search("weather") == known.search("") == ()
    assert len(known.search("invoice", limit=1)) == 1
    assert names(known.search("bill", kind="agent")) == ["Billing", "Special"]


def test_merging_twice_changes_nothing(known: Catalog) -> None:
    before = list(known)
    known.merge(catalog.find([shop]))
    assert list(known) == before
    known.merge(catalog.find([sample]))
    assert "Counter" in names(known.list(kind="agent"))


def test_different_things_under_one_id_are_refused(known: Catalog) -> None:
    """Nothing of the refused merge stays."""
    size = len(known)
    other = Entry(f"{__name__}.Billing", "sensor", "Billing", "Another one.")
    with pytest.raises(catalog.IdConflict, match="Billing is in the catalogue already, as another agent"):
        known.merge([Entry("new", "skill", "new"), other])
    assert len(known) == size
    assert "new" not in known


def test_different_ids_of_one_slug_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Entry, "slug", "abcdefgh")
    with pytest.raises(catalog.IdConflict, match=r"one and (another|one) have the same slug|another and one"):
        Catalog([Entry("one", "skill", "one"), Entry("another", "skill", "another")])


def test_slugs_are_short_and_the_same_in_every_run(known: Catalog) -> None:
    """So that they can be written down."""
    entry = Entry("shop.Billing.refund", "action", "refund")
    code = "from tenure.catalog import Entry; print(Entry('shop.Billing.refund', 'action', 'x').slug)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    assert done.stdout.strip() == entry.slug
    assert len(entry.slug) == 8
    assert known.get(known.list()[0].slug) == known.list()[0]
    assert known.list()[0].slug in known
    with pytest.raises(errors.UsageError, match=r"did you mean .*Billing"):
        known.get(f"{__name__}.Biling")


def test_other_kinds_can_be_added() -> None:
    """By hand: what has no class here."""
    known = Catalog([Entry("weather", "sensor", "weather", "Rain and wind.", tags=("outside",))])
    assert names(known.search("rain")) == ["weather"]
    assert known.get("weather").target is None
