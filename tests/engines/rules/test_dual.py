"""Every state is certified, proven infeasible or one of very few unsolved; slack costs nothing."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax

from engines.rules.core import dual
from engines.rules.core.box import Floats, least_in_box
from engines.rules.core.closed import Form, quadratic
from engines.rules.core.dual import TOLERANCE, Status, closest, nearest, problem, solved
from tests.engines.rules.states import feasible, stated

FORMS: tuple[Form, ...] = ("newton", "expansion")


def expected(policy: Floats, constrained: Floats) -> Floats:
    found: Floats = (policy[:, None] * constrained).sum(-1)
    return found


@pytest.mark.parametrize("spread", [0.3, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize("constraints", [1, 2, 3])
def test_feasible_states_are_certified(constraints: int, spread: float) -> None:
    base, primary, constrained, bounds = feasible(400, constraints, spread=spread)
    found = solved(problem(base, primary, constrained, bounds, 1.0))
    assert (found.status == Status.INFEASIBLE).sum() == 0
    assert (found.status == Status.UNSOLVED).sum() <= 0.001 * len(base)
    certified = found.status == Status.CERTIFIED
    std = constrained.std(-1)
    std = np.where(std > 1e-9, std, 1.0)
    short = (bounds - expected(found.policy, constrained)) / std
    assert short[certified].max() <= TOLERANCE * (1 + 1e-6)
    assert (found.multipliers >= 0).all()
    assert np.abs(found.policy.sum(-1) - 1).max() < 1e-9


@pytest.mark.timeout(60)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_reward_that_is_no_number_ends_in_no_endless_search(value: float) -> None:
    """Its row is certified of nothing, and the row beside it is solved."""
    base, primary, constrained, bounds = feasible(16, 1)
    primary[3, 2] = value
    with np.errstate(all="ignore"):
        found = solved(problem(base, primary, constrained, bounds, 1.0))
    assert found.status[3] != Status.CERTIFIED
    assert (np.delete(found.status, 3) == Status.CERTIFIED).all()


@pytest.mark.parametrize("constraints", [1, 2, 3])
def test_the_policy_is_the_best_one(constraints: int) -> None:
    """Its value is that of a general optimiser over the simplex, to within the tolerance."""
    state = feasible(24, constraints, candidates=5)
    found = solved(stated(state))
    for row in range(24):
        base, primary, constrained, bounds = (part[row] for part in state)

        def lost(x: np.ndarray, base: np.ndarray = base, primary: np.ndarray = primary) -> float:
            p = np.clip(x, 1e-12, None)
            return float(p @ (np.log(p) - base) - p @ primary)

        rules = [{"type": "eq", "fun": lambda x: x.sum() - 1}]
        rules += [
            {"type": "ineq", "fun": lambda x, q=q, b=b: x @ q - b}
            for q, b in zip(constrained, bounds, strict=True)
        ]
        start = found.policy[row]
        best = minimize(lost, start, bounds=[(0, 1)] * 5, constraints=rules, method="SLSQP")
        assert lost(start) <= best.fun + 0.01 * (1 + float(found.multipliers[row].sum()))


def test_slack_constraints_have_no_multiplier() -> None:
    base, primary, constrained, _ = feasible(200, 3)
    tilted = softmax(base + primary, axis=-1)
    bounds = expected(tilted, constrained) - 0.01
    found = solved(problem(base, primary, constrained, bounds, 1.0))
    assert (found.multipliers == 0).all()
    assert np.allclose(found.policy, tilted)


def test_one_multiplier_grows_with_its_bound() -> None:
    base, primary, constrained, bounds = feasible(50, 1)
    low = solved(problem(base, primary, constrained, bounds - 0.5, 1.0)).multipliers
    high = solved(problem(base, primary, constrained, bounds, 1.0)).multipliers
    assert (high >= low - 0.02 * (1 + low)).all()
    assert (high > low).any()


@pytest.mark.parametrize("constraints", [1, 2, 3])
def test_infeasible_states_are_marked_and_come_as_close_as_can_be(constraints: int) -> None:
    base, primary, constrained, _ = feasible(100, constraints)
    bounds = constrained.max(-1) + 0.1
    given = problem(base, primary, constrained, bounds, 1.0)
    found = solved(given)
    assert (found.status == Status.INFEASIBLE).all()
    assert (found.margin < 0).all()
    uniform = given.margin(np.full_like(base, 0.1))
    assert (found.margin >= uniform - 1e-9).all()
    assert (found.margin >= given.excess.min(1).max(-1) - 1e-9).all()


@pytest.mark.parametrize("constraints", [1, 2])
def test_two_candidates_come_as_close_as_a_linear_programme(constraints: int) -> None:
    base, primary, constrained, bounds = feasible(120, constraints)
    base = np.where(np.random.default_rng(1).random(base.shape) < 0.2, -np.inf, base)
    given = problem(base, primary, constrained, bounds + 0.5, 1.0)
    policy, best = nearest(given)
    for row in range(120):
        assert best[row] == pytest.approx(closest(given.excess[row], given.real[row])[1], abs=1e-8)
    assert np.allclose(given.margin(policy), best)
    assert np.allclose(policy.sum(-1), 1)
    assert (policy[~given.real] == 0).all()


def test_each_infeasible_state_is_told_from_a_feasible_one() -> None:
    """Bounds that each can be met and all together cannot, by a linear programme per state."""
    base, primary, constrained, bounds = feasible(300, 3)
    given = problem(base, primary, constrained, bounds + 0.8, 1.0)
    found = solved(given)
    best = np.array([closest(given.excess[i], given.real[i])[1] for i in range(300)])
    clear = np.abs(best) > 2 * TOLERANCE
    assert 30 < (best < 0).sum() < 270
    assert ((found.status == Status.INFEASIBLE) == (best < 0))[clear].all()


@pytest.mark.parametrize("constraints", [1, 2, 3])
def test_states_side_by_side_are_states_alone(constraints: int) -> None:
    """Also where hopeless, jointly infeasible, annealed and easy ones lie between each other."""
    base, primary, constrained, bounds = feasible(40, constraints, spread=3.0)
    bounds[::3] += 300.0
    bounds[1::4] += 2.4
    primary[2::5] *= 300.0
    state = base, primary, constrained, bounds
    together = solved(stated(state))
    assert set(together.status.tolist()) >= {Status.CERTIFIED, Status.INFEASIBLE}
    for row in range(40):
        alone = solved(stated(tuple(one[row : row + 1] for one in state)))  # type: ignore[arg-type]
        assert alone.status[0] == together.status[row]
        assert np.allclose(alone.policy[0], together.policy[row], atol=1e-7)
        assert np.allclose(alone.multipliers[0], together.multipliers[row], rtol=1e-5)


@pytest.mark.parametrize("constraints", [1, 2, 3])
@pytest.mark.parametrize("bound", [1e308, -1e308])
def test_bounds_beyond_everything_are_hopeless_or_slack(constraints: int, bound: float) -> None:
    base, primary, constrained, _ = feasible(6, constraints)
    found = solved(problem(base, primary, constrained, np.full(constraints, bound), 1.0))
    assert (found.status == (Status.INFEASIBLE if bound > 0 else Status.CERTIFIED)).all()
    assert np.isfinite(found.policy).all()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many steps were taken, in its one place."""
    count = [0]
    whole = dual.Descent.stepped

    def counted(self: dual.Descent, rounds: int) -> None:
        count[0] += 1
        whole(self, rounds)

    monkeypatch.setattr(dual.Descent, "stepped", counted)
    return count


@pytest.mark.parametrize("constraints", [2, 6])
def test_the_smallest_alpha_ends_soon(constraints: int, steps: list[int]) -> None:
    """No state takes more steps than one may, whatever stands beside it; few are given up."""
    state = feasible(24, constraints, spread=30.0)
    together = solved(stated(state, 1e-6))
    assert (together.status == Status.CERTIFIED).mean() >= 0.9
    assert np.allclose(together.policy.sum(-1), 1)
    for row in range(24):
        steps[0] = 0
        alone = solved(stated(tuple(one[row : row + 1] for one in state), 1e-6))  # type: ignore[arg-type]
        assert steps[0] <= dual.STEPS + dual.ANNEALING
        assert alone.status[0] == together.status[row]


@pytest.mark.parametrize(("constraints", "alpha"), [(3, 1e-3), (6, 1e-6)])
def test_bounds_at_the_best_that_can_be_met_end_too(
    constraints: int, alpha: float, steps: list[int]
) -> None:
    """Where even the last step is one too few, what is said keeps the bounds all the same."""
    state = feasible(8, constraints)
    best = nearest(stated(state))[1][:, None]
    edge = (*state[:3], state[3] + best * stated(state).std)
    taken = []
    for row in range(8):
        steps[0] = 0
        found = solved(stated(tuple(one[row : row + 1] for one in edge), alpha))  # type: ignore[arg-type]
        taken.append(steps[0])
        assert found.status[0] != Status.INFEASIBLE
        assert found.margin[0] >= -TOLERANCE
    assert max(taken) == dual.STEPS + dual.ANNEALING


@pytest.mark.parametrize(("gained", "status"), [(0.5, Status.CERTIFIED), (-0.5, Status.INFEASIBLE)])
def test_one_candidate_satisfies_all_or_nothing_does(gained: float, status: Status) -> None:
    found = solved(problem([[0.0]], [[1.0]], [[[gained]]], [0.0], 1.0))
    assert found.status[0] == status
    assert found.policy.tolist() == [[1.0]]


def test_places_without_a_candidate_get_nothing() -> None:
    base, primary, constrained, bounds = feasible(60, 2)
    wider = [
        np.concatenate([part, np.full_like(part[..., :3], pad)], -1)
        for part, pad in ((base, -np.inf), (primary, 50.0), (constrained, 50.0))
    ]
    narrow = solved(problem(base, primary, constrained, bounds, 1.0))
    wide = solved(problem(wider[0], wider[1], wider[2], bounds, 1.0))
    assert (wide.policy[:, 10:] == 0).all()
    assert np.allclose(wide.policy[:, :10], narrow.policy, atol=1e-9)


def test_closed_forms_are_right_where_the_dual_is_quadratic() -> None:
    """With rewards small against alpha the dual is a parabola: both find what the solver finds."""
    state = feasible(100, 1, spread=0.01)
    exact = solved(stated(state, 1.0))
    for form in FORMS:
        near = quadratic(stated(state, 1.0), form)
        assert np.median(np.abs(near.policy - exact.policy)) < 0.01


def test_closed_forms_break_constraints_and_say_so() -> None:
    given = stated(feasible(400, 3))
    for form in FORMS:
        found = quadratic(given, form)
        broken = found.margin < -TOLERANCE
        assert ((found.status == Status.UNSOLVED) == broken).all()
        assert 0.1 < broken.mean() < 0.9


def test_the_box_holds_and_nothing_in_it_is_better() -> None:
    random = np.random.default_rng(3)
    root = random.normal(size=(200, 3, 3))
    curve = root @ root.swapaxes(-1, -2) + 1e-6 * np.eye(3)
    slope = random.normal(size=(200, 3))
    low, high = -random.random((200, 3)), random.random((200, 3))
    step = least_in_box(slope, curve, low, high, rounds=20)
    assert ((step >= low) & (step <= high)).all()
    pull = slope + (curve @ step[..., None])[..., 0]
    inside = (step > low + 1e-9) & (step < high - 1e-9)
    assert np.abs(pull[inside]).max() < 1e-5
    assert (pull[step <= low] >= -1e-6).all()
    assert (pull[step >= high] <= 1e-6).all()
