"""Which workers should live: the supervisor's decisions, without processes."""

from tenure.worker.fleet import FIRST_DELAY_NS, LONGEST_DELAY_NS, QUICK_NS, Fleet


def ready(wanted: int = 2) -> Fleet:
    fleet = Fleet()
    fleet.importable = True
    fleet.connect(wanted)
    return fleet


def test_workers_start_when_somebody_wants_them() -> None:
    """Connected and importable; not more than wanted, those that are starting included."""
    fleet = Fleet()
    assert fleet.missing(0) == 0
    fleet.connect(2)
    assert fleet.missing(0) == 0
    fleet.importable = True
    assert fleet.missing(0) == 2
    fleet.starting = 1
    assert fleet.missing(0) == 1
    fleet.started(11, 0)
    assert (fleet.starting, fleet.missing(0)) == (0, 1)


def test_all_end_when_the_lease_passes() -> None:
    """Protocol additions 4. An older lease that comes late shortens nothing."""
    fleet = ready()
    fleet.started(11, 0)
    fleet.renew(100)
    fleet.renew(50)
    assert fleet.surplus(99) == []
    assert fleet.wake_at(0) == 100
    assert fleet.surplus(100) == [11]
    assert fleet.missing(100) == 0
    fleet.ended(11, 100, by_us=True)
    fleet.renew(200)
    assert fleet.missing(101) == 2


def test_all_end_with_the_daemon() -> None:
    """The next daemon's lease is its own: the old one does not hold its workers back."""
    fleet = ready()
    fleet.started(11, 0)
    fleet.renew(100)
    fleet.disconnect()
    assert fleet.surplus(1) == [11]
    fleet.ended(11, 1, by_us=True)
    fleet.connect(1)
    assert fleet.missing(500) == 1


def test_the_youngest_is_surplus() -> None:
    """Fewer wanted: the last to start goes."""
    fleet = ready()
    fleet.started(11, 1)
    fleet.started(12, 2)
    fleet.wanted = 1
    assert fleet.surplus(3) == [12]


def test_who_is_being_killed_is_not_counted() -> None:
    """A trial is over, its worker killed and not reaped yet; fewer are wanted: that one is not one too many besides."""
    fleet = ready(3)
    for pid in (11, 12, 13):
        fleet.started(pid, pid)
    fleet.killed(12)
    fleet.wanted = 2
    assert fleet.surplus(20) == []
    assert fleet.missing(20) == 0
    fleet.ended(12, 21, by_us=True)
    assert fleet.surplus(22) == []
    fleet.wanted = 1
    assert fleet.surplus(23) == [13]


def test_who_is_on_trial_is_never_surplus() -> None:
    """The daemon names who stays: the worker of a suspect may be the youngest (protocol 3, poison)."""
    fleet = ready(3)
    for pid in (11, 12, 13):
        fleet.started(pid, pid)
    fleet.wanted, fleet.kept = 2, frozenset({13})
    assert fleet.surplus(20) == [12]
    fleet.killed(12)
    assert fleet.surplus(20) == []
    fleet.renew(30)
    assert fleet.surplus(31) == [11, 13]


def test_quick_deaths_wait_longer_each_time() -> None:
    """A worker that cannot live is not started in a busy loop; one that lived resets the wait."""
    fleet = ready(1)
    now = 0
    for delay in (FIRST_DELAY_NS, 2 * FIRST_DELAY_NS, 4 * FIRST_DELAY_NS):
        fleet.started(11, now)
        assert fleet.ended(11, now + 1, by_us=False)
        assert fleet.missing(now + 1) == 0
        assert fleet.wake_at(now + 1) == now + 1 + delay
        now += 1 + delay
        assert fleet.missing(now) == 1
    for _ in range(10):
        fleet.started(11, now)
        fleet.ended(11, now, by_us=False)
    assert fleet.wake_at(now) == now + LONGEST_DELAY_NS
    fleet.started(11, now)
    fleet.ended(11, now + QUICK_NS, by_us=False)
    assert fleet.missing(now + QUICK_NS) == 1


def test_strangers_are_not_ours() -> None:
    """A process that was no worker changes nothing."""
    assert not ready().ended(99, 0, by_us=False)
