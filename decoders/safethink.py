"""SafeThink: the reasoning is watched as it grows; an unsafe step is redone behind a short phrase.

Source: arXiv 2602.11096. Beyond the paper: the engine runs on while a step is judged and only a
violation rolls back (the answer is that of the sequential form); the phrase may stay in the
context; when no attempt is safe the best one is kept; the last word of the thinking and the answer
are judged as well. Each has an option that gives the paper's form. A full trace holds the tokens of
rejected steps too.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Literal

from pydantic import Field as Param

from decoders.core.base import (
    Commit,
    DecodeRequest,
    Estimate,
    Field,
    MonitorCallsSpent,
    Null,
    Options,
    decoder,
)
from decoders.core.judges import guard
from decoders.core.paths import spaced
from decoders.core.run import Refused, Run
from decoders.core.steering import Account, Phrase, safe, tries
from decoders.core.steps import Boundary, Rules, Step
from decoders.core.trail import Trail
from decoders.core.watch import Attempt, Watch
from monitors.core.base import Stage

MONITOR = "decoding.params.monitor"
REFUSAL = "the answer was judged unsafe and could not be redone safely"
SHORTEST = 8  # tokens of a step that estimates reckon with
Words = Annotated[str, Param(min_length=1, max_length=500)]


class SafeThinkOptions(Options):
    """Who watches, below which score a step is redone, how often and how."""

    monitor: str | None = Param(
        None,
        min_length=1,
        description="a configured monitor's name; null = the first guard, else the first of all",
    )
    threshold: float | None = Param(
        None,
        allow_inf_nan=False,
        description="a step scored below it is unsafe; null = the monitor's own",
    )
    phrase: Words | Annotated[list[Words], Param(min_length=1, max_length=16)] = Param(
        "Wait, think safely", description="what steers; of several each attempt takes the next"
    )
    max_steered_steps: int | None = Param(
        6, ge=0, description="only the first so many steps are redone (the paper's m); null = all"
    )
    counted: Literal["steps", "interventions"] = Param(
        "steps",
        description="what that counts: the answer's steps (the paper's pseudocode), or only those "
        "that were redone",
    )
    resample_temperature: float | None = Param(
        None, ge=0, le=2, description="temperature of the attempts; null = the request's"
    )
    max_resamples: int = Param(
        4,
        ge=1,
        le=64,
        description="attempts at a step (the paper's B); greedy: one for each phrase",
    )
    on_exhaust: Literal["best", "last", "refuse"] = Param(
        "best", description="what stands when no attempt is safe; the paper: last"
    )
    keep_phrase: bool = Param(
        True, description="the phrase stays in the reasoning; the paper's pseudocode: false"
    )
    late: Literal["accept", "steer", "refuse"] = Param(
        "accept", description="an unsafe step after the first max_steered_steps; the paper: accept"
    )
    check_before_answer: bool = Param(
        True, description="the last step of the thinking is redone if unsafe, however late it is"
    )
    check_answer: bool = Param(
        True, description="the answer is judged too: redone while unsafe, else refused"
    )
    boundaries: list[Boundary] = Param(
        ["paragraph", "heading"], max_length=3, description="what ends a step, beside the end of "
        "the thinking and max_step_tokens"
    )  # fmt: skip
    max_step_tokens: int = Param(128, ge=1, le=4096, description="longest step, in tokens")
    optimistic: bool = Param(
        True, description="sample on while a step is judged; false = wait for each verdict"
    )


def check(options: SafeThinkOptions, request: DecodeRequest) -> None:
    """The monitor exists."""
    guard(request, options.monitor, MONITOR)


def estimate(options: SafeThinkOptions, request: DecodeRequest) -> Estimate:
    """One answer, and all attempts at every step that may be redone."""
    steps = -(-request.max_tokens // min(SHORTEST, options.max_step_tokens))
    redone = min(steps, redoable(options, steps))
    attempts = redone * options.max_resamples
    rows = options.max_resamples if options.optimistic and redone else 1
    # What was sampled and judged ahead is thrown away with each step that is redone.
    tokens = (1 + redone) * request.max_tokens + attempts * (options.max_step_tokens + 8)
    calls = steps * (1 + redone * options.optimistic) + attempts
    return Estimate(rows, tokens, 1 + redone + attempts, calls)


def redoable(options: SafeThinkOptions, steps: int) -> int:
    """How many of so many steps estimates take to be redone."""
    steered = options.max_steered_steps
    if steered is None or (options.late == "steer" and steered > 0):
        return steps
    return steered + (options.check_before_answer + options.check_answer) * (steered > 0)


@decoder(
    "safethink",
    SafeThinkOptions,
    source="arXiv 2602.11096",
    honours={Field.LOGPROBS, Field.N, Field.LOGIT_BIAS, Field.TOOLS},
    estimate=estimate,
    null=Null({"threshold": -1e9}),
    check=check,
)
async def safethink(run: Run, options: SafeThinkOptions) -> AsyncGenerator[Commit, None]:
    """Steps judged unsafe are thrown away and redone behind "Wait, think safely"."""
    watch, threshold = watched(run, options)
    trail, account = Trail(), Account(run, threshold)
    while trail.finish is None:
        unsafe: Step | None = None
        async with watch.steps(trail) as steps:
            async for step, score in steps:
                value = None if score is None else score.value
                judged = trail.score if step.blank and watch.reads(step) else value
                below = judged is not None and judged < threshold
                if below and rejected(options, account, trail, step):
                    blanks, unsafe = step.parted(run.request.engine.tokenizer)
                    if blanks.tokens:
                        yield account.accept(trail, blanks, None)
                    account.unsafe(trail, unsafe, score)
                    break
                yield account.accept(trail, step, score)
        if unsafe is not None:
            if not redone(options, account, trail, unsafe):
                raise Refused(REFUSAL)
            phrases = spelled(run, options, trail, unsafe)
            attempts = await tries(watch, trail, phrases, account)
            best = chosen(options, attempts, threshold)
            forced = account.steer(trail, phrases[best])
            if forced is not None:
                yield forced
            yield account.accept(trail, attempts[best].step, attempts[best].score)


def watched(run: Run, options: SafeThinkOptions) -> tuple[Watch, float]:
    """Who reads along, and the score below which a step is unsafe."""
    monitor = guard(run.request, options.monitor, MONITOR)
    rules = Rules(frozenset(options.boundaries), options.max_step_tokens)
    answers = options.check_answer or not thinks(run)
    ahead = options.optimistic and affordable(run, options)
    watch = Watch(run, monitor, rules, answers, ahead, warmth(run, options))
    return watch, monitor.threshold if options.threshold is None else options.threshold


def affordable(run: Run, options: SafeThinkOptions) -> bool:
    """Whether the run's tokens cover what may be sampled ahead and thrown away.

    Else the answer would end where a slow verdict left nothing to go on with.
    """
    most = estimate(options, run.request).generated_tokens
    return run.allowance is None or run.allowance >= most


def thinks(run: Run) -> bool:
    """Whether answers begin with thinking; without, the answer is what is watched and steered."""
    return run.think is not None and run.request.chat


def rejected(options: SafeThinkOptions, account: Account, trail: Trail, step: Step) -> bool:
    """Whether an unsafe step is thrown away, not let through."""
    last = final(options, step) or options.late == "refuse"
    return last or redone(options, account, trail, step)


def redone(options: SafeThinkOptions, account: Account, trail: Trail, step: Step) -> bool:
    """Whether an unsafe step may be redone."""
    steered = options.max_steered_steps
    closing = step.closing and options.check_before_answer
    anytime = closing or final(options, step) or options.late == "steer"
    count = trail.index if options.counted == "steps" else account.steered
    return steered is None or count < steered or (anytime and steered > 0)


def final(options: SafeThinkOptions, step: Step) -> bool:
    """Whether a step must never go out unsafe."""
    return step.stage is Stage.ANSWER and options.check_answer


def spelled(run: Run, options: SafeThinkOptions, trail: Trail, step: Step) -> list[Phrase]:
    """The phrase of each attempt; in the answer of a model that thinks it never shows.

    Greedy attempts behind one phrase would be the same attempt again, so each phrase gets one.
    """
    phrases = [options.phrase] if isinstance(options.phrase, str) else options.phrase
    kept = options.keep_phrase and (step.stage is Stage.THINKING or not thinks(run))
    greedy = warmth(run, options) == 0
    count = min(options.max_resamples, len(phrases)) if greedy else options.max_resamples
    made = []
    for attempt in range(count):
        text = spaced(run, trail.tokens, phrases[attempt % len(phrases)])
        tokens = run.request.engine.tokenizer.encode(text, special=False)
        made.append(Phrase(tuple(tokens), text, kept))
    return made


def warmth(run: Run, options: SafeThinkOptions) -> float:
    """Temperature of the attempts."""
    own = options.resample_temperature
    return run.sampling.temperature if own is None else own


def chosen(options: SafeThinkOptions, attempts: Sequence[Attempt], threshold: float) -> int:
    """The attempt that stands: the last one if it is safe, else what `on_exhaust` says."""
    last = len(attempts) - 1
    if safe(attempts[last], threshold):
        return last
    if any(attempt.spent for attempt in attempts):
        raise MonitorCallsSpent("the budget left an attempt without a verdict")
    scores = [attempt.value or 0.0 for attempt in attempts]
    best = last if options.on_exhaust == "last" else scores.index(max(scores))
    # Its own stage counts: a phrase may have ended the thinking.
    if final(options, attempts[best].step) or options.on_exhaust == "refuse":
        raise Refused(REFUSAL)
    return best
