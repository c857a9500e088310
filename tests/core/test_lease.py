"""Leases, rule by rule (protocol 1). The simulated cluster shows what they give together."""

import pytest
from core_world import World

from tenured.core import lease as lease_module
from tenured.core import profile as p
from tenured.core.lease import OPEN_TICKS, Ack, HostLease, LeaderLeases, Load
from tenured.core.profile import FAST, NS, Profile

MS = 1_000_000
EXPIRY = FAST.expiry_ns


@pytest.fixture
def leases(world: World) -> LeaderLeases:
    """Of a leader whose first commit was at 0, with one registered host."""
    world.host("h0")
    made = LeaderLeases(FAST)
    made.elected()
    made.first_commit(0)
    return made


def silent(leases: LeaderLeases, world: World, now: int) -> list[str]:
    return [silence.incarnation for silence in leases.expirable(now, world.registry)]


def test_a_heartbeat_is_acknowledged_by_a_tick_proposed_after_it(world: World, leases: LeaderLeases) -> None:
    """Leader 2 and 3 [after, commit]."""
    early = leases.tick_proposed()
    leases.heartbeat(10, "h0.1", 5)
    late = leases.tick_proposed()
    assert leases.tick_committed(early, 7, world.registry) == ()
    assert leases.tick_committed(late, 8, world.registry) == (Ack("h0.1", 5, 8),)
    assert leases.tick_committed(late, 8, world.registry) == ()


def test_only_the_registered_and_living_are_acknowledged(world: World, leases: LeaderLeases) -> None:
    """Leader 3 [ack_state]: as of the tick's index."""
    leases.heartbeat(10, "h0.1", 5)
    leases.heartbeat(10, "unknown", 5)
    token = leases.tick_proposed()
    world.expire("h0.1")
    assert leases.tick_committed(token, 9, world.registry) == (Ack("h0.1", 5, 9, gone=True),)


def test_a_lost_tick_acknowledges_nobody(world: World, leases: LeaderLeases) -> None:
    """What it covered waits for the host's next heartbeat."""
    leases.heartbeat(10, "h0.1", 5)
    token = leases.tick_proposed()
    leases.tick_lost(token)
    assert leases.tick_committed(token, 9, world.registry) == ()
    for _ in range(OPEN_TICKS + 1):
        leases.heartbeat(10, "h0.1", 6)
        token = leases.tick_proposed()
    assert len(leases._open) == OPEN_TICKS


def test_a_deposed_leader_may_still_acknowledge(world: World, leases: LeaderLeases) -> None:
    """Leader 3: its tick was proposed after the arrival, hence before the next election."""
    leases.heartbeat(10, "h0.1", 5)
    token = leases.tick_proposed()
    leases.elected()
    assert leases.tick_committed(token, 9, world.registry) == (Ack("h0.1", 5, 9),)


def test_expiry_counts_from_the_arrival_acknowledged_or_not(world: World, leases: LeaderLeases) -> None:
    """Leader 1 and 4 [received, margin]."""
    leases.heartbeat(100, "h0.1", 5)
    assert silent(leases, world, 100 + EXPIRY - 1) == []
    assert silent(leases, world, 100 + EXPIRY) == ["h0.1"]
    world.expire("h0.1")
    assert silent(leases, world, 100 + EXPIRY) == []


def test_the_next_end_of_a_lease_is_known_before(world: World, leases: LeaderLeases) -> None:
    """So that the leader looks at that moment."""
    world.host("h1")
    leases.heartbeat(100, "h0.1", 5)
    leases.heartbeat(300, "h1.1", 5)
    assert leases.next_end_ns(300, world.registry) == 100 + EXPIRY
    assert leases.next_end_ns(100 + EXPIRY, world.registry) == 300 + EXPIRY
    assert leases.next_end_ns(300 + EXPIRY, world.registry) is None
    leases.elected()
    assert leases.next_end_ns(300, world.registry) is None


def test_a_new_leader_waits_from_its_own_first_commit(world: World, leases: LeaderLeases) -> None:
    """Leader 4 [wait_new]; before it, nothing is expired at all."""
    leases.heartbeat(100, "h0.1", 5)
    leases.elected()
    assert not leases.leading
    assert silent(leases, world, 100 * EXPIRY) == []
    leases.first_commit(1000)
    leases.first_commit(2000)
    assert leases.since_ns == 1000
    assert silent(leases, world, 1000 + EXPIRY - 1) == []
    assert silent(leases, world, 1000 + EXPIRY) == ["h0.1"]


def test_a_host_that_registers_late_is_silent_from_then_on(world: World, leases: LeaderLeases) -> None:
    """It had no lease before; else it would be expired before its first heartbeat arrives."""
    world.host("late")
    leases.registered(5 * EXPIRY, "late.1")
    leases.registered(9 * EXPIRY, "late.1")
    assert silent(leases, world, 6 * EXPIRY - 1) == ["h0.1"]
    assert silent(leases, world, 6 * EXPIRY) == ["h0.1", "late.1"]


def test_a_leader_that_stood_still_waits_anew(world: World, leases: LeaderLeases) -> None:
    """Leader 6: heartbeats lie unread in its sockets."""
    leases.stalled(500)
    assert silent(leases, world, 500 + EXPIRY - 1) == []
    before_commit = LeaderLeases(FAST)
    before_commit.stalled(5)
    assert not before_commit.leading


def test_hosts_not_heard_of_lately_are_suspected(world: World, leases: LeaderLeases) -> None:
    """They receive nothing new; only expiry moves what they hold."""
    assert leases.suspects(10, world.registry) == {"h0.1"}
    leases.heartbeat(10, "h0.1", 5, Load(agents=3))
    limit = leases.detector.limit_ns("h0.1")
    assert leases.suspects(9 + limit, world.registry) == frozenset()
    assert leases.suspects(10 + limit, world.registry) == {"h0.1"}
    assert leases.loads()["h0.1"].agents == 3


def test_memory_of_forgotten_hosts_is_freed(
    world: World,
    leases: LeaderLeases,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bounded by the rows of the registry."""
    monkeypatch.setattr(lease_module, "UNKNOWN_KEPT", 1)
    for name in ("h0.1", "unknown", "stranger"):
        leases.heartbeat(10, name, 5, Load())
    leases.tick_committed(leases.tick_proposed(), 3, world.registry)
    assert list(leases.loads()) == ["h0.1"]


def test_a_lease_runs_from_the_sending_of_the_heartbeat() -> None:
    """Host 1 [sent_at, incarnation]; a late ack does not shorten it."""
    lease = HostLease(FAST, "h0.1")
    assert not lease.held(0)
    assert lease.ack(Ack("h0.1", 100, 1))
    assert lease.until_ns == 100 + FAST.ttl_ns
    assert lease.held(lease.until_ns - 1)
    assert not lease.held(lease.until_ns)
    assert not lease.ack(Ack("h0.1", 50, 1))
    assert not lease.ack(Ack("h0.2", 10 * NS, 1))
    assert lease.until_ns == 100 + FAST.ttl_ns


def test_an_ended_incarnation_knows_it_for_ever() -> None:
    """Host 4."""
    lease = HostLease(FAST, "h0.1")
    lease.ack(Ack("h0.1", 100, 1))
    assert not lease.ack(Ack("h0.1", 200, 2, gone=True))
    assert lease.gone
    assert not lease.held(101)


@pytest.mark.parametrize("profile", p.PROFILES.values(), ids=p.PROFILES)
def test_margins_bear_their_drift_exactly(profile: Profile) -> None:
    """Protocol 1, the inequality: margin >= ttl * 2 rho / (1 - rho)."""
    rho = profile.drift
    assert profile.margin_ns == pytest.approx(profile.ttl_ns * 2 * rho / (1 - rho))
    assert rho == pytest.approx(1 / 11)


@pytest.mark.parametrize(
    "wrong",
    [{"ttl_ns": 600 * MS}, {"margin_ns": 0}, {"tick_ns": 0}, {"election_min_s": 0.5}, {"election_max_s": 0.9}],
)
def test_a_profile_that_cannot_work_is_refused(wrong: dict) -> None:
    """DESIGN.md 5: ttl > heartbeat + tick + worst election + 0.2 s."""
    fields = {name: getattr(FAST, name) for name in FAST.__dataclass_fields__}
    with pytest.raises(ValueError, match="profile Fast"):
        Profile(**fields | wrong)
