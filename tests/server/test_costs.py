"""What is expected of a request follows what the like of it cost."""

import math
import random
from statistics import fmean, median
from typing import Any

import pytest

from decoders.core.base import Budget, DecodeRequest, Estimate
from engines.base import Sampling
from server.costs import ENOUGH, KEPT, Costs, Expected, typical
from tests.fakes.requests import request, table

ENGINE = table()
BOUND = Estimate(rows=1, generated_tokens=400, engine_requests=1)


def asked(prompt: int = 50, **fields: Any) -> list[DecodeRequest]:
    return [request(ENGINE, prompt="x" * prompt, max_tokens=400, **fields)]


def test_unknown_is_the_most_it_may_cost() -> None:
    found = Costs().expect(asked(), BOUND)
    assert found == Expected(400, None, None, 0)


def test_the_like_of_it_is_expected_as_well_as_can_be() -> None:
    costs, draw = Costs(), random.Random(1)
    errors = []
    for _ in range(400):
        real = round(math.exp(draw.gauss(math.log(120), 0.3)))
        if (found := costs.expect(asked(), BOUND)).seen >= 20:
            errors.append(abs(found.generated_tokens - real) / real)
        costs.learn(asked(), BOUND, real, 2.0 * real)
    # Knowing the distribution itself would leave 0.2.
    assert median(errors) < 0.22
    assert costs.expect(asked(), BOUND).row_seconds == pytest.approx(
        2 * costs.expect(asked(), BOUND).generated_tokens
    )


@pytest.mark.parametrize("lengths", [(50,), (20, 80, 320)])
def test_a_tail_moves_the_mean_alone(lengths: tuple[int, ...]) -> None:
    costs, draw = Costs(), random.Random(2)
    errors, spent = [], []
    for _ in range(400):
        slipped, prompt = draw.random() < 0.35, asked(draw.choice(lengths))
        real = round(draw.uniform(80, 390) if slipped else draw.gauss(46, 1.5))
        spent.append(real)
        if (found := costs.expect(prompt, BOUND)).seen >= 20:
            errors.append(abs(found.generated_tokens - real) / real)
        costs.learn(prompt, BOUND, real, 2.0 * real)
    assert median(errors) < 0.1
    found = costs.expect(asked(), BOUND)
    assert found.row_seconds == pytest.approx(2 * found.generated_tokens)
    # Of the last 64, whose mean has a standard error of a tenth.
    assert found.mean_row_seconds == pytest.approx(2 * fmean(spent), rel=0.25)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 33])
def test_the_typical_is_relatively_nearest_to_half(n: int) -> None:
    draw = random.Random(n)
    values = sorted(math.exp(draw.gauss(4, 1)) for _ in range(n))

    def far(guess: float) -> float:
        """The least relative distance within which more than half of the values are."""
        return sorted(abs(guess - one) / one for one in values)[n // 2]

    best = min(far(values[0] + i * (values[-1] - values[0]) / 5000) for i in range(5001))
    assert far(typical(values)) <= best + 1e-3


def test_longer_prompts_are_told_from_shorter_ones() -> None:
    costs = Costs()
    for i in range(200):
        prompt = (20, 80, 320)[i % 3]
        costs.learn(asked(prompt), BOUND, prompt, 1.0)
    for prompt in (20, 80, 320):
        assert costs.expect(asked(prompt), BOUND).generated_tokens == pytest.approx(prompt, rel=0.1)


def test_settings_are_apart_and_new_ones_begin_with_their_kind() -> None:
    costs = Costs()
    hot = asked(sampling=Sampling(temperature=1.0))
    warm = asked(sampling=Sampling(temperature=0.7))
    for _ in range(30):
        costs.learn(hot, BOUND, 300, 1.0)
    assert costs.expect(warm, BOUND).generated_tokens == pytest.approx(300)
    for _ in range(ENOUGH):
        costs.learn(warm, BOUND, 100, 1.0)
    assert costs.expect(warm, BOUND).generated_tokens == pytest.approx(100)
    assert costs.expect(asked(sampling=Sampling(temperature=0.0)), BOUND).seen == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"sampling": Sampling(ignore_eos=True)},
        {"sampling": Sampling(min_tokens=300)},
        {"budget": Budget(max_generated_tokens=5)},
    ],
)
def test_what_ends_otherwise_is_another_kind(fields: dict[str, Any]) -> None:
    costs = Costs()
    for _ in range(64):
        costs.learn(asked(**fields), BOUND, 400, 1.0)
    assert costs.expect(asked(), BOUND).seen == 0
    assert costs.expect(asked(**fields), BOUND).seen == 64


def test_an_end_at_a_stop_is_not_taken_for_one_without() -> None:
    costs = Costs()
    for _ in range(ENOUGH):
        costs.learn(asked(), BOUND, 400, 1.0)
        costs.learn(asked(stop=(".",)), BOUND, 20, 1.0)
    assert costs.expect(asked(), BOUND).generated_tokens == pytest.approx(400)
    assert costs.expect(asked(stop=(".",)), BOUND).generated_tokens == pytest.approx(20)


def test_it_never_exceeds_the_bound() -> None:
    costs = Costs()
    for _ in range(10):
        costs.learn(asked(), BOUND, 390, 1.0)
    tight = Estimate(rows=1, generated_tokens=64, engine_requests=1)
    found = costs.expect(asked(), tight)
    assert found.generated_tokens == 64
    for seconds in (found.row_seconds, found.mean_row_seconds):
        assert seconds == pytest.approx(64 / 390)


def test_it_knows_what_the_load_does_to_the_pace() -> None:
    """Beside others a step takes four times as long; what was never seen is as all was."""
    costs, draw = Costs(), random.Random(3)
    for i in range(200):
        beside = (0, 24)[i % 2]
        seconds = 100 * (0.01 if beside == 0 else 0.04) * math.exp(draw.gauss(0, 0.05))
        costs.learn(asked(), BOUND, 100, seconds, beside)
    found = {beside: costs.expect(asked(), BOUND, beside).row_seconds for beside in (0, 20, 24, 3)}
    assert [found[beside] for beside in (0, 20, 24)] == pytest.approx([1, 4, 4], rel=0.1)
    assert found[3] is not None and 1 <= found[3] <= 4
    assert costs.expect(asked(), BOUND, 24).mean_row_seconds == pytest.approx(4, rel=0.1)


def test_one_that_runs_on_does_not_set_the_pace_of_the_rest() -> None:
    """A vote of eight that waits for one path holds rows that sample nothing."""
    costs = Costs()
    for i in range(60):
        costs.learn(asked(), BOUND, 100 if i % 4 else 200, 1.0 if i % 4 else 8.0)
    found = costs.expect(asked(), BOUND)
    assert found.row_seconds == pytest.approx(1.0, rel=0.1)
    assert found.mean_row_seconds == pytest.approx((3 * 1 + 8) / 4, rel=0.2)


def test_seconds_are_known_where_tokens_are_not() -> None:
    """Samples side by side cost what the longest of them takes, whatever the others sample."""
    costs, draw, errors = Costs(), random.Random(4), []
    for i in range(300):
        beside = (0, 24)[i % 2]
        steps = round(200 * math.exp(draw.gauss(0, 0.6)))
        held = (1.0, 4.0)[i % 2] * math.exp(draw.gauss(0, 0.1))
        if i > 60:
            guess = costs.expect(asked(), BOUND, beside).row_seconds
            assert guess is not None
            errors.append(abs(guess - held) / held)
        costs.learn(asked(), BOUND, steps, held, beside)
    # Steps times pace would err by half; knowing the distribution itself would leave 0.07.
    assert median(errors) < 0.1


def test_it_follows_a_change() -> None:
    costs = Costs()
    for steps, times in ((50, 300), (200, 120)):
        for _ in range(times):
            costs.learn(asked(), BOUND, steps, steps / 10)
    found = costs.expect(asked(), BOUND)
    assert found.generated_tokens == pytest.approx(200, rel=0.15)


def test_what_clients_vary_takes_no_memory_for_ever() -> None:
    costs = Costs()
    for i in range(KEPT + 50):
        costs.learn(asked(sampling=Sampling(temperature=0.1 + i / 1e4)), BOUND, 10, 1.0)
    assert len(costs._steps) == KEPT
