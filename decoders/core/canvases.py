"""What the strategies of diffusion models share: how a canvas is filled, as parameters.

A canvas is the masked positions behind a prompt; a schedule says in which order they are filled.
It knows no strategy; which schedules there are, the engine says.
"""

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Literal

from pydantic import Field as Param

from decoders.core.base import DecodeRequest, Options, RequestError, TraceLevel
from decoders.core.run import Run
from engines.base import Delta, Schedule, UnsupportedError

PARAMS = "decoding.params"
LONGEST = 256
"""Positions of a canvas for which no length is asked: what the published figures are for."""
NUMBERS = ("threshold", "factor", "gamma", "n", "divisor", "edit", "rounds")
PASSED = ("rule", "cache", "refresh", "guidance", "early_stop", "eos")
RuleName = Literal[
    "confidence", "random", "margin", "entropy", "origin",
    "threshold", "factor", "entropy_bound", "saber", "saber_code", "edit",
]  # fmt: skip


class CanvasOptions(Options):
    """How a canvas is filled, whatever its blocks are."""

    length: int | None = Param(
        None, ge=1, le=65536, description=f"positions of the canvas, a multiple of every block; "
        f"null = what max_tokens allows, at most {LONGEST}, in whole blocks"
    )  # fmt: skip
    steps: int | None = Param(
        None, ge=1, description="forward passes over the whole canvas, an even part per block, "
        "for the rules confidence, random, margin, entropy and origin; null = one for every two "
        "positions; the other rules end when a block is full"
    )  # fmt: skip
    temperature: float | None = Param(
        None, ge=0, le=2, description="of the tokens; null = the request's own"
    )
    rule: RuleName = Param(
        "confidence", description="which positions are filled at a step: the likeliest, random "
        "ones, the largest margin, the lowest entropy, origin = Dream's random order; threshold "
        "and factor = Fast-dLLM (arXiv 2505.22618); entropy_bound; saber = arXiv 2510.18165, "
        "saber_code = as its code has it; edit = LLaDA2.1's corrections"
    )  # fmt: skip
    threshold: float | None = Param(
        None, ge=0, le=1, description="rules threshold and edit: the confidence that suffices; "
        "null = 0.9 and 0.5"
    )  # fmt: skip
    factor: float | None = Param(None, ge=0, description="rule factor: its f; null = 1")
    gamma: float | None = Param(
        None, ge=0, description="rule entropy_bound: nats filled at once; null = 0.15"
    )
    n: int | None = Param(None, ge=1, le=4096, description="saber: least drafts a step; null = 2")
    divisor: int | None = Param(
        None, ge=1, le=4096, description="saber: one of so many drafts is masked again; null = 8"
    )
    edit: float | None = Param(
        None, ge=0, le=1, description="rule edit: confidence that corrects a token; null = 0"
    )
    rounds: int | None = Param(
        None, ge=0, le=4096, description="rule edit: corrections of a full block; null = 16"
    )
    cache: Literal["none", "prefix", "dual"] = Param(
        "none", description="keys and values kept within a block (Fast-dLLM); none is exact"
    )
    refresh: int | None = Param(
        None, ge=1, description="cached passes after which the cache is renewed; null = per block"
    )
    guidance: float = Param(
        0.0, ge=0, le=100, description="weight of classifier-free guidance, which doubles the cost"
    )
    early_stop: bool = Param(
        True, description="end once everything before the first end token is settled"
    )
    eos: Literal["free", "last", "never"] = Param(
        "free", description="when an end token may be filled in: at any time, after all others, "
        "not at all"
    )  # fmt: skip


def length_of(options: CanvasOptions, request: DecodeRequest, unit: int) -> int:
    """How long a canvas is; of one that was not asked for, `unit` is a part.

    Then it holds max_tokens, or as many whole units as the context has room for.
    """
    if options.length is not None:
        return options.length
    room = request.engine.max_context - len(request.prompt)
    wanted = -(-min(request.max_tokens, LONGEST) // unit) * unit
    return wanted if wanted <= room else max(1, room // unit) * unit


def schedule_of(options: CanvasOptions, length: int, block: int, **more: Any) -> Schedule:
    """The schedule of one canvas in blocks of one size; `more` are fields of `Schedule`."""
    numbers = {name: getattr(options, name) for name in NUMBERS}
    passed = {name: getattr(options, name) for name in PASSED}
    steps = options.steps or -(-block // 2) * (length // block)
    known = {name: float(value) for name, value in numbers.items() if value is not None}
    return Schedule(length=length, block=block, steps=steps, numbers=known, **passed, **more)


def check_canvas(request: DecodeRequest, schedule: Schedule, block: str) -> None:
    """Refuses what the engine cannot follow; `block` is the parameter that gave the block.

    Raises `RequestError` that names the parameter.
    """
    try:
        request.engine.check_schedule(schedule, len(request.prompt))
    except UnsupportedError as fault:
        where = f"{PARAMS}.{block if fault.param == 'block' else fault.param}"
        said = str(fault).removeprefix(f"{fault.param}: ")
        raise RequestError(f"{where}: {said}", where, "invalid_value") from fault


async def filled(
    run: Run, options: CanvasOptions, schedule: Schedule, purpose: tuple[int | str, ...] = ("main",)
) -> AsyncGenerator[Delta, None]:
    """Fills a canvas and gives out what stands; tells the order in which it was filled."""
    changes: dict[str, Any] = {"schedule": schedule}
    if options.temperature is not None:
        changes["temperature"] = options.temperature
    async for delta in run.generate(purpose=purpose, **changes):
        if delta.fill is not None and delta.fill.order:
            run.note("filled", order=_order(delta))
        yield delta


def _order(delta: Delta) -> list[Mapping[str, Any]]:
    """What was filled since the last time, in order; token null: it was masked again."""
    assert delta.fill is not None
    return [
        {
            "step": one.step,
            "position": one.position,
            "token": one.token,
            "confidence": round(one.confidence, 6),
        }
        for one in delta.fill.order
    ]


def recorded(request: DecodeRequest) -> bool:
    """Whether somebody wants to know in which order positions were filled."""
    return request.trace is TraceLevel.FULL or request.stream_events


def label(options: CanvasOptions) -> dict[str, Any]:
    """What changes the text that a canvas gets, for its summary."""
    return {"rule": options.rule, "cache": options.cache}
