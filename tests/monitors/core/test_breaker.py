"""The circuit: when it opens, what it refuses, and who closes it."""

import pytest

from monitors.core.breaker import Breaker, BreakerSpec, Circuit, OpenCircuitError


class Clock:
    """Seconds that pass when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(BreakerSpec(failures=3, rest_s=30), clock)


def state(breaker: Breaker) -> Circuit:
    return breaker.state


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.ended(breaker.admit(), False)


def test_failures_in_a_row_open_it(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.ended(breaker.admit(), True)
    fail(breaker, 2)
    assert state(breaker) is Circuit.CLOSED
    fail(breaker, 1)
    assert state(breaker) is Circuit.OPEN
    with pytest.raises(OpenCircuitError, match="after 3 failures in a row; next try in 30 s"):
        breaker.admit()


def test_what_says_nothing_changes_nothing(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.ended(breaker.admit(), None)
    assert state(breaker) is Circuit.CLOSED
    fail(breaker, 1)
    assert state(breaker) is Circuit.OPEN


def test_after_the_rest_one_call_tests_it(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 30
    assert state(breaker) is Circuit.HALF_OPEN
    probe = breaker.admit()
    with pytest.raises(OpenCircuitError, match="half open"):
        breaker.admit()
    breaker.ended(probe, True)
    assert state(breaker) is Circuit.CLOSED
    fail(breaker, 2)
    assert state(breaker) is Circuit.CLOSED, "the count begins anew"


def test_a_probe_that_fails_opens_it_again(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 31
    fail(breaker, 1)
    assert state(breaker) is Circuit.OPEN
    clock.now += 29
    with pytest.raises(OpenCircuitError, match="next try in 1 s"):
        breaker.admit()


def test_a_probe_given_up_lets_the_next_one_through(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 30
    breaker.ended(breaker.admit(), None)
    assert breaker.admit().probe


def test_calls_begun_before_it_opened_have_no_say(breaker: Breaker, clock: Clock) -> None:
    early = [breaker.admit() for _ in range(5)]
    for leave in early[:3]:
        breaker.ended(leave, False)
    clock.now += 20
    breaker.ended(early[3], True)
    assert state(breaker) is Circuit.OPEN
    breaker.ended(early[4], False)
    clock.now += 10
    assert state(breaker) is Circuit.HALF_OPEN, "nor do they lengthen the rest"
