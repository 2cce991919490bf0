"""A rule or a constrained choice for one row, outside of any batch: plain numbers in and out.

For the slow ensemble, and for whoever estimates utilities outside of the worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engines.base import Choice, Sampling, TokenLogprob
from engines.drawing import Draw, Row, log_softmax
from engines.rules.core.base import Step, biases
from engines.rules.core.cast import Cast
from engines.rules.core.constrained import Solver, answered, argmax
from engines.rules.core.dual import Status, problem
from engines.rules.core.registry import checked, find


def ruled(
    cast: Cast, rows: Sequence[Row], draw: Draw, sampling: Sampling
) -> tuple[TokenLogprob, Choice]:
    """The next token and how it came about, from each policy's logits, [vocabulary] each."""
    assert sampling.rule is not None
    logits = torch.from_numpy(np.stack(rows).astype(np.float32))[:, None]
    logits[..., np.isneginf(draw.masked(rows[0]))] = float("-inf")
    bias = biases([sampling.logit_bias], logits[0])
    step = Step(cast, logits, sampling.temperature == 0, bias)
    asked = checked(sampling.rule.name, sampling.rule.parameters, cast)
    verdict = find(sampling.rule.name).choose(step, asked)
    speaker = None if verdict.speakers is None else cast.members[int(verdict.speakers[0])]
    choice = Choice(speaker, {name: values[0] for name, values in verdict.notes.items()})
    row = verdict.spoken(step)[0].numpy()
    if verdict.tokens is None:
        return draw.drawn(draw.filtered(row)), choice
    return draw.settled(log_softmax(row), int(verdict.tokens[0])), choice


@dataclass(frozen=True, slots=True)
class Settled:
    """A constrained choice. `policy` are probabilities of the candidates; `place` is set where
    one is taken outright. `margin` is the worst constraint's, in its standard deviations.
    """

    policy: list[float]
    place: int | None
    multipliers: list[float]
    state: str
    margin: float | None


def settled(
    base: Sequence[float], worth: Sequence[Sequence[float]], bounds: Sequence[float],
    alpha: float, solver: Solver, *, greedy: bool,
) -> Settled:  # fmt: skip
    """The policy near `base` (log-probabilities, [k]) that `worth` ([k][1 + constraints]) asks for.

    Greedy: the best candidate that satisfies every bound, else the least violating one.
    """
    table = np.array(worth, dtype=np.float64).T
    given = problem([base], table[:1], table[None, 1:], bounds, alpha)
    if greedy:
        place, _, worst = (float(one[0]) for one in argmax(given))
        taken = "satisfied" if worst >= 0 else "violated"
        return Settled([], int(place), [], taken, worst if bounds else None)
    found = answered(given, solver)
    state = Status(int(found.status[0])).name.lower()
    margin = float(found.margin[0]) if bounds else None
    policy: list[float] = found.policy[0].tolist()
    return Settled(policy, None, found.multipliers[0].tolist(), state, margin)
