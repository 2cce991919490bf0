"""Multi-objective decoding: policies aligned to one objective each, mixed by weight.

Source: arXiv 2406.18853. The weighted geometric mean of the policies, renormalised at each token:
what a weighted sum of their rewards asks for under a reverse KL. No reward model is asked.
"""

from collections.abc import AsyncGenerator

from pydantic import Field as Param

from decoders.core.base import Commit, DecodeRequest, Field, Null, Options, decoder
from decoders.core.policies import check_rule, ruled, speakers
from decoders.core.run import Run
from engines.base import Capability, Engine, Rule


class ModOptions(Options):
    """Who is mixed, and how much of each."""

    policies: list[str] | None = Param(
        None, min_length=1, max_length=16, description="members of the ensemble; null = its "
        "policies, as many as there are weights"
    )  # fmt: skip
    weights: list[float] | None = Param(
        None, min_length=1, max_length=16, description="one for each policy, at least 0 and 1 in "
        "all; null = the same for each"
    )  # fmt: skip


def mixture(options: ModOptions, engine: Engine) -> Rule:
    """The rule, every policy and weight told."""
    named = list(options.policies or speakers(engine, None))
    if options.policies is None and options.weights is not None:
        named = named[: len(options.weights)]
    weights = options.weights or [1 / len(named)] * len(named)
    return Rule("mod", {"policies": named, "weights": weights})


def check(options: ModOptions, request: DecodeRequest) -> None:
    """All policies exist, with a weight each."""
    check_rule(request, mixture(options, request.engine))


@decoder(
    "mod",
    ModOptions,
    source="arXiv 2406.18853",
    requires={Capability.GENERATE, Capability.RULES},
    honours={Field.LOGPROBS, Field.N, Field.LOGIT_BIAS, Field.MIN_TOKENS, Field.STRUCTURED},
    null=Null({"weights": [1.0]}),
    check=check,
)
async def mod(run: Run, options: ModOptions) -> AsyncGenerator[Commit, None]:
    """Each token is drawn from the weighted product of several policies."""
    async for commit in ruled(run, mixture(options, run.request.engine)):
        yield commit
