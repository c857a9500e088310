"""Suspicion comes early, moves nobody, and is rare where the network is only bad."""

import pytest
from core_link_sim import Links

from tenured.core import profile as p
from tenured.core.detection import DEFAULT_THRESHOLD, PHI_MOST, WINDOW, Detector, Trust, phi_of, sigmas
from tenured.core.profile import BALANCED, FAST, NS, NS_PER_MS, Profile

HOUR = 3600 * NS
SLEEP = 60 * NS
EACH = pytest.mark.parametrize("profile", p.PROFILES.values(), ids=p.PROFILES)


def taught(profile: Profile, distances: list[int]) -> tuple[Detector, int]:
    """A detector that heard `h` at these distances, and the time of the last one."""
    detector = Detector(profile)
    detector.begin(0)
    now = 0
    detector.heard(now, "h")
    for distance in distances:
        now += distance
        detector.heard(now, "h")
    return detector, now


# --- the number -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("z", "phi"), [(0.0, 0.301), (1.2816, 1.0), (2.3263, 2.0), (5.612, 8.0)])
def test_phi_is_the_logarithm_of_the_chance_to_be_wrong(z: float, phi: float) -> None:
    """Quantiles of the normal distribution, from its tables."""
    assert phi_of(z) == pytest.approx(phi, abs=0.001)
    assert sigmas(phi) == pytest.approx(z, abs=0.004)


def test_phi_has_an_end() -> None:
    """Beyond it no float holds the probability."""
    assert phi_of(100.0) == PHI_MOST


@EACH
def test_the_limit_is_where_phi_reaches_the_threshold(profile: Profile) -> None:
    """What is compared on each plan is an integer; it says the same as the number."""
    detector, now = taught(profile, [profile.tick_ns] * WINDOW)
    limit = detector.limit_ns("h")
    assert detector.phi(now + limit - NS_PER_MS, "h") < detector.threshold
    assert detector.phi(now + limit + NS_PER_MS, "h") > detector.threshold
    assert detector.trust(now + limit - 1, "h") is Trust.TRUSTED
    assert detector.trust(now + limit, "h") is Trust.SUSPECT


@EACH
def test_on_a_quiet_network_suspicion_comes_long_before_the_lease_ends(profile: Profile) -> None:
    """Three to four ticks (Fast: 0.42 s of a lease of 1 s, because processes wait for processors)."""
    detector, _ = taught(profile, [profile.tick_ns] * WINDOW)
    assert 2 * profile.tick_ns < detector.limit_ns("h") < profile.ttl_ns // 2


def test_a_slow_network_is_learned_within_the_window_and_forgotten_too() -> None:
    """Bounded: the last distances only."""
    detector, now = taught(BALANCED, [BALANCED.tick_ns] * WINDOW)
    quick = detector.limit_ns("h")
    for number in range(WINDOW):
        now += BALANCED.tick_ns + (200 * NS_PER_MS if number % 2 else -200 * NS_PER_MS)
        detector.heard(now, "h")
    slow = detector.limit_ns("h")
    assert slow > 1.5 * quick
    for _ in range(WINDOW):
        now += BALANCED.tick_ns
        detector.heard(now, "h")
    assert detector.limit_ns("h") == quick


@EACH
def test_whatever_was_learned_a_lease_of_silence_is_the_most(profile: Profile) -> None:
    """A host that was silent for a lease serves nothing by its own clock."""
    detector, now = taught(profile, [profile.ttl_ns, 1] * WINDOW)
    assert detector.limit_ns("h") == profile.ttl_ns
    assert detector.trust(now + profile.ttl_ns, "h") is Trust.LAPSED


def test_a_profile_of_ones_own_has_a_threshold() -> None:
    """Profiles can be made in code."""
    fields = {name: getattr(FAST, name) for name in FAST.__dataclass_fields__}
    assert Detector(Profile(**fields | {"name": "Mine"})).threshold == DEFAULT_THRESHOLD


# --- when silence counts ----------------------------------------------------------------------------------------------


def test_a_new_leader_suspects_nobody_before_its_own_first_commit() -> None:
    """And then counts silence from there: its predecessor heard them."""
    detector = Detector(BALANCED)
    assert detector.trust(10 * HOUR, "h") is Trust.UNHEARD
    detector.begin(10 * HOUR)
    assert detector.trust(10 * HOUR + detector.first_limit_ns - 1, "h") is Trust.UNHEARD
    assert detector.trust(10 * HOUR + detector.first_limit_ns, "h") is Trust.SUSPECT
    detector.heard(10 * HOUR + detector.first_limit_ns, "h")
    assert detector.trust(10 * HOUR + detector.first_limit_ns, "h") is Trust.TRUSTED
    detector.reset()
    assert detector.trust(11 * HOUR, "h") is Trust.UNHEARD


def test_a_loop_that_stood_still_suspects_nobody_and_learns_nothing() -> None:
    """The silence was its own."""
    detector, now = taught(BALANCED, [BALANCED.tick_ns] * WINDOW)
    limit = detector.limit_ns("h")
    detector.begin(now + 30 * NS)
    assert detector.trust(now + 30 * NS, "h") is Trust.TRUSTED
    detector.heard(now + 30 * NS + 1, "h")
    assert detector.limit_ns("h") == limit


def test_a_host_that_has_just_registered_is_silent_from_then_on() -> None:
    """Not since the leader's first commit."""
    detector = Detector(BALANCED)
    detector.begin(0)
    detector.expect(HOUR, "h")
    detector.expect(2 * HOUR, "h")
    assert detector.trust(HOUR + detector.first_limit_ns - 1, "h") is Trust.UNHEARD
    assert detector.silence_ns(HOUR + 5, "h") == 5


def test_what_has_no_row_is_forgotten() -> None:
    """Bounded by the rows of the registry."""
    detector, now = taught(BALANCED, [BALANCED.tick_ns])
    detector.forget(())
    assert detector.trust(now, "h") is Trust.UNHEARD


# --- over a network, on virtual time ----------------------------------------------------------------------------------


@EACH
def test_loss_and_jitter_for_an_hour_expire_nobody_and_end_no_lease(profile: Profile) -> None:
    """The issue's figure: 5 % loss each way and 200 ms of jitter. Suspicions do happen, and cost nothing.

    Fast: a lease holds some five round trips then, so that a few an hour end for a moment: fenced, and not expired.
    """
    links = Links(profile, loss=0.05, jitter_ms=200).run(HOUR)
    assert links.expired == []
    lapses = sum(len(host.lapses) for host in links.hosts.values())
    assert lapses <= (10 if profile is FAST else 0)
    beats = 4 * HOUR // profile.tick_ns
    assert len(links.suspected) < beats / 1000


@EACH
def test_a_silent_host_is_suspected_then_fenced_by_itself_then_expired(profile: Profile) -> None:
    """Frozen or cut off, both ways: suspicion, end of its own lease, expiry, in this order."""
    began, forever = 60 * NS, 10 * HOUR
    both = [(began, forever, "h1.1", way) for way in ("up", "down")]
    for links in (
        Links(profile, frozen=[(began, forever, "h1.1")]),
        Links(profile, cuts=both),
    ):
        links.run(90 * NS)
        ((name, suspected),), ((gone, expired),) = links.suspected, links.expired
        assert (name, gone) == ("h1.1", "h1.1")
        assert suspected - began < profile.ttl_ns
        # Rule 4 from the last arrival; a tick of the heartbeat's age, a tick until the leader looks.
        assert profile.expiry_ns - profile.tick_ns <= expired - began <= profile.expiry_ns + 2 * profile.tick_ns
        host = links.hosts["h1.1"]
        assert not host.lease.held(host.offset + expired)
        assert all(other.held for other in links.hosts.values() if other is not host)


@EACH
def test_a_host_that_hears_nothing_fences_itself_and_is_not_expired(profile: Profile) -> None:
    """One-way: the leader goes on hearing it [received]. Its agents wait for the link; nobody serves them twice."""
    links = Links(profile, cuts=[(60 * NS, 90 * NS, "h1.1", "down")]).run(100 * NS)
    host = links.hosts["h1.1"]
    assert len(host.lapses) == 1
    assert host.lapses[0] - 60 * NS <= profile.ttl_ns + profile.tick_ns
    assert links.expired == []
    assert host.held, "the first answer after the cut lifts it"


@EACH
def test_a_host_that_is_not_heard_is_expired_although_it_hears(profile: Profile) -> None:
    """One-way, the other way: nothing that it hears renews its lease."""
    links = Links(profile, cuts=[(60 * NS, 10 * HOUR, "h1.1", "up")]).run(90 * NS)
    assert [name for name, _ in links.expired] == ["h1.1"]
    assert len(links.hosts["h1.1"].lapses) == 1


@EACH
def test_a_host_that_is_frozen_for_less_than_its_lease_loses_nothing(profile: Profile) -> None:
    """Suspected, perhaps; never expired."""
    still = profile.ttl_ns - 3 * profile.tick_ns
    links = Links(profile, frozen=[(60 * NS, 60 * NS + still, "h1.1")]).run(120 * NS)
    assert links.expired == []
    assert links.hosts["h1.1"].lapses == []


@EACH
def test_a_machine_that_slept_finds_its_lease_ended_and_comes_back_as_another(profile: Profile) -> None:
    """The boot clock runs on in suspend [boottime]: what wakes up serves nothing before it has heard."""
    links = Links(profile, frozen=[(60 * NS, 60 * NS + SLEEP, "h1.1")]).run(70 * NS + SLEEP)
    host = links.hosts["h1.1"]
    assert len(host.lapses) == 1
    assert host.lease.gone


@EACH
def test_a_leader_that_slept_or_stood_still_expires_nobody(profile: Profile) -> None:
    """Leader 6; hosts whose answers did not come are fenced meanwhile and come back under the same incarnation."""
    links = Links(profile, stalls=[(60 * NS, 60 * NS + SLEEP)]).run(70 * NS + SLEEP)
    assert links.expired == []
    assert all(host.held and not host.lease.gone for host in links.hosts.values())


@EACH
def test_leader_after_leader_expires_nobody(profile: Profile) -> None:
    """Each begins its wait anew, and the window too."""
    every = int(profile.election_max_s * NS) + profile.ttl_ns
    links = Links(profile, loss=0.05, jitter_ms=100, elections=range(every, 120 * NS, every)).run(120 * NS)
    assert links.expired == []


def test_suspicion_decides_no_expiry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector that suspects everybody, or nobody, expires the same hosts at the same times."""
    cuts = [(60 * NS, 10 * HOUR, "h1.1", "up")]
    honest = Links(BALANCED, cuts=cuts, loss=0.05, jitter_ms=200).run(90 * NS).expired
    for lie in (Trust.LAPSED, Trust.TRUSTED):
        monkeypatch.setattr(Detector, "trust", lambda *_, lie=lie: lie)
        assert Links(BALANCED, cuts=cuts, loss=0.05, jitter_ms=200).run(90 * NS).expired == honest
    assert len(honest) == 1
