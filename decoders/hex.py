"""HEX: the same question on many canvases, filled in blocks of several sizes, and a majority vote.

Source: arXiv 2510.05040. Beyond the paper: answers are put into canonical form before the vote, and
paths run in waves (one seed of every block) with the vote tested between them, since all paths of a
wave end together; where nothing may end early they are one wave. Ties go to the answer of the
smallest block; stopping early changes neither the answer nor its text. The paper takes 256
positions, blocks 8 to 128, 5 seeds, temperature 0.9. A single block with many seeds is its control;
at temperature 0 all seeds are one.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field as Param

from decoders.core.answers import canonical
from decoders.core.answers.reading import AnswerKind
from decoders.core.base import (
    Commit,
    DecodeRequest,
    Estimate,
    Field,
    Null,
    RequestError,
    decoder,
)
from decoders.core.canvases import CanvasOptions, check_canvas, filled, label, recorded
from decoders.core.hexes import Blank, Plan, best, planned, settled, votes
from decoders.core.run import Run
from engines.base import Capability, Delta

BLOCKS = "decoding.params.blocks"


class HexOptions(CanvasOptions):
    """Which schedules, how often each, and how one of their answers is chosen."""

    blocks: list[Annotated[int, Param(ge=1, le=65536)]] | None = Param(
        None, min_length=1, max_length=64, description="block sizes; null = the paper's: the "
        "thirty-second part of the canvas to the half of it"
    )  # fmt: skip
    seeds: int = Param(5, ge=1, le=256, description="paths with each block size")
    answer: AnswerKind = Param("auto", description="what form an answer has; others abstain")
    select: Literal["vote", "nll", "vote_nll"] = Param(
        "vote", description="vote: the most frequent answer; nll: the path with the likeliest "
        "tokens by the first pass; vote_nll: ties of the vote by that"
    )  # fmt: skip
    vote_early: bool = Param(True, description="no further wave once the vote is decided")


def plan(options: HexOptions, request: DecodeRequest) -> Plan:
    """The schedules of every path, in the order in which they run."""
    return planned(
        options, request, options.blocks, options.seeds,
        estimate=options.select != "vote", record=recorded(request),
    )  # fmt: skip


def check(options: HexOptions, request: DecodeRequest) -> None:
    """Every block size divides the canvas, no two are the same, the context has room."""
    if options.blocks is not None and len({*options.blocks}) < len(options.blocks):
        raise RequestError(f"{BLOCKS}: a block size stands twice", BLOCKS)
    wanted = plan(options, request)
    for blank in wanted.blanks[: len(wanted.blocks)]:
        check_canvas(request, blank.schedule, "blocks")


def estimate(options: HexOptions, request: DecodeRequest) -> Estimate:
    """All waves; the widest one at a time."""
    wanted = plan(options, request)
    paths, size = len(wanted.blanks), min(wanted.length, request.max_tokens)
    rows = max(len(wave) for wave in wanted.waves(wanted.blanks, tested(options)))
    return Estimate(rows, paths * size, paths)


def tested(options: HexOptions) -> bool:
    """Whether the vote may end early; by likelihood nothing is certain before the last path."""
    return options.vote_early and options.select == "vote"


@decoder(
    "hex",
    HexOptions,
    source="arXiv 2510.05040",
    requires={Capability.DIFFUSION},
    honours={Field.N, Field.LOGIT_BIAS},
    estimate=estimate,
    null=Null(
        {"blocks": [8], "seeds": 1, "length": 32}, "block_diffusion",
        {"block_length": 8, "length": 32},
    ),
    check=check,
)  # fmt: skip
async def hex(run: Run, options: HexOptions) -> AsyncGenerator[Commit, None]:
    """Canvases filled in blocks of several sizes vote on the answer."""
    wanted = plan(options, run.request)
    if len(wanted.blanks) == 1:
        async for delta in filled(run, options, wanted.blanks[0].schedule):
            yield Commit.of(delta)
        return
    runs = run.fork(len(wanted.blanks))
    blanks = wanted.blanks[: len(runs)]
    run.note("started", paths=len(blanks), blocks=wanted.blocks, length=wanted.length)
    done: list[Blank] = []
    for wave in wanted.waves(blanks, tested(options)):
        await fill(run, options, wave, runs)
        done += wave
        tell(run, done)
        if tested(options) and settled(done, blanks):
            break
    chosen = best(done, options.select)
    report(run, options, done, chosen)
    for commit in chosen.commits():
        yield commit


async def fill(run: Run, options: HexOptions, wave: Sequence[Blank], runs: Sequence[Run]) -> None:
    """Fills the canvases of one wave side by side and reads their answers."""
    sources: list[AsyncGenerator[Delta, None]] = [
        filled(runs[blank.index], options, blank.schedule) for blank in wave
    ]
    async with run.together(sources) as moments:
        async for index, delta in moments:
            if delta is not None:
                wave[index].add(delta)
    for blank in wave:
        if blank.whole:
            blank.answer = canonical(run.read(blank.tokens).content, options.answer)
        run.note("path", tokens=blank.tokens, **blank.told())


def tell(run: Run, done: Sequence[Blank]) -> None:
    """How the vote stands after a wave."""
    run.note("wave", counted=len(done), votes=votes(done))


def report(run: Run, options: HexOptions, done: Sequence[Blank], chosen: Blank) -> None:
    """The choice's summary: the vote, whose text stands, and what its canvases were filled by."""
    result: dict[str, Any] = {
        "winner": None if chosen.answer is None else chosen.answer.shown,
        "path": chosen.index,
        "block_length": chosen.schedule.block,
        "votes": votes(done),
        "counted": len(done),
        "length": chosen.schedule.length,
        **label(options),
    }
    run.note("vote", summary=result, **result)
    run.tally.held_back = len(chosen.tokens)
