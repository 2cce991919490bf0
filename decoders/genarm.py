"""GenARM: autoregressive reward models guide a base policy token by token.

Source: arXiv 2410.08193. Each token is drawn from base · reward model ^ alpha; several rewards
have a power each. A reward model costs one more forward pass per token and no look-ahead.
"""

from collections.abc import AsyncGenerator
from typing import Annotated

from pydantic import Field as Param

from decoders.core.base import Commit, DecodeRequest, Field, Null, Options, RequestError, decoder
from decoders.core.policies import check_rule, ruled
from decoders.core.run import Run
from engines.base import Capability, Engine, Rule
from engines.ensemble import Ensemble

# Beyond it a sum of log-probabilities says no more in float32.
Alpha = Annotated[float, Param(ge=0, le=1000)]


class GenarmOptions(Options):
    """Whom the reward models guide, and how strongly each."""

    base: str | None = Param(
        None, min_length=1, description="the member that is guided; null = the first"
    )
    rewards: list[str] | None = Param(
        None, min_length=1, max_length=8, description="rewards of the ensemble; null = its own, as "
        "many as there are alphas"
    )  # fmt: skip
    alphas: list[Alpha] | None = Param(
        None, min_length=1, max_length=8, description="the power of each reward, 0 to 1000; null = "
        "1 each"
    )  # fmt: skip


def guided(options: GenarmOptions, engine: Engine) -> Rule:
    """The rule, base and every reward told."""
    assert isinstance(engine, Ensemble)
    named = list(options.rewards or engine.cast.rewards)
    if options.rewards is None and options.alphas is not None:
        named = named[: len(options.alphas)]
    alphas = options.alphas or [1.0] * len(named)
    parts = {"base": options.base or engine.members[0], "rewards": named, "alphas": alphas}
    return Rule("genarm", parts)


def check(options: GenarmOptions, request: DecodeRequest) -> None:
    """Base and rewards exist, with a power each."""
    engine = request.engine
    if options.rewards is None and isinstance(engine, Ensemble) and not engine.cast.rewards:
        where = "decoding.params.rewards"
        raise RequestError(f"{where}: required, since the ensemble has no reward", where)
    check_rule(request, guided(options, engine))


@decoder(
    "genarm",
    GenarmOptions,
    source="arXiv 2410.08193",
    requires={Capability.GENERATE, Capability.RULES},
    honours={Field.LOGPROBS, Field.N, Field.LOGIT_BIAS, Field.MIN_TOKENS, Field.STRUCTURED},
    null=Null({"alphas": [0.0]}),
    check=check,
)
async def genarm(run: Run, options: GenarmOptions) -> AsyncGenerator[Commit, None]:
    """Each token is drawn from a base policy times reward models that are policies themselves."""
    async for commit in ruled(run, guided(options, run.request.engine)):
        yield commit
