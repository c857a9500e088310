"""States past the actions: read, written, saved and brought back. A file is checked before anything is sent."""

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import Result

from tenure.errors import Fenced, StateUnreadable
from tenure_cli.plain import NotPlain, from_plain, to_plain
from tenure_proto.v1 import registry_pb2
from tests.cli.cli_fake_cluster import FakeCluster
from tests.cli.cli_fake_holder import Holder

Tenure = Callable[..., Result]
A, B = "shop/counter-1", "shop/counter-2"
SCHEMA = json.dumps({"properties": {"count": {}, "note": {}, "seen": {}}, "required": ["count"]})


@pytest.fixture(autouse=True)
def holder(cluster: FakeCluster) -> Holder:
    """Of shop/counter-1; its class is described by its host, as one with a schema is."""
    info = registry_pb2.ClassInfo(name="Counter", version=1, state_schema=SCHEMA)
    cluster.rows.hosts["host-2-a"].classes[0].CopyFrom(info)
    found = cluster.holders[A] = Holder(A, state={"count": 4, "note": "hi"})
    return found


def said(result: Result) -> str:
    return result.stderr.replace("\n", " ")


# --- JSON without loss ----------------------------------------------------------------------------------------------

TEXTS = st.text(max_size=6) | st.sampled_from(["$bytes", "$map", "$", "count"])
TIMES = st.datetimes(timezones=st.just(UTC)).map(lambda time: time.replace(fold=0))
LEAVES = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | TEXTS | st.binary() | TIMES
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.integers(-9, 9), inner, max_size=3),
    max_leaves=12,
)


@given(VALUES)
def test_every_state_survives_json(value: Any) -> None:
    """Bytes, times, maps with numbers for keys, and names that begin with a dollar."""
    there = from_plain(json.loads(json.dumps(to_plain(value), allow_nan=False)))
    assert repr(there) == repr(value)  # repr: nan is not equal to itself, and True is equal to 1


@pytest.mark.parametrize(
    "value",
    [
        {"$bytes": "?"}, {"$bytes": 3}, {"$time": "soon"}, {"$time": "2026-01-01T00:00:00"}, {"$float": "1"},
        {"$map": [["a"]]}, {"$map": 3}, {"$map": [[["a"], 1]]}, {"$other": 1}, {"$bytes": "", "a": 1}, 1 << 64,
    ],
    ids=repr,
)  # fmt: skip
def test_what_says_nothing_is_refused(value: object) -> None:
    with pytest.raises(NotPlain):
        from_plain(value)


def test_a_state_of_any_depth_ends_in_a_sentence() -> None:
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(NotPlain, match="deep"):
        to_plain(deep)
    with pytest.raises(NotPlain, match="deep"):
        from_plain(deep)
    with pytest.raises(NotPlain, match="complex"):
        to_plain(1j)


# --- one agent ------------------------------------------------------------------------------------------------------


def test_a_state_is_printed_so_that_it_can_be_saved(tenure: Tenure, holder: Holder) -> None:
    """Standard output is the state alone; where it stands goes beside it."""
    holder.state["seen"] = datetime(2026, 1, 2, tzinfo=UTC)
    result = tenure("state", "get", "counter-1")
    assert json.loads(result.stdout) == {"count": 4, "note": "hi", "seen": {"$time": "2026-01-02T00:00:00Z"}}
    assert said(result).strip() == f"{A}: Counter of version 1, at 3.17"
    whole = yaml.safe_load(tenure("state", "get", A, "-o", "yaml").stdout)
    assert (whole["class"], whole["version"], whole["at"], whole["state"]["count"]) == ("Counter", 1, [3, 17], 4)


def test_some_fields_are_set_and_the_others_stay(tenure: Tenure, holder: Holder) -> None:
    """By compare and set: what the agent did meanwhile is not undone."""
    assert tenure("state", "put", A, "--set", "count=40", "--set", "note=new").stdout == f"{A}: written, at 3.18\n"
    assert holder.state == {"count": 40, "note": "new"}
    assert holder.asked[-1][1]["at"] == [3, 17]


def test_a_whole_state_is_written_from_a_file(tenure: Tenure, holder: Holder, tmp_path: Path) -> None:
    """Without --at whatever the state is now."""
    file = tmp_path / "state.json"
    file.write_text('{"count": 1, "seen": {"$bytes": "AAE="}}')
    assert tenure("state", "put", A, "-f", str(file)).exit_code == 0
    assert holder.state == {"count": 1, "seen": b"\0\1"}
    assert holder.asked[-1][1]["at"] is None
    late = tenure("state", "put", A, "-f", "-", "--at", "3.17", stdin='{"count": 2}')
    assert (late.exit_code, "is at 3.18" in late.stderr) == (1, True)
    assert holder.state["count"] == 1


@pytest.mark.parametrize(
    ("words", "stdin", "status", "sentence"),
    [
        (("put", A), "", 2, "Give a file with -f, or fields with --set."),
        (("put", A, "--set", "count"), "", 2, "'count' sets no field."),
        (("put", A, "--set", "count=1", "--at", "3"), "", 2, "'3' is no place in a record."),
        (("put", A, "-f", "-"), "[1]", 2, "state is an object of fields"),
        (("put", A, "-f", "-"), "{", 2, "-:1: this is no JSON"),
        (("put", A, "-f", "-"), '{"a": {"$b": 1}}', 2, "'$b' is none of $bytes"),
        (("put", A, "-f", "/nowhere/x"), "", 2, "/nowhere/x cannot be read"),
        (("put", A, "--set", "count=many"), "", 1, "`count` should be a valid integer"),
        (("get", "shop/counter-9"), "", 1, "Did you mean 'shop/counter-1'?"),
        (("export",), "", 2, "Name agents, or say --all."),
        (("export", A, "--all"), "", 2, "Name agents, or say --all."),
        (("export", "--all", "-f", "/nowhere/x"), "", 1, "/nowhere/x cannot be written"),
    ],
)
def test_a_mistake_changes_nothing(
    tenure: Tenure, holder: Holder, words: tuple[str, ...], stdin: str, status: int, sentence: str
) -> None:
    result = tenure("state", *words, stdin=stdin)
    assert (result.exit_code, result.stdout) == (status, "")
    assert sentence in said(result)
    assert holder.state == {"count": 4, "note": "hi"}


# --- export and import ----------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tenure: Tenure, cluster: FakeCluster, tmp_path: Path) -> Path:
    """A file of two agents, one of them volatile and with a group of its own."""
    row = cluster.add_agent(B, uid="7")
    row.spec.MergeFrom(registry_pb2.AgentSpec(durability="Volatile", config=b"\x80", critical=True, object_uid="o"))
    cluster.holders[B] = Holder(B, state={"count": 7, "seen": math.inf})
    file = tmp_path / "states.jsonl"
    result = tenure("state", "export", "--all", "-f", str(file))
    assert (result.exit_code, result.stdout) == (0, "")
    assert "2 of 2 agents exported" in said(result)
    return file


def test_an_export_is_one_agent_a_line(saved: Path) -> None:
    first, second = map(json.loads, saved.read_text().splitlines())
    assert (first["id"], first["class"], first["version"], first["state"]) == (
        A,
        "Counter",
        1,
        {"count": 4, "note": "hi"},
    )
    assert second["spec"]["durability"] == "Volatile"
    assert "objectUid" not in second["spec"]
    assert second["state"] == {"count": 7, "seen": {"$float": "inf"}}
    assert not saved.with_name("states.jsonl.part").exists()


def test_what_could_not_be_exported_is_named(tenure: Tenure, cluster: FakeCluster, holder: Holder) -> None:
    """The rest is there; the status tells a script."""
    cluster.add_agent(B)
    cluster.holders[B] = Holder(B, down=StateUnreadable("its record is damaged"))
    result = tenure("state", "export", A, B)
    assert (result.exit_code, len(result.stdout.splitlines())) == (1, 1)
    assert f"{B} was not exported: its record is damaged" in said(result)
    assert "1 of 2 agents exported" in said(result)


def test_an_import_creates_what_is_missing_and_can_be_repeated(
    tenure: Tenure, cluster: FakeCluster, holder: Holder, saved: Path
) -> None:
    """What has the state already is left alone: no write, no new place in its record."""
    del cluster.rows.agents["7"], cluster.holders[B]
    cluster.grows = True
    holder.state["count"] = 5
    trial = tenure("state", "import", str(saved), "--dry-run")
    assert trial.stdout == "2 agents: 1 to create, 1 to compare, 0 unchanged, 0 failed\n"
    assert cluster.applied == []
    assert tenure("state", "import", str(saved)).stdout == "2 agents: 1 created, 1 changed, 0 unchanged, 0 failed\n"
    assert (holder.state["count"], cluster.holders[B].state) == (4, {"count": 7, "seen": math.inf})
    (made,) = cluster.applied
    assert (made.id, made.durability, made.config, made.critical) == (B, "Volatile", b"\x80", True)
    places = holder.seq, cluster.holders[B].seq
    assert tenure("state", "import", str(saved)).stdout == "2 agents: 0 created, 0 changed, 2 unchanged, 0 failed\n"
    assert (holder.seq, cluster.holders[B].seq) == places


def test_an_import_that_fails_in_part_says_where_and_goes_on_next_time(
    tenure: Tenure, cluster: FakeCluster, holder: Holder, saved: Path
) -> None:
    """One agent that cannot be reached keeps no other from its state."""
    holder.state["count"] = 5
    cluster.holders[B].down = Fenced("the host's lease lapsed", outcome="not_applied")
    result = tenure("state", "import", str(saved))
    assert (result.exit_code, result.stdout) == (1, "2 agents: 0 created, 1 changed, 0 unchanged, 1 failed\n")
    assert f"{B} (line 2) was not imported: the host's lease lapsed" in said(result)
    assert "once more goes on where it is" in said(result)
    cluster.holders[B].down = None
    assert "2 unchanged" in tenure("state", "import", str(saved)).stdout


def test_an_agent_that_the_registry_refuses_is_named(tenure: Tenure, cluster: FakeCluster, saved: Path) -> None:
    del cluster.rows.agents["7"], cluster.holders[B]
    refused = registry_pb2.RowResult(id=B, outcome="refused")
    refused.error.message = "no room"
    cluster.results[B] = refused
    result = tenure("state", "import", str(saved))
    assert (result.exit_code, f"{B} was not imported: no room" in said(result)) == (1, True)
    assert "0 created, 0 changed, 1 unchanged, 1 failed" in result.stdout


GOOD = {"id": A, "class": "Counter", "version": 1, "state": {"count": 1}}
BAD = {
    "no JSON": ("{", "x:2: this is no JSON"),
    "a list": ("[]", "x:2: this is no JSON object"),
    "a typo": ({**GOOD, "stat": {}}, "x:2: unknown field 'stat'; did you mean 'state'?"),
    "no id": ({**GOOD, "id": "counter"}, "x:2: id is NAMESPACE/NAME of an agent, not 'counter'"),
    "no class": ({**GOOD, "class": 3}, "x:2: class is the name of a class, not 3"),
    "no version": ({**GOOD, "version": True}, "x:2: version is that of the class"),
    "no state": ({**GOOD, "state": None}, "x:2: state is an object of fields, not None"),
    "a bad word": ({**GOOD, "state": {"a": {"$time": "x"}}}, "x:2: state: $time is no time"),
    "a bad spec": ({**GOOD, "spec": {"durabilty": "Quorum"}}, "x:2: spec:"),
    "the same agent": (GOOD, "x:2: shop/counter-1 stands here twice, first in line 1"),
    "another class": ({**GOOD, "id": B, "class": "Reader"}, "x:2: shop/counter-2 is a Counter here and a Reader"),
    "an unknown class": (
        {**GOOD, "id": "shop/new", "class": "Countr"},
        "x:2: no ready host of pool 'default' has the class 'Countr' (did you mean 'Counter')",
    ),
    "an unknown pool": ({**GOOD, "id": "shop/new", "spec": {"pool": "gpu"}}, "x:2: no ready host of pool 'gpu'"),
    "another version": ({**GOOD, "id": B, "version": 2}, "x:2: Counter is of version 1 here and 2 in the file"),
    "an unknown field": ({**GOOD, "id": B, "state": {"count": 1, "cout": 1}}, "no field 'cout'; did you mean 'count'?"),
    "a missing field": ({**GOOD, "id": B, "state": {}}, "x:2: the field 'count' of Counter is missing"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_bad_line_and_nothing_is_imported(
    tenure: Tenure, cluster: FakeCluster, holder: Holder, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is named; exit status 2: nothing was sent that changes anything."""
    cluster.add_agent(B)
    given, sentence = BAD[case]
    monkeypatch.chdir(tmp_path)
    bad = given if isinstance(given, str) else json.dumps(given)
    Path("x").write_text(f"{json.dumps(GOOD)}\n{bad}\n")
    result = tenure("state", "import", "x")
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in said(result)
    assert (holder.asked, cluster.applied) == ([], [])


def test_every_bad_line_is_named_up_to_a_number(
    tenure: Tenure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x").write_text("\n".join(["", json.dumps(GOOD), *["{"] * 12]))
    text = tenure("state", "import", "x").stderr
    assert "x:3: " in text
    assert "x:12: " in text
    assert "x:13: " not in text
    assert "and 2 more" in text


def test_a_line_without_a_spec_makes_an_agent_as_create_does(tenure: Tenure, cluster: FakeCluster) -> None:
    cluster.grows = True
    line = json.dumps({**GOOD, "id": "shop/new"})
    assert tenure("state", "import", "-", stdin=line).exit_code == 0
    (made,) = cluster.applied
    assert (made.pool, made.critical, made.cpu_milli, made.strategy) == ("default", True, 100, "LoadBalanced")
    assert tenure("state", "import", "-", stdin="").stdout == "0 agents: 0 created, 0 changed, 0 unchanged, 0 failed\n"
