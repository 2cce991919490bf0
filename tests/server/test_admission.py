"""The door: capacity in rows, first come first served, nobody starves, everything is given back."""

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

import pytest

from decoders.core.base import Estimate, LimitError, RequestError
from server.admission import Admission
from server.auth import Key
from server.settings import Limits, Rate


def cost(rows: int, tokens: int = 10) -> Estimate:
    return Estimate(rows=rows, generated_tokens=tokens, engine_requests=rows)


def key(**rate: int) -> Key:
    digest = sha256(b"k").digest()
    return Key(name="k", digest=digest, salt="s", rate=Rate(**rate))


class Crowd:
    """Requests of given widths that hold their place until they are told to leave."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.entered: list[str] = []
        self._leave: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(
        self, name: str, rows: int, deadline: float | None = None, row_seconds: float | None = None
    ) -> None:
        self._leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._be(name, rows, deadline, row_seconds))
        await settle()

    async def go(self, name: str) -> None:
        self._leave[name].set()
        await self.tasks[name]
        await settle()

    async def _be(
        self, name: str, rows: int, deadline: float | None, row_seconds: float | None
    ) -> None:
        async with self.admission.admit(cost(rows), deadline=deadline, row_seconds=row_seconds):
            self.entered.append(name)
            await self._leave[name].wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@contextmanager
def refused(status: int) -> Iterator[pytest.ExceptionInfo[LimitError]]:
    with pytest.raises(LimitError) as fault:
        yield fault
    assert fault.value.status == status
    assert fault.value.retry_after > 0


async def test_a_wide_request_at_the_head_is_not_overtaken() -> None:
    crowd = Crowd(Admission(Limits(rows=4, branches=4)))
    for name, rows in (("a", 3), ("wide", 4), ("b", 1), ("c", 1)):
        await crowd.come(name, rows)
    assert crowd.entered == ["a"]
    await crowd.go("a")
    assert crowd.entered == ["a", "wide"]
    await crowd.go("wide")
    assert crowd.entered == ["a", "wide", "b", "c"]
    for name in "bc":
        await crowd.go(name)
    assert (crowd.admission.rows, crowd.admission.running, crowd.admission.queued) == (0, 0, 0)


async def test_a_full_queue_refuses_with_a_time() -> None:
    admission = Admission(Limits(rows=1, branches=1, queue=1))
    crowd = Crowd(admission)
    await crowd.come("a", 1)
    await crowd.come("b", 1)
    with refused(503):
        async with admission.admit(cost(1)):
            pass
    await crowd.go("a")
    await crowd.go("b")


async def test_the_queue_is_bounded_by_the_work_in_it() -> None:
    """Four rows: 8 row-seconds take two seconds, and what comes then is told so."""
    admission = Admission(Limits(rows=4, branches=4, wait_ms=2500))
    crowd = Crowd(admission)
    await crowd.come("running", 4, row_seconds=100.0)
    await crowd.come("a", 1, row_seconds=8.0)
    assert admission.wait == 2.0
    await crowd.come("b", 1, row_seconds=4.0)
    with refused(503) as fault:
        async with admission.admit(cost(1)):
            pass
    assert fault.value.retry_after == 3.0
    await crowd.go("running")
    await crowd.come("c", 1)
    assert crowd.entered == ["running", "a", "b", "c"]
    for name in "abc":
        await crowd.go(name)


async def test_work_of_unknown_cost_bounds_nothing() -> None:
    admission = Admission(Limits(rows=1, branches=1, wait_ms=1))
    crowd = Crowd(admission)
    for name in "abc":
        await crowd.come(name, 1)
    assert (admission.queued, admission.wait) == (2, 0.0)
    for name in "abc":
        await crowd.go(name)


async def test_a_deadline_in_the_queue_is_503_and_lets_the_next_in() -> None:
    admission = Admission(Limits(rows=2, branches=2))
    crowd = Crowd(admission)
    await crowd.come("a", 1)
    loop = asyncio.get_running_loop()
    await crowd.come("late", 2, loop.time() + 0.02)
    await crowd.come("b", 1)
    assert crowd.entered == ["a"]
    with refused(503):
        await crowd.tasks["late"]
    await settle()
    assert crowd.entered == ["a", "b"], "what waited behind it need not wait longer"
    await crowd.go("a")
    await crowd.go("b")


async def test_the_wait_is_told_of_whoever_came_to_the_queue() -> None:
    now = 0.0
    admission = Admission(Limits(rows=1, branches=1, queue=1), clock=lambda: now)
    told: list[float] = []
    late = asyncio.get_running_loop().time() + 0.02

    async def come(deadline: float | None = None) -> None:
        async with admission.admit(cost(1), deadline=deadline, waited=told.append):
            pass

    await come()
    async with admission.admit(cost(1)):
        waiting = asyncio.create_task(come(late))
        await settle()
        with refused(503):
            await come()
        now = 2.0
        with refused(503):
            await waiting
    assert told == [0.0, 2.0], "let in at once, given up in the queue; not what was refused at once"


async def test_the_rows_of_others_leave_room_for_its_own() -> None:
    admission = Admission(Limits(rows=16, branches=16))
    crowd = Crowd(admission)
    assert admission.beside(4) == 0
    await crowd.come("a", 10)
    assert admission.beside(4) == 10
    await crowd.come("b", 6)
    assert admission.beside(4) == 12, "it is let in when four rows are free"
    for name in "ab":
        await crowd.go(name)


async def test_who_goes_away_while_waiting_leaves_no_trace() -> None:
    admission = Admission(Limits(rows=2, branches=2))
    crowd = Crowd(admission)
    await crowd.come("a", 2)
    await crowd.come("gone", 2)
    await crowd.come("b", 1)
    crowd.tasks["gone"].cancel()
    await asyncio.wait([crowd.tasks["gone"]])
    assert admission.queued == 1
    await crowd.go("a")
    await crowd.go("b")
    assert admission.rows == 0


async def test_a_turn_that_comes_as_the_waiter_is_cancelled_is_passed_on() -> None:
    admission = Admission(Limits(rows=1, branches=1))
    crowd = Crowd(admission)
    async with admission.admit(cost(1)):
        await crowd.come("gone", 1)
        await crowd.come("b", 1)
    crowd.tasks["gone"].cancel()  # its turn has come, but it has not run since
    await asyncio.wait([crowd.tasks["gone"]])
    await settle()
    assert crowd.entered == ["b"]
    await crowd.go("b")
    assert (admission.rows, admission.running) == (0, 0)


async def test_capacity_holds_under_a_random_crowd() -> None:
    rng = random.Random(7)
    admission = Admission(Limits(rows=8, branches=8, queue=1000))
    most = ended = 0

    async def one(rows: int) -> None:
        nonlocal most, ended
        async with admission.admit(cost(rows)):
            most = max(most, admission.rows)
            assert admission.rows <= 8
            await asyncio.sleep(rng.random() / 200)
        ended += 1

    tasks = [asyncio.create_task(one(rng.randint(1, 8))) for _ in range(300)]
    await asyncio.sleep(0.05)
    dropped = rng.sample(tasks, 60)
    for task in dropped:
        task.cancel()
    await asyncio.wait(tasks)
    assert ended == sum(not task.cancelled() for task in tasks)
    assert most == 8
    assert (admission.rows, admission.running, admission.queued) == (0, 0, 0)


async def test_too_wide_a_request_is_the_caller_s_fault() -> None:
    with pytest.raises(RequestError) as fault:
        async with Admission(Limits(rows=8, branches=4)).admit(cost(6)):
            pass
    assert fault.value.code == "too_many_branches"


async def test_draining_refuses_new_and_waiting_and_waits_for_running() -> None:
    admission = Admission(Limits(rows=1, branches=1))
    crowd = Crowd(admission)
    await crowd.come("a", 1)
    await crowd.come("waits", 1)
    draining = asyncio.create_task(admission.drain(5))
    await settle()
    with refused(503):
        await crowd.tasks["waits"]
    with refused(503):
        async with admission.admit(cost(1)):
            pass
    assert not draining.done()
    await crowd.go("a")
    assert await draining is True
    assert admission.rows == 0


async def test_a_drain_ends_at_its_time() -> None:
    admission = Admission(Limits(rows=1, branches=1))
    crowd = Crowd(admission)
    await crowd.come("a", 1)
    assert await admission.drain(0.01) is False
    await crowd.go("a")


async def test_a_key_s_requests_per_minute_refill() -> None:
    now = 0.0
    admission = Admission(Limits(), clock=lambda: now)
    two = key(requests_per_minute=2)
    for _ in range(2):
        async with admission.admit(cost(1), key=two):
            pass
    with refused(429) as fault:
        async with admission.admit(cost(1), key=two):
            pass
    assert fault.value.retry_after == pytest.approx(30)
    now += 30
    async with admission.admit(cost(1), key=two):
        pass
    async with admission.admit(cost(1)):
        pass


async def test_tokens_are_reserved_and_what_was_not_sampled_given_back() -> None:
    now = 0.0
    admission = Admission(Limits(), clock=lambda: now)
    some = key(tokens_per_minute=100)
    async with admission.admit(cost(1, 80), key=some) as ticket:
        with refused(429):
            async with admission.admit(cost(1, 80), key=some):
                pass
        ticket.settle(10)
        ticket.settle(10)
    async with admission.admit(cost(1, 90), key=some) as ticket:
        pass  # never settled: the estimate stands
    with refused(429) as fault:
        async with admission.admit(cost(1, 60), key=some):
            pass
    assert fault.value.retry_after == pytest.approx(36)


async def test_an_estimate_over_a_minute_s_worth_can_still_run_and_leaves_a_debt() -> None:
    now = 0.0
    admission = Admission(Limits(), clock=lambda: now)
    some = key(tokens_per_minute=60)
    async with admission.admit(cost(1, 1000), key=some) as ticket:
        ticket.settle(120)
    with refused(429) as fault:
        async with admission.admit(cost(1, 1), key=some):
            pass
    assert fault.value.retry_after == pytest.approx(61)


async def test_a_request_that_never_ran_costs_no_rate() -> None:
    admission = Admission(Limits(rows=1, branches=1, queue=0), clock=lambda: 0.0)
    one = key(requests_per_minute=1, tokens_per_minute=10)
    async with admission.admit(cost(1)):
        with refused(503):
            async with admission.admit(cost(1), key=one):
                pass
    async with admission.admit(cost(1), key=one):
        pass


async def test_an_exception_inside_gives_the_rows_back() -> None:
    admission = Admission(Limits())
    with pytest.raises(ZeroDivisionError):
        async with admission.admit(cost(3)):
            _ = 1 / 0
    assert (admission.rows, admission.running) == (0, 0)


async def test_the_open_door_costs_microseconds() -> None:
    admission = Admission(Limits())
    estimate, best = cost(1), 1.0
    for _ in range(5):
        started = time.thread_time()
        for _ in range(1000):
            async with admission.admit(estimate, deadline=None):
                pass
        best = min(best, time.thread_time() - started)
    assert best / 1000 < 100e-6
