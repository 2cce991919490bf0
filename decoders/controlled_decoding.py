"""Blockwise controlled decoding: of several short continuations the best one is kept, and so on.

Source: arXiv 2310.17022. A monitor scores the unfinished answer with each block, as the paper's
prefix scorer does. Blocks as long as the answer make it best of n, blocks of one token ARGS over
samples.
"""

from collections.abc import AsyncGenerator

from pydantic import Field as Param

from decoders.core.base import Commit, DecodeRequest, Estimate, Null, Options, decoder
from decoders.core.choosing import foremost
from decoders.core.judges import Judge
from decoders.core.policies import blocks, check_agents, voiced
from decoders.core.run import Run
from decoders.core.utility import QEstimator, listed, reward

MONITOR = "decoding.params.monitor"


class ControlledDecodingOptions(Options):
    """How many continuations, how long, and who judges them."""

    samples: int = Param(8, ge=1, le=128, description="blocks sampled at a time (the paper's K)")
    block: int = Param(
        16, ge=1, le=4096, description="tokens of a block (the paper's M); blocks are sampled: at "
        "temperature 0 all are the same"
    )  # fmt: skip
    monitor: Judge = Param(
        None,
        description="a configured monitor's name, or an inline check (exact, regex, json_schema); "
        "null = the first that judges answers",
    )
    policy: str | None = Param(
        None, min_length=1, description="the member of an ensemble that speaks; null = the first"
    )


def check(options: ControlledDecodingOptions, request: DecodeRequest) -> None:
    """The monitor and the policy exist."""
    if options.samples > 1:
        reward(request, options.monitor, MONITOR)
    named = None if options.policy is None else [options.policy]
    check_agents(request, named, "none", "policy")


def estimate(options: ControlledDecodingOptions, request: DecodeRequest) -> Estimate:
    """Every block of every sample, each scored once."""
    n = options.samples
    steps = -(-request.max_tokens // options.block) if n > 1 else 1
    return Estimate(n, n * request.max_tokens, steps * n, steps * n if n > 1 else 0)


@decoder(
    "controlled_decoding",
    ControlledDecodingOptions,
    source="arXiv 2310.17022",
    estimate=estimate,
    null=Null({"samples": 1}),
    check=check,
)
async def controlled_decoding(
    run: Run, options: ControlledDecodingOptions
) -> AsyncGenerator[Commit, None]:
    """Several blocks are sampled, the one that the monitor likes best stands, and on it goes."""
    if options.samples == 1:
        async for delta in voiced(run, options.policy):
            yield Commit.of(delta)
        return
    monitor = reward(run.request, options.monitor, MONITOR)
    estimator = QEstimator(run, [monitor], "prefix_reward")
    done: list[int] = []
    while found := await blocks(run, done, [options.policy], options.samples, options.block):
        values = await estimator.worth(done, found) if len(found) > 1 else None
        scores = [one.means[0] for one in values or ()]
        best = foremost(scores) if scores else 0
        run.tally.held_back = max(run.tally.held_back, len(found[best].tokens))
        run.note(
            "block", tokens=found[best].tokens, summary=estimator.spent, block=best, scores=scores,
            **listed(run, found, values),
        )  # fmt: skip
        yield found[best].commit()
        done += found[best].tokens
        if found[best].finish is not None:
            return
