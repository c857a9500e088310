"""What each command prints, and with which exit status it ends, on a fake cluster."""

import json
from collections.abc import Callable

import pytest
from typer.testing import Result

from tenure.errors import ActionFailed, NotFound, Unavailable
from tenure_cli.ports import Rows
from tenure_proto.v1 import calls_pb2, common_pb2, registry_pb2
from tests.cli.cli_fake_cluster import NOW, FakeCluster

Tenure = Callable[..., Result]


def table(result: Result) -> list[list[str]]:
    """The cells of a printed table."""
    assert result.exit_code == 0, result.output
    return [[cell for cell in line.split("   ") if cell] for line in result.stdout.splitlines()]


def test_get_agents_has_kubectls_columns(tenure: Tenure) -> None:
    """The table of the issue, with the full name."""
    header, row = table(tenure("get", "agents"))
    assert [cell.strip() for cell in header] == ["NAME", "READY", "STATUS", "NODE", "EPOCH", "RESTARTS", "AGE"]
    assert [cell.strip() for cell in row] == ["shop/counter-1", "True", "Running on node-2", "node-2", "1", "0", "12s"]


def test_get_one_agent_by_its_bare_name(tenure: Tenure) -> None:
    """A bare name is enough where it is the only one; -o json prints the row."""
    shown = json.loads(tenure("get", "ag", "counter-1", "-o", "json").stdout)
    assert shown["spec"]["id"] == "shop/counter-1"
    assert shown["restarts"] == 0
    assert shown["spec"]["state"] == {}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("get", "agnets"), "There is no kind 'agnets'. Did you mean 'agents'?"),
        (("get", "agents", "shop/counter-2"), "There is no agent 'shop/counter-2'. Did you mean 'shop/counter-1'?"),
        (("describe", "agent", "counter-9"), "There is no agent called 'counter-9'."),
        (("get", "pools", "defualt"), "There is no pool 'defualt'. Did you mean 'default'?"),
        (
            ("call", "shop/counter-1", "incremnet"),
            "Counter has no action or query 'incremnet'. Did you mean 'increment'?",
        ),
        (("call", "shop/counter-1", "increment", "--bye", "2"), "increment has no parameter 'bye'. Did you mean --by?"),
        (("call", "shop/counter-1", "increment", "--args", "{"), "--args is not JSON"),
        (("call", "shop/counter-1", "increment", "2"), "'2' is no argument of a method."),
        (("create", "counter-7", "--class", "Counter"), "'counter-7' is no agent's full name."),
        (("create", "shop/counter-1", "--class", "Counter"), "There is an agent 'shop/counter-1' already."),
        (("--context", "dev/other", "get", "agents"), "No local cluster called 'other' runs."),
    ],
)
def test_a_mistake_is_answered_with_a_sentence_and_the_near_name(
    tenure: Tenure, words: tuple[str, ...], sentence: str
) -> None:
    """Exit status not 0, nothing on standard output, one sentence with a next step."""
    result = tenure(*words)
    assert result.exit_code in (1, 2)
    assert not result.stdout
    said = result.stderr.replace("Error: ", "").replace("Next:  ", "").replace("\n", " ")
    assert sentence in said


def test_agents_are_chosen_by_labels_and_capability(tenure: Tenure, cluster: FakeCluster) -> None:
    """REG-20, REG-09: of the spec, of the class as a host describes it, or general_purpose where both say nothing."""
    cluster.add_host("host-3", classes=[registry_pb2.ClassInfo(name="Reader", capabilities=["ocr"])])
    by_class = cluster.add_agent("shop/reader-1", class_="Reader")
    by_class.spec.labels["team"] = "books"
    by_spec = cluster.add_agent("shop/counter-2")
    by_spec.spec.capabilities.append("ocr")

    def names(*words: str) -> list[str]:
        return [row[0].strip() for row in table(tenure("get", "agents", *words))[1:]]

    assert names("--capability", "ocr") == ["shop/counter-2", "shop/reader-1"]
    assert names("--capability", "general_purpose") == ["shop/counter-1"]
    assert names("--capability", "ocr", "-l", "team=books") == ["shop/reader-1"]
    wrong = tenure("get", "agents", "-l", "team")
    assert (wrong.exit_code, "'team' is no label." in wrong.stderr) == (2, True)
    assert "are for agents" in tenure("get", "hosts", "--by", "node").stderr


def test_agents_are_counted_by_node(tenure: Tenure, cluster: FakeCluster) -> None:
    """REG-21: the table sums to the total."""
    cluster.add_agent("shop/counter-2", node="node-1", ready=False)
    cluster.add_agent("shop/counter-3", node="")
    lines = [[cell.strip() for cell in line] for line in table(tenure("get", "agents", "--by", "node"))]
    assert lines == [
        ["NODE", "AGENTS", "READY"],
        ["<none>", "1", "1"],
        ["node-1", "1", "0"],
        ["node-2", "1", "1"],
        ["total", "3", "2"],
    ]
    counted = json.loads(tenure("get", "agents", "--by", "class", "-o", "json").stdout)
    assert counted["items"][0] == {"class": "Counter", "agents": 3, "ready": 2}


def test_get_hosts_says_why_one_is_not_ready(tenure: Tenure, cluster: FakeCluster) -> None:
    """A broken worker is named with its reason in the STATUS column."""
    cluster.add_host("host-1", ready=False, worker_error="No module named 'agnets'", worker_reason="ImportFailed")
    rows = table(tenure("get", "hosts"))
    assert rows[1][2].strip() == "ImportFailed: No module named 'agnets'"
    assert rows[2][2].strip() == "Ready"


def test_get_servers_and_pools(tenure: Tenure) -> None:
    """Roles of the servers; hosts, agents and classes of the pools."""
    assert table(tenure("get", "servers"))[2][:2] == ["server-1", "leader"]
    assert [cell.strip() for cell in table(tenure("get", "po"))[1]] == ["default", "1/1", "1", "Counter", "agents"]


def test_watch_prints_only_what_changed(tenure: Tenure, cluster: FakeCluster) -> None:
    """The table, then a line for each row that is another one now."""

    def fail_over(rows: Rows) -> None:
        row = rows.agent("shop/counter-1")
        assert row is not None
        row.ready, row.summary, row.epoch = False, "Failing over from node-2", 2

    cluster.add_agent("shop/counter-2")
    cluster.changes = [fail_over, lambda rows: None]
    lines = tenure("get", "agents", "--watch").stdout.splitlines()
    assert len(lines) == 4
    assert lines[3].split()[:2] == ["shop/counter-1", "False"]


def test_call_reads_values_by_the_methods_schema(tenure: Tenure, cluster: FakeCluster) -> None:
    """Numbers become numbers, a parameter that asks for text gets text, --args and options are joined."""
    cluster.replies["increment"] = 7
    result = tenure("call", "shop/counter-1", "increment", "--note", "12", "--args", '{"by": 2}', "--timeout", "4")
    assert (result.exit_code, result.stdout) == (0, "7\n")
    assert cluster.calls == [("shop/counter-1", "increment", {"by": 2, "note": "12"}, 4.0)]


def test_call_without_a_method_lists_them_with_their_options(tenure: Tenure) -> None:
    result = tenure("call", "shop/counter-1")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "Methods:",
        "  increment [--by INTEGER] [--note STRING] (action): Add.",
        "  value (query): no description",
    ]


def test_call_takes_negative_numbers(tenure: Tenure, cluster: FakeCluster) -> None:
    """`--by -2` is a value, not an option."""
    cluster.replies["increment"] = 0
    assert tenure("call", "shop/counter-1", "increment", "--by", "-2").exit_code == 0
    assert cluster.calls[0][2] == {"by": -2}


@pytest.mark.parametrize(("outcome", "status"), [("not_applied", 1), ("unknown", 3)])
def test_a_failed_call_says_what_is_known_of_its_effect(
    tenure: Tenure, cluster: FakeCluster, outcome: str, status: int
) -> None:
    """Exit status 3 where a script must not simply repeat."""
    cluster.failure = None
    cluster.replies = {}

    async def fail(*_: object) -> None:
        raise ActionFailed("ValueError in increment: no", outcome=outcome, next_step="Look at its log.")

    cluster.call = fail
    result = tenure("call", "shop/counter-1", "increment")
    assert result.exit_code == status
    assert "ValueError in increment: no" in result.stderr
    assert ("Whether it took effect is unknown." in result.stderr) == (outcome == "unknown")
    assert "Look at its log." in result.stderr


def test_an_unreachable_cluster_is_one_sentence(tenure: Tenure, cluster: FakeCluster) -> None:
    """No traceback."""
    cluster.failure = Unavailable("No server of shop/counter answers (127.0.0.1:1).", next_step="Try `tenure doctor`.")
    result = tenure("get", "agents")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "Error: No server of shop/counter answers (127.0.0.1:1).",
        "Next:  Try `tenure doctor`.",
    ]


def test_describe_tells_the_whole_story(tenure: Tenure, cluster: FakeCluster) -> None:
    """Where, why, since when, who held it before, what it can do."""
    moved = registry_pb2.Failover(
        wall_time=NOW - 60, from_host="host-1", to_host="host-2", from_node="node-1", to_node="node-2",
        reason="LeaseExpired", duration_ms=2810,
    )  # fmt: skip
    cluster.add_agent(last_failover=moved, explanation="best of 3: load 1", assigned_reason="LeaseExpired")
    row = cluster.rows.agent("shop/counter-1")
    assert row is not None
    row.recovered_from = "host-9/node-9"
    row.spec.labels["team"] = "books"
    text = tenure("describe", "agent", "shop/counter-1").stdout
    assert "host-9/node-9" in text
    assert "team=books" in text
    assert "general_purpose" in text
    for part in ("Running on node-2", "60s ago, 2810 ms, LeaseExpired", "from host-1 (node-1) to host-2 (node-2)",
                 "best of 3: load 1", "increment [--by INTEGER] [--note STRING] (action): Add.",
                 "value (query)"):  # fmt: skip
        assert part in text


def test_delete_and_create(tenure: Tenure, cluster: FakeCluster) -> None:
    """Rows of a local cluster."""
    assert tenure("delete", "shop/counter-1").stdout == "agent/shop/counter-1 deleting\n"
    assert cluster.deleted == ["shop/counter-1"]
    result = tenure("create", "shop/counter-9", "--class", "Counter", "--state", '{"count": 4}', "--wait", "0")
    assert result.stdout == "agent/shop/counter-9 created\n"
    assert getattr(cluster.applied[0], "class") == "Counter"
    assert cluster.applied[0].cpu_milli == 100


def test_deleting_what_is_not_there_says_so(tenure: Tenure, cluster: FakeCluster) -> None:
    """It is no error: the command can be repeated."""
    cluster.results["shop/nobody"] = registry_pb2.RowResult(id="shop/nobody", outcome="gone")
    result = tenure("delete", "shop/nobody")
    assert (result.exit_code, result.stdout) == (0, "agent/shop/nobody was not there\n")


def test_a_refused_row_is_an_error_that_names_it(tenure: Tenure, cluster: FakeCluster) -> None:
    """The message and the next step come from the registry."""
    refusal = common_pb2.Error(code="Conflict", message="it belongs to Kubernetes", next_step="kubectl delete agent x")
    cluster.results["shop/counter-1"] = registry_pb2.RowResult(id="shop/counter-1", outcome="refused", error=refusal)
    result = tenure("delete", "shop/counter-1")
    assert result.exit_code == 1
    assert "agent/shop/counter-1: it belongs to Kubernetes" in result.stderr
    assert "kubectl delete agent x" in result.stderr


def test_logs_print_one_line_each(tenure: Tenure, cluster: FakeCluster) -> None:
    """When, level, host, epoch, text."""
    cluster.log = [
        calls_pb2.LogLine(wall_time=0.25, agent="shop/counter-1", host="host-1", epoch=2, level="INFO", text="hi"),
        calls_pb2.LogLine(agent="shop/other", text="not this"),
    ]
    assert tenure("logs", "shop/counter-1").stdout == "1970-01-01T00:00:00.250Z INFO    host-1 epoch 2: hi\n"
    assert json.loads(tenure("logs", "shop/counter-1", "-o", "json").stdout)["text"] == "hi"


def test_verbose_says_which_context_and_why(tenure: Tenure) -> None:
    """On standard error, so that the result can still be piped."""
    assert "context dev/dev: the local cluster 'dev' runs" in tenure("-v", "get", "agents").stderr


def test_a_missing_agent_is_known_before_it_is_called(tenure: Tenure, cluster: FakeCluster) -> None:
    """Nothing is sent."""
    result = tenure("call", "shop/nobody", "increment")
    assert "There is no agent 'shop/nobody'." in result.stderr
    assert result.exit_code == 1
    assert not cluster.calls


def test_an_error_of_the_sdk_is_no_traceback(tenure: Tenure, cluster: FakeCluster) -> None:
    """Every exception of the SDK's tree ends a command with its sentence."""
    cluster.failure = NotFound("shop/counter-1 is not in the registry.")
    result = tenure("logs", "shop/counter-1")
    assert result.stderr == "Error: shop/counter-1 is not in the registry.\n"
