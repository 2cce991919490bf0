"""Block diffusion: a masked diffusion model fills its answer along one fixed schedule.

Source: arXiv 2502.09992 (LLaDA). The canvas is cut into blocks that are filled from left to right;
within a block a rule says which positions are filled at each forward pass. A block as long as the
canvas is pure diffusion. What stands can no longer change and leaves at once. A position counts as
one generated token, however often it is masked again.
"""

from collections.abc import AsyncGenerator
from typing import Literal

from pydantic import Field as Param

from decoders.core.base import Commit, DecodeRequest, Estimate, Field, decoder
from decoders.core.canvases import (
    CanvasOptions,
    check_canvas,
    filled,
    label,
    length_of,
    recorded,
    schedule_of,
)
from decoders.core.run import Run
from engines.base import Capability, Schedule


class BlockDiffusionOptions(CanvasOptions):
    """One schedule."""

    block_length: int = Param(32, ge=1, le=65536, description="positions of a block")
    stream: Literal["prefix", "block"] = Param(
        "prefix",
        description="prefix: text leaves as soon as everything before it stands; block: in whole "
        "blocks",
    )


def plan(options: BlockDiffusionOptions, request: DecodeRequest) -> Schedule:
    """The one schedule that is asked for."""
    length = length_of(options, request, options.block_length)
    return schedule_of(
        options,
        length,
        options.block_length,
        whole_blocks=options.stream == "block",
        record=recorded(request),
    )


def check(options: BlockDiffusionOptions, request: DecodeRequest) -> None:
    """The schedule adds up and the context has room for the canvas."""
    check_canvas(request, plan(options, request), "block_length")


def estimate(options: BlockDiffusionOptions, request: DecodeRequest) -> Estimate:
    """One canvas."""
    return Estimate(1, min(plan(options, request).length, request.max_tokens), 1)


@decoder(
    "block_diffusion",
    BlockDiffusionOptions,
    source="arXiv 2502.09992",
    requires={Capability.DIFFUSION},
    honours={Field.N, Field.LOGIT_BIAS},
    estimate=estimate,
    check=check,
)
async def block_diffusion(run: Run, options: BlockDiffusionOptions) -> AsyncGenerator[Commit, None]:
    """One canvas is filled block by block along one schedule."""
    schedule = plan(options, run.request)
    shape = {"length": schedule.length, "block_length": schedule.block, **label(options)}
    run.note("canvas", summary=shape, **shape)
    async for delta in filled(run, options, schedule):
        yield Commit.of(delta)
