"""ARGS: each token is the likeliest once a reward of the unfinished text is added to its logit.

Source: arXiv 2402.01694. The reward model reads the answer with each of the likeliest tokens at
its end; it was trained on whole answers, so what it says of beginnings is the method's weak side.
"""

from collections.abc import AsyncGenerator

import numpy as np
from pydantic import Field as Param

from decoders.core.base import Commit, DecodeRequest, Estimate, Null, Options, decoder
from decoders.core.choosing import Chooser
from decoders.core.judges import Judge
from decoders.core.policies import check_agents, proposals
from decoders.core.run import Run
from decoders.core.utility import QEstimator, listed, reward
from engines.base import Capability

MONITOR = "decoding.params.monitor"


class ArgsOptions(Options):
    """How many tokens are considered, and how much the reward counts."""

    candidates: int = Param(10, ge=1, le=64, description="likeliest tokens considered (paper: 10)")
    weight: float = Param(
        1.0, ge=-1e6, le=1e6, description="of the reward beside the logit; the paper: 1 to 1.5"
    )
    monitor: Judge = Param(
        None,
        description="a configured monitor's name, or an inline check (exact, regex, json_schema); "
        "null = the first that judges answers",
    )
    policy: str | None = Param(
        None, min_length=1, description="the member of an ensemble that speaks; null = the first"
    )


def check(options: ArgsOptions, request: DecodeRequest) -> None:
    """The monitor and the policy exist."""
    if options.candidates > 1 and options.weight:
        reward(request, options.monitor, MONITOR)
    named = None if options.policy is None else [options.policy]
    check_agents(request, named, "none", "policy")


def estimate(options: ArgsOptions, request: DecodeRequest) -> Estimate:
    """One step for each token, and a score of each candidate."""
    most = request.max_tokens
    judged = options.candidates > 1 and options.weight != 0
    return Estimate(1, most, most, most * options.candidates * judged)


@decoder(
    "args",
    ArgsOptions,
    source="arXiv 2402.01694",
    requires={Capability.GENERATE, Capability.LOGPROBS},
    estimate=estimate,
    null=Null({"weight": 0.0}, greedy=True),
    check=check,
)
async def args(run: Run, options: ArgsOptions) -> AsyncGenerator[Commit, None]:
    """Likely tokens are scored with the text before them; logit and reward decide together."""
    rewards = [reward(run.request, options.monitor, MONITOR)] if options.weight else []
    estimator = QEstimator(run, rewards, "prefix_reward")
    chooser, done = Chooser(run), list[int]()
    while found := await proposals(run, done, [options.policy], options.candidates):
        values = await estimator.worth(done, found) if rewards and len(found) > 1 else None
        gained = [one.means[0] for one in values] if values else [0.0] * len(found)
        logits = [one.logprob + options.weight * q for one, q in zip(found, gained, strict=True)]
        best, chosen = chooser.drawn(found, np.array(logits))
        run.note(
            "token", tokens=chosen.tokens, summary=estimator.spent, rank=best, rewards=gained,
            **listed(run, found, values),
        )  # fmt: skip
        yield chosen.commit()
        done += chosen.tokens
        if chosen.finish is not None:
            return
