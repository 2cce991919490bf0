"""Random states of a constrained choice: known to be feasible, or not, at several spreads."""

import torch
from torch import Tensor

from engines.rules.core.box import Floats
from engines.rules.core.dual import Problem, problem

SEED = 20_260
State = tuple[Floats, Floats, Floats, Floats]


def feasible(
    count: int, constraints: int, *, spread: float = 1.0, seed: int = SEED, candidates: int = 10
) -> State:
    """(base, primary, constrained, bounds): bounds lie at or below what some policy reaches.

    Rewards are normal with deviation `spread` and in conflict with the primary one; one state in
    eight has ties, one in eight collinear rewards, one in eight bounds that are reached exactly.
    """
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    base = (2 * normal(count, candidates)).log_softmax(-1)
    primary = spread * normal(count, candidates)
    conflict = torch.rand(count, 1, 1, generator=random, dtype=torch.float64)
    rewards = spread * normal(count, constraints, candidates) - conflict * primary[:, None]
    kind = torch.arange(count) % 8
    rewards[kind == 1] = (rewards[kind == 1] / spread).round() * spread
    rewards[kind == 2] = rewards[kind == 2][:, :1].repeat(1, constraints, 1)
    reached = (rewards * (3 * normal(count, candidates)).softmax(-1)[:, None]).sum(-1)
    below = torch.rand(count, constraints, generator=random, dtype=torch.float64) * 0.2 * spread
    below[kind == 3] = 0
    return base.numpy(), primary.numpy(), rewards.numpy(), (reached - below).numpy()


def stated(state: State, alpha: float = 1.0) -> Problem:
    """The states as the solver takes them."""
    return problem(*state, alpha)
