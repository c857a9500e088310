"""Dead letters, paused agents and timers, on holders that answer as a host does."""

import json
from collections.abc import Callable

import pytest
import yaml
from typer.testing import Result

from tenure.errors import DeadlineExceeded
from tests.cli.cli_fake_cluster import NOW, FakeCluster
from tests.cli.cli_fake_holder import Holder

Tenure = Callable[..., Result]
A, B = "shop/counter-1", "shop/counter-2"


@pytest.fixture
def holder(cluster: FakeCluster) -> Holder:
    """Of shop/counter-1: two letters, the newer of which may have taken effect."""
    found = cluster.holders[A] = Holder(A)
    found.letter("4c1", NOW - 300)
    found.letter("4c2", NOW - 30, verdict="unknown", side="sender", to="shop/orders-7")
    cluster.rows.agents[f"uid-{A}"].dead_letters = 2
    return found


@pytest.fixture
def other(cluster: FakeCluster) -> Holder:
    """Of a second agent: one letter, older than the newest."""
    cluster.add_agent(B, dead_letters=1)
    found = cluster.holders[B] = Holder(B)
    found.letter("9a1", NOW - 200)
    return found


def cells(result: Result) -> list[list[str]]:
    assert result.exit_code == 0, result.output
    return [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in result.stdout.splitlines()]


def said(result: Result) -> str:
    return result.stderr.replace("\n", " ")


# --- dead letters ---------------------------------------------------------------------------------------------------


def test_letters_of_all_agents_are_in_one_list_the_newest_first(
    tenure: Tenure, cluster: FakeCluster, holder: Holder, other: Holder
) -> None:
    """Only those are asked whose rows count any."""
    cluster.add_agent("shop/idle")
    header, *rows = cells(tenure("dlq", "list"))
    assert header == ["AGENT", "ID", "AGE", "VERDICT", "WHAT", "FROM", "ATTEMPTS", "ERROR"]
    assert [row[:4] for row in rows] == [
        [A, "4c2", "30s", "unknown"],
        [B, "9a1", "3m20s", "not applied"],
        [A, "4c1", "5m", "not applied"],
    ]
    assert rows[0][-1] == "ActionFailed: ValueError in increment: by must be positive"


def test_letters_of_one_agent_and_of_one_namespace(tenure: Tenure, cluster: FakeCluster, holder: Holder) -> None:
    """One agent is asked whatever its row counts: the row may be behind."""
    cluster.rows.agents[f"uid-{A}"].dead_letters = 0
    assert [row[1] for row in cells(tenure("dlq", "list", "counter-1"))[1:]] == ["4c2", "4c1"]
    elsewhere = tenure("dlq", "list", "-n", "other")
    assert (elsewhere.exit_code, elsewhere.stdout) == (0, "")
    assert "There are no dead letters in other." in elsewhere.stderr


def test_the_forms_of_a_list(tenure: Tenure, holder: Holder) -> None:
    """Wide has both ends, `name` is for xargs, JSON is whole."""
    assert cells(tenure("dlq", "list", "-o", "wide"))[1][-3:-1] == ["sender", "shop/orders-7"]
    assert tenure("dlq", "list", "-o", "name").stdout == f"{A} 4c2\n{A} 4c1\n"
    items = json.loads(tenure("dlq", "list", "-o", "json").stdout)["items"]
    assert (items[0]["agent"], items[0]["verdict"], items[0]["from"]) == (A, "unknown", "shop/orders-7")
    assert yaml.safe_load(tenure("dlq", "list", "-o", "yaml").stdout)["items"] == items


def test_what_could_not_be_asked_is_named(tenure: Tenure, holder: Holder, other: Holder) -> None:
    """The others are shown all the same; the status says that the list is not whole."""
    other.down = DeadlineExceeded("shop/counter-2 did not answer in time.", outcome="not_applied")
    result = tenure("dlq", "list")
    assert result.exit_code == 1
    assert "4c1" in result.stdout
    assert "shop/counter-2 could not be asked: shop/counter-2 did not answer in time." in said(result)
    alone = tenure("dlq", "list", B)
    assert (alone.exit_code, alone.stderr.startswith("Error:")) == (1, True)


def test_a_letter_shows_what_it_carries_and_why_it_failed(tenure: Tenure, holder: Holder) -> None:
    """msgpack within msgpack is opened; bytes that are no msgpack are kept."""
    holder.letters[0]["body"] = b"\x82\xa4name\xa9increment\xa9arguments\xc4\x05\x81\xa2by\xff"
    text = tenure("dlq", "show", A, "4c2").stdout
    for part in (
        "Verdict:    unknown: it may have taken effect",
        "Put aside:  1970-01-12T13:46:10Z (30s ago), by its sender",
        "  name: increment",
        "    by: -1",
        "  Traceback ...",
    ):
        assert part in text
    values = json.loads(tenure("dlq", "show", A, "4c2", "-o", "json").stdout)
    assert values["body"] == {"name": "increment", "arguments": {"by": -1}}
    assert values["bodyBase64"].startswith("gqRu")
    holder.letters[0]["body"] = b"\xff\xfe"
    assert json.loads(tenure("dlq", "show", A, "4c2", "-o", "json").stdout)["body"] == {"$bytes": "//4="}


def test_a_letter_that_may_have_taken_effect_asks_to_be_confirmed(tenure: Tenure, holder: Holder) -> None:
    """Protocol 3: replay of `unknown` asks for confirmation."""
    refused = tenure("dlq", "redrive", A, "4c2")
    assert refused.exit_code == 1
    assert "4c2 was not sent again" in said(refused)
    assert f"`tenure dlq redrive {A} 4c2 --yes`" in said(refused)
    assert tenure("dlq", "redrive", A, "4c2", "--yes").stdout == f"{A} 4c2 redriven\n"
    assert tenure("dlq", "redrive", A, "4c1").exit_code == 0
    assert holder.letters == []


def test_all_letters_are_sent_again_the_oldest_first(tenure: Tenure, holder: Holder) -> None:
    """Without --yes those that may have taken effect are passed over, and that is said."""
    holder.letter("4c3", NOW)
    result = tenure("dlq", "redrive", A, "--all")
    assert (result.exit_code, result.stdout) == (1, f"{A} 4c1 redriven\n{A} 4c3 redriven\n")
    assert "1 letter may have taken effect and was passed over." in said(result)
    assert tenure("dlq", "redrive", A, "--all", "--yes").exit_code == 0
    assert holder.letters == []
    nothing = tenure("dlq", "redrive", A, "--all")
    assert (nothing.exit_code, said(nothing).strip()) == (0, f"There are no dead letters in {A}.")


def test_letters_are_dropped_one_by_one_or_all(tenure: Tenure, holder: Holder) -> None:
    """All of them only if that is meant: it cannot be undone."""
    assert tenure("dlq", "drop", A, "4c1").stdout == f"{A}: 1 dead letter dropped\n"
    holder.letter("4c3", NOW)
    refused = tenure("dlq", "drop", A, "--all")
    assert (refused.exit_code, len(holder.letters)) == (2, 2)
    assert tenure("dlq", "drop", A, "--all", "--yes").stdout == f"{A}: 2 dead letters dropped\n"


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("dlq", "show", A, "zzz"), 1, "has no dead letter zzz"),
        (("dlq", "redrive", A), 2, "Name letters, or say --all."),
        (("dlq", "drop", A, "4c1", "--all"), 2, "Name letters, or say --all."),
        (("dlq", "show", "shop/counter-9", "4c1"), 1, "Did you mean 'shop/counter-1'?"),
        (("resume", "nobody"), 2, "There is no agent called 'nobody'."),
    ],
)
def test_a_mistake_is_answered_with_a_sentence(
    tenure: Tenure, holder: Holder, words: tuple[str, ...], status: int, sentence: str
) -> None:
    result = tenure(*words)
    assert (result.exit_code, result.stdout) == (status, "")
    assert sentence in said(result)


# --- a paused agent -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["resume", "skip", "redrive"])
def test_a_paused_agent_goes_on(tenure: Tenure, holder: Holder, verb: str) -> None:
    """And says so; a second time there is nothing to do."""
    holder.paused = True
    assert tenure(verb, "counter-1").stdout == f"{A}: Running\n"
    assert holder.asked[-1] == (verb, {})
    again = tenure(verb, A)
    assert (again.exit_code, "is not paused" in again.stderr) == (1, True)


def test_who_is_paused_stands_in_the_list_of_agents(tenure: Tenure, cluster: FakeCluster) -> None:
    """The sentence is the registry's; a hibernated agent is Ready."""
    cluster.add_agent(B, phase="Paused", ready=False, summary="Paused: m (tenure resume, skip or redrive)")
    cluster.add_agent("shop/counter-3", phase="Hibernated", summary="Hibernated on node-b: wakes on a call or a signal")
    shown = {row[0]: row[1:3] for row in cells(tenure("get", "agents"))}
    assert shown[B] == ["False", "Paused: m (tenure resume, skip or redrive)"]
    assert shown["shop/counter-3"][0] == "True"
    assert tenure("get", "agents", "-o", "name").stdout == f"{A}\n{B}\nshop/counter-3\n"


# --- timers ---------------------------------------------------------------------------------------------------------


def test_timers_are_shown_by_when_they_fire(tenure: Tenure, cluster: FakeCluster, holder: Holder) -> None:
    """Of two clocks: cluster time, as the servers tell it, and the wall."""
    cluster.rows.cluster_time = 50.0
    holder.plans = [
        {"name": "nightly", "at": NOW + 7200, "clock": "wall", "what": "report", "every": "0 3 * * *"},
        {"name": "retry", "at": 170.0, "clock": "cluster", "what": "increment", "every": None},
        {"name": "late", "at": 49.0, "clock": "cluster", "what": "signal tick", "every": None},
    ]
    header, *rows = cells(tenure("timers", A))
    assert header == ["NAME", "DUE", "CLOCK", "EVERY", "WHAT"]
    assert rows == [
        ["late", "now", "cluster", "<none>", "signal tick"],
        ["retry", "in 2m", "cluster", "<none>", "increment"],
        ["nightly", "in 120m (1970-01-12T15:46:40Z)", "wall", "0 3 * * *", "report"],
    ]
    assert json.loads(tenure("timers", A, "-o", "json").stdout)["items"][1]["name"] == "retry"
    holder.plans = []
    assert "plans nothing" in tenure("timers", A).stderr


# --- help -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        *(("dlq", verb) for verb in ("list", "show", "redrive", "drop")),
        *(("state", verb) for verb in ("get", "put", "export", "import")),
        ("resume",), ("skip",), ("redrive",), ("timers",), ("create",),
    ],
)  # fmt: skip
def test_help_teaches_with_an_example(tenure: Tenure, words: tuple[str, ...]) -> None:
    text = tenure(*words, "--help").stdout
    assert "Example" in text
    assert f"tenure {' '.join(words)}" in text


def test_names_of_agents_are_completed(tenure: Tenure, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a cluster that is away completes nothing, without a word."""
    cluster.add_agent(B)
    cluster.add_agent("shop/other")
    environment = {"_TENURE_COMPLETE": "complete_bash", "COMP_WORDS": "tenure resume shop/c", "COMP_CWORD": "2"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert tenure(prog_name="tenure").stdout.split() == [A, B]
    cluster.failure = DeadlineExceeded("away")
    assert tenure(prog_name="tenure").stdout.split() == []
