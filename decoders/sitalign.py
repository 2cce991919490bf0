"""SITAlign: a policy near a base one that maximises a reward while others stay above thresholds.

Source: arXiv 2505.23729. For each token the candidates of the base policy are weighed by
exp((Q_1 + sum lambda_i Q_i) / alpha), with multipliers that keep every E[Q_i] at its threshold or
above: by a certified solver, or by the paper's closed form in two readings. Each state comes out
certified, infeasible (then the policy is the one whose worst constraint is best) or unsolved; a
closed form knows no infeasible ones. What is certified is the policy at temperature 1 and without
top_p, top_k or min_p, which are applied to it afterwards; where any of them is, it is told.
Drawing keeps expectations; at temperature 0 the best candidate that satisfies every threshold is
taken, else the least violating one. What is kept is kept per step and by estimate: how the
finished text scores is told at the end. Of advantages (`implicit`) that is their sum over the
text, and a threshold is satisfied where the mean over its tokens is.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from math import log
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field as Param

from decoders.core.base import (
    Commit,
    DecodeRequest,
    Estimate,
    MonitorCallsSpent,
    Null,
    Options,
    RequestError,
    TextEnded,
    decoder,
    one_row,
)
from decoders.core.choosing import Chooser
from decoders.core.judges import Judge
from decoders.core.policies import (
    FLAT,
    Candidate,
    base,
    candidates,
    check_agents,
    check_rule,
    check_tokens,
    ruled,
)
from decoders.core.run import Run
from decoders.core.utility import QEstimator, Worth, check_calibrated, listed, reward
from engines.base import Choice, Rule, Sampling
from monitors.core.base import Monitor

PARAMS = "decoding.params"
Threshold = Annotated[float, Param(allow_inf_nan=False)]


class SitalignOptions(Options):
    """What is maximised, what is held up, how that is estimated, how far the base may be left."""

    utility: Literal["rollout", "prefix_reward", "implicit"] = Param(
        "rollout", description="the paper: rollout; implicit asks no monitor and no rollout"
    )
    primary: Judge = Param(
        None, description="the reward that is maximised: a monitor's name or an inline check, null "
        "= the first that judges answers; with implicit a reward of the ensemble"
    )  # fmt: skip
    constrained: list[Judge] = Param(
        [], max_length=6, description="rewards that are held up, as primary"
    )
    thresholds: list[Threshold] = Param(
        [], max_length=6, description="the least expectation of each constrained reward; with "
        "implicit of its advantage at the next token"
    )  # fmt: skip
    units: Literal["raw", "calibrated"] = Param(
        "raw", description="of rewards and thresholds: the monitors' own, or standard deviations "
        "from the mean of their calibration"
    )  # fmt: skip
    base: str | None = Param(
        None, min_length=1, description="the policy that is tilted; null = an ensemble's reference"
    )
    candidates: int = Param(10, ge=1, le=64, description="tokens considered (the paper's k)")
    alpha: float = Param(1.0, ge=1e-6, le=1e6, description="weight of the divergence from the base")
    lambda_solver: Literal["exact", "newton", "expansion"] = Param(
        "exact", description="certified multipliers, or a closed form of the paper's"
    )
    lookahead: int = Param(20, ge=1, le=4096, description="tokens of a rollout")
    samples: int = Param(1, ge=1, le=16, description="rollouts of each candidate")
    caution: float = Param(
        0.0, ge=0, le=10, description="standard errors taken off each constrained estimate, since "
        "a choice favours its own noise; needs two samples"
    )  # fmt: skip
    block: int = Param(
        1, ge=1, le=1024, description="tokens of a candidate; the paper: 1. Longer ones are "
        "sampled, so they go with no temperature 0 where anything is constrained"
    )  # fmt: skip


def implicit(options: SitalignOptions) -> Rule:
    """The rule that the engine follows."""
    names = ("primary", "constrained", "base", "candidates", "alpha")
    parts = {name: getattr(options, name) for name in names}
    parts |= {"deltas": options.thresholds, "solver": options.lambda_solver}
    return Rule("sitalign", parts)


def rewards(options: SitalignOptions, request: DecodeRequest) -> list[Monitor]:
    """The primary reward's monitor, then the constrained ones'. Raises `RequestError`."""
    first = reward(request, options.primary, f"{PARAMS}.primary")
    held = enumerate(options.constrained)
    return [first, *(reward(request, one, f"{PARAMS}.constrained.{i}") for i, one in held)]


def check(options: SitalignOptions, request: DecodeRequest) -> None:
    """All names exist, thresholds have a unit, and all goes together."""
    wrong = None
    if len(options.thresholds) != len(options.constrained):
        wrong = "thresholds", "one for each constrained reward"
    elif options.caution and (options.samples < 2 or options.utility != "rollout"):
        wrong = "caution", "needs rollouts and two samples of each"
    elif options.utility == "implicit" and options.block > 1:
        wrong = "block", "implicit chooses token by token"
    elif options.block > 1 and options.constrained and request.sampling.temperature == 0:
        wrong = "block", "at temperature 0 there is one block, and nothing to hold a threshold with"
    elif options.utility == "implicit" and not isinstance(options.primary, str):
        wrong = "primary", "implicit needs a reward of the ensemble by name"
    elif options.utility == "implicit" and options.units == "calibrated":
        wrong = "units", "implicit advantages have no calibration"
    if wrong is not None:
        raise RequestError(f"{PARAMS}.{wrong[0]}: {wrong[1]}", f"{PARAMS}.{wrong[0]}")
    if options.utility == "implicit":
        check_rule(request, implicit(options), {"deltas": "thresholds", "solver": "lambda_solver"})
        return
    check_agents(request, None if options.base is None else [options.base], "none", "base")
    if options.block == 1:
        check_tokens(request)
    for monitor in rewards(options, request) if options.units == "calibrated" else []:
        check_calibrated(monitor, f"{PARAMS}.units")
    rewards(options, request)


def estimate(options: SitalignOptions, request: DecodeRequest) -> Estimate:
    """For each token or block one step, all candidates and their rollouts, each scored by all."""
    if options.utility == "implicit":
        return one_row(options, request)
    rows, kinds = options.candidates * options.samples, 1 + len(options.constrained)
    steps = -(-request.max_tokens // options.block)
    ahead = options.lookahead if options.utility == "rollout" else 0
    sampled = options.candidates * options.block if options.block > 1 else 1
    tokens = steps * (sampled + rows * ahead)
    calls = steps * rows * kinds + kinds
    abreast = rows if ahead or options.block > 1 else 1
    return Estimate(abreast, tokens, steps * (1 + 2 * rows), calls)


@decoder(
    "sitalign",
    SitalignOptions,
    source="arXiv 2505.23729",
    estimate=estimate,
    null=Null({"candidates": 1}, greedy=True),
    check=check,
)
async def sitalign(run: Run, options: SitalignOptions) -> AsyncGenerator[Commit, None]:
    """A base policy is tilted to a primary reward while others are held above their thresholds."""
    if reshaped := reshaping(run.sampling):
        run.note("reshaped", summary={"reshaped_by": reshaped})
    if options.utility == "implicit":
        gained = Gained(options.thresholds)
        async with aclosing(ruled(run, implicit(options), gained.add)) as commits:
            async for commit in commits:
                try:
                    yield commit
                except TextEnded as end:
                    gained.lose(len(commit.tokens) - end.taken)
                    break
        gained.tell(run)
        return
    estimator = QEstimator(
        run, rewards(options, run.request), options.utility, lookahead=options.lookahead,
        samples=options.samples, calibrated=options.units == "calibrated",
    )  # fmt: skip
    speaker, chooser = base(run.request.engine, options.base), Chooser(run)
    done, states = list[int](), Counter[str]()
    while found := await candidates(run, done, [speaker], options.candidates, options.block):
        values = await estimator.worth(done, found) if len(found) > 1 else None
        best, told = found[0], dict[str, Any](state="unjudged")
        if values is not None:
            # In a thread, since a small alpha can take it tenths of a second.
            best, told = await asyncio.to_thread(chosen, options, chooser, found, values)
        states[str(told["state"])] += 1
        run.tally.held_back = max(run.tally.held_back, len(best.tokens))
        summary = {"states": dict(states), **estimator.spent}
        told |= listed(run, found, values)
        run.note("token", tokens=best.tokens, summary=summary, **told)
        try:
            yield best.commit()
        except TextEnded as end:
            done += best.tokens[: end.taken]
            break
        done += best.tokens
        if best.finish is not None:
            break
    await finished(run, options, estimator, done)


def chosen(
    options: SitalignOptions, chooser: Chooser, found: Sequence[Candidate], values: Sequence[Worth]
) -> tuple[Candidate, dict[str, Any]]:
    """The candidate that is drawn or taken, and what is told of the state."""
    from engines.rules.core.single import settled

    # Sampled blocks carry the base's probability already: each counts the same.
    even = -log(len(found))
    near = [one.logprob if options.block == 1 else even for one in found]
    worth = [careful(q, options.caution) for q in values]
    state = settled(
        near, worth, options.thresholds, options.alpha, options.lambda_solver,
        greedy=chooser.greedy,
    )  # fmt: skip
    told: dict[str, Any] = {"state": state.state, "margin": state.margin}
    if state.place is not None:
        return found[state.place], {**told, "utility": worth[state.place]}
    with np.errstate(divide="ignore"):
        place, best = chooser.drawn(found, np.log(np.array(state.policy)))
    return best, {**told, "utility": worth[place], "multipliers": state.multipliers}


def reshaping(sampling: Sampling) -> dict[str, float]:
    """What the certified policy is drawn at that changes it. A greedy choice is no draw."""
    if sampling.temperature == 0:
        return {}
    asked, raw = ({name: getattr(one, name) for name in FLAT} for one in (sampling, Sampling()))
    return {name: value for name, value in asked.items() if value != raw[name]}


class Gained:
    """What the tokens of a text gained by each advantage, the primary one's first."""

    def __init__(self, thresholds: Sequence[float]) -> None:
        self._thresholds = thresholds
        self._gained = list[Sequence[float] | None]()

    def add(self, token: int, choice: Choice) -> None:
        """Counts a token that the rule chose; a degraded one was not weighed."""
        known = choice.notes.get("candidates", ())
        weighed = token in known
        self._gained.append(choice.notes["advantages"][known.index(token)] if weighed else None)

    def lose(self, count: int) -> None:
        """Forgets the last tokens: they stand behind the end of the text."""
        del self._gained[len(self._gained) - count :]

    def tell(self, run: Run) -> None:
        """Notes the sums, and which threshold the mean over all tokens satisfies."""
        known = [one for one in self._gained if one is not None]
        if self._thresholds and known:
            totals = [sum(each) for each in zip(*known, strict=True)]
            pairs = zip(totals[1:], self._thresholds, strict=True)
            satisfied = [total / len(known) >= least for total, least in pairs]
            run.note("finished", summary={"rewards": totals, "satisfied": satisfied})


def careful(worth: Worth, caution: float) -> list[float]:
    """The estimates, those of constrained rewards less some of their standard errors."""
    less = (caution * error for error in worth.errors[1:])
    held = (mean - part for mean, part in zip(worth.means[1:], less, strict=True))
    return [worth.means[0], *held]


async def finished(
    run: Run, options: SitalignOptions, estimator: QEstimator, done: Sequence[int]
) -> None:
    """Tells how the finished text scores, and whether it satisfies each threshold."""
    if not options.constrained or not done:
        return
    try:
        scores = await estimator.score(done)
    except MonitorCallsSpent:
        return
    if scores is not None:
        pairs = zip(scores[1:], options.thresholds, strict=True)
        summary = {"rewards": list(scores), "satisfied": [value >= least for value, least in pairs]}
        run.note("finished", summary=summary)
