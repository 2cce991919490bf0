"""A constrained choice for one row is the batch's, and slow rows obey bans."""

import numpy as np
import pytest

from engines.base import Rule, Sampling
from engines.drawing import Draw, log_softmax
from engines.rules.core.cast import Cast, Reward
from engines.rules.core.dual import problem, solved
from engines.rules.core.single import ruled, settled
from tests.engines.rules.states import feasible


@pytest.mark.parametrize("constraints", [1, 2, 3])
def test_one_row_is_as_in_a_batch(constraints: int) -> None:
    base, primary, rewards, bounds = feasible(12, constraints)
    whole = solved(problem(base, primary, rewards, bounds, 1.0))
    for row in range(12):
        worth = [[float(primary[row, v]), *rewards[row, :, v].tolist()] for v in range(10)]
        found = settled(base[row].tolist(), worth, bounds[row].tolist(), 1.0, "exact", greedy=False)
        assert found.policy == pytest.approx(whole.policy[row].tolist(), abs=1e-9)
        assert found.state == "certified"


def test_without_constraints_it_is_the_tilted_base() -> None:
    base = np.log([0.5, 0.3, 0.2])
    found = settled(base.tolist(), [[0.0], [1.0], [2.0]], [], 0.5, "exact", greedy=False)
    weights = np.exp(base + np.array([0, 1, 2]) / 0.5)
    assert found.policy == pytest.approx((weights / weights.sum()).tolist())
    assert found.margin is None


def test_greedy_takes_the_best_that_satisfies_all() -> None:
    base = np.log([0.5, 0.3, 0.2]).tolist()
    worth = [[5.0, 0.0, 9.0], [1.0, 1.0, 1.0], [2.0, 1.0, 1.0]]
    best = settled(base, worth, [1.0, 1.0], 1.0, "exact", greedy=True)
    assert (best.place, best.state) == (2, "satisfied")
    least = settled(base, worth, [2.0, 2.0], 1.0, "exact", greedy=True)
    assert least.state == "violated"
    assert least.place in (1, 2)


def test_slow_rows_obey_bans_where_a_row_forbids_already() -> None:
    row = np.array([3.0, 2.0, -np.inf, 1.0], dtype=np.float32)
    sampling = Sampling(temperature=0, banned=(0,), rule=Rule("only", {"policy": "b"}))
    drawn, choice = ruled(Cast(("a", "b")), [row, row], Draw(sampling, (), ()), sampling)
    assert drawn.token == 1
    assert choice.policy == "b"


def test_a_bias_counts_once_and_a_ban_for_all() -> None:
    rows = [np.array([3.0, 2.0, 1.0, 2.5]), np.array([0.5, 1.0, 4.0, 0.0])]
    cast = Cast(("a", "b"), None, {"wish": Reward(member="b")})
    rule = Rule("genarm", {"base": "a", "rewards": ["wish"], "alphas": [2.0]})
    sampling = Sampling(temperature=1, banned=(2,), logit_bias={1: 1.5}, rule=rule, logprobs=4)
    drawn, _ = ruled(cast, rows, Draw(sampling, (), ()), sampling)
    mixed = rows[0] + 2 * rows[1] + np.array([0, 1.5, -np.inf, 0])
    wanted = dict(enumerate(log_softmax(mixed)))
    del wanted[2]
    assert dict(drawn.top) == pytest.approx(wanted, abs=1e-5)
