"""Every mistake gets one clear sentence where its user looks, and disturbs nobody else."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tenure import errors
from tenure_api import identity
from tests.cluster.cluster_local import Local
from tools.k8s.standstill import Standstills

pytestmark = pytest.mark.cluster


@pytest.fixture
async def bystander(local: Local) -> AsyncIterator[str]:
    """An agent that has nothing to do with the mistake: it answers afterwards as before, under the same epoch."""
    name = await local.running_agent()
    before = await local.until(name, lambda row: row.ready, "Ready")
    yield name
    assert await local.call(name, "increment") == 1
    after = await local.until(name, lambda row: row.ready, "Ready")
    assert after.epoch == before.epoch


def manifest(name: str, spec: str = "{class: Counter}") -> str:
    """An Agent as a user writes it."""
    head = "apiVersion: tenure.dev/v1alpha1\nkind: Agent"
    return f"{head}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"


async def test_an_unknown_class_names_the_near_one(local: Local, bystander: str) -> None:
    """In the status, and on the command line with the name that was meant."""
    name = local.name()
    shown = await local.tenure(
        "apply", "-f", "-", "--wait", "30", stdin=manifest(name.partition("/")[2], "{class: Countr}")
    )
    assert shown.status == 1
    assert f"{name} is not Ready: " in shown.err
    assert "Did you mean 'Counter'?" in shown.err
    row = await local.until(name, lambda row: row.reason == "ClassNotFound", "ClassNotFound")
    assert "Countr" in row.summary


async def test_a_module_that_does_not_load_is_the_status_of_its_pools_agents(local: Local, bystander: str) -> None:
    """The import error itself is shown: on the agent, on the host, by the doctor."""
    name = await local.create(pool="broken")
    row = await local.until(name, lambda row: row.reason == "ImportFailed", "ImportFailed")
    assert "cluster_no_such_library" in row.summary
    hosts = await local.tenure("get", "hosts")
    assert "ImportFailed" in hosts.out
    assert "cluster_no_such_library" in hosts.out
    doctor = await local.tenure("doctor")
    assert doctor.status == 1
    assert "✗ workers: on host-broken-1: ImportFailed" in doctor.out


async def test_a_state_that_does_not_fit_says_which_field(local: Local, bystander: str) -> None:
    """The agent never runs; the field and the rule are in its status."""
    name = await local.create("Picky", state={"level": 12})
    row = await local.until(name, lambda row: row.reason == "StateInvalid", "StateInvalid")
    assert "level" in row.summary
    assert not row.ready


async def test_a_pool_that_does_not_exist(local: Local, bystander: str) -> None:
    """Refused, or waiting with the reason: in both cases the pool is named."""
    name = await local.create(pool="gpu")
    row = await local.until(name, lambda row: row.reason == "PoolNotFound", "PoolNotFound")
    assert "gpu" in row.summary


async def test_a_class_cannot_be_changed_under_a_running_agent(local: Local, bystander: str) -> None:
    """The row is refused with the reason and the way out; the agent runs on."""
    name = await local.running_agent()
    shown = await local.tenure("apply", "-f", "-", stdin=manifest(name.partition("/")[2], "{class: Picky}"))
    assert shown.status == 1
    assert "class" in shown.err
    assert await local.call(name, "increment") == 1


async def test_two_agents_of_one_name(local: Local, bystander: str) -> None:
    """Both places are named, and nothing is applied."""
    name = local.name().partition("/")[2]
    shown = await local.tenure("apply", "-f", "-", stdin=f"{manifest(name)}---\n{manifest(name)}")
    assert shown.status == 2
    assert f"two Agents are called '{name}': the first is at" in shown.err
    with pytest.raises(errors.NotFound):
        await local.call(f"shop/{name}", "value")


async def test_a_typo_in_a_manifest_names_file_line_and_field(local: Local, tmp_path: Path, bystander: str) -> None:
    """Before anything is sent."""
    file = tmp_path / "agents.yaml"
    file.write_text(manifest("typo", "\n  class: Counter\n  critcal: false"))
    shown = await local.tenure("apply", "-f", str(file))
    assert shown.status == 2
    assert f"{file}:6: Agent typo: unknown field 'spec.critcal'; did you mean 'critical'?" in shown.err


async def test_an_unreachable_server(local: Local, bystander: str) -> None:
    """Within seconds, with the address."""
    tls = local.running.plan.directory / "client"
    shown = await local.tenure("--context", "tenure://127.0.0.1:9/shop/tests", "get", "agents", TENURE_TLS=str(tls))
    assert shown.status == 1
    assert shown.err.startswith("Error: ")
    assert "127.0.0.1:9" in shown.err
    assert "Traceback" not in shown.err


async def test_a_certificate_of_another_cluster(local: Local, tmp_path: Path, bystander: str) -> None:
    """Refused in the handshake, and said so."""
    stranger = identity.make_authority("tests.shop")
    issued = identity.issue_with_key(stranger, identity.Role.CLIENT, "stranger")
    for name, data in (
        ("ca.crt", (local.running.plan.directory / "client" / "ca.crt").read_bytes()),
        ("tls.crt", issued.certificate_pem),
        ("tls.key", issued.key_pem),
    ):
        (tmp_path / name).write_bytes(data)
    port = local.running.plan.servers[0].api_port
    shown = await local.tenure(
        "--context", f"tenure://127.0.0.1:{port}/shop/tests", "get", "agents", TENURE_TLS=str(tmp_path)
    )
    assert shown.status == 1
    assert "Traceback" not in shown.err
    assert "certificate" in shown.err


async def test_an_agent_that_kills_its_worker_backs_off_and_says_why(whole: Local) -> None:
    """Tried once more alone, then "Backing off (attempt 1, next in 1 s)"; the others of that worker are back."""
    neighbours = [await whole.running_agent() for _ in range(6)]
    name = await whole.running_agent()
    with pytest.raises(errors.WorkerCrashed, match="crash"):
        await whole.call(name, "crash")
    row = await whole.until(name, lambda row: row.attempt > 0, "backing off")
    assert row.summary.startswith("Backing off (attempt 1, next ")
    assert "crash" in row.summary
    for neighbour in neighbours:
        assert await whole.call(neighbour, "increment") == 1
    await whole.until(name, lambda row: row.ready, "Ready again")
    assert await whole.call(name, "increment") == 1


async def test_an_activation_that_kills_its_worker_harms_the_neighbours_once(
    whole: Local, tmp_path: Path, standstills: Standstills
) -> None:
    """From then on it comes into workers of its own, after growing pauses, until it lives through that."""
    mine, none = tmp_path / "mine", str(tmp_path / "none")
    mine.touch()
    neighbour = await whole.on(1, class_="Mined", config={"mine": none})
    name = await whole.create(class_="Mined", config={"mine": str(mine)}, strategy="LocalPreferred", near="node-1")
    row = await whole.until(name, lambda row: row.attempt > 0, "backing off")
    assert "ended its worker process as it came into memory, also alone" in row.summary
    there = await whole.call(neighbour, "process")
    await whole.until(name, lambda row: row.attempt > 2, "backing off again")
    assert whole.spared(there, await whole.call(neighbour, "process"), standstills)
    mine.unlink()
    await whole.until(name, lambda row: row.ready, "Ready")
    now = await whole.call(neighbour, "process")
    assert whole.spared(there, now, standstills)
    assert await whole.call(name, "process") == now, "among the others again"
