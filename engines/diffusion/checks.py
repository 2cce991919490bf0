"""Which schedules an engine can follow. It knows the rules' numbers and no request."""

from collections.abc import Iterator, Sequence

from engines.base import Engine, Sampling, Schedule, UnsupportedError
from engines.diffusion.rules import RULES

WORDS = {
    "cache": ("none", "prefix", "dual"),
    "eos": ("free", "last", "never"),
    "style": (None, "llada", "dream"),
}


def check_canvas(engine: Engine, prefix: Sequence[int], sampling: Sampling) -> None:
    """Refuses a missing schedule and one that the engine cannot follow.

    Raises UnsupportedError whose `param` is the schedule's field.
    """
    if sampling.schedule is None:
        message = f"engine {engine.name!r} fills canvases and needs a schedule"
        raise UnsupportedError(message, "decoding.strategy")
    engine.check_schedule(sampling.schedule, len(prefix))
    if sampling.min_tokens:
        raise UnsupportedError(f"engine {engine.name!r} has no min_tokens", "min_tokens")


def check_schedule(engine: Engine, schedule: Schedule, prompt: int) -> None:
    """Refuses a schedule that does not add up, and a canvas without room behind the prompt."""
    for param, message in faults(schedule):
        raise UnsupportedError(f"{param}: {message}", param)
    room = engine.max_context - prompt
    if schedule.length > room:
        raise UnsupportedError(f"length: the context has room for {room}", "length")


def faults(schedule: Schedule) -> Iterator[tuple[str, str]]:
    """The fields that are wrong, and what is."""
    if schedule.length < 1:
        yield "length", "must be at least 1"
        return
    if schedule.block < 1 or schedule.length % schedule.block:
        yield "block", f"{schedule.block} does not divide the length of {schedule.length}"
        return
    blocks = schedule.length // schedule.block
    if not 1 <= schedule.steps <= schedule.length or schedule.steps % blocks:
        yield "steps", f"{schedule.steps} is no multiple of {blocks} up to {schedule.length}"
    for field, words in WORDS.items():
        if getattr(schedule, field) not in words:
            yield field, f"must be one of {', '.join(map(str, words))}"
    if schedule.refresh is not None and schedule.refresh < 1:
        yield "refresh", "must be at least 1"
    yield from _rule(schedule)


def _rule(schedule: Schedule) -> Iterator[tuple[str, str]]:
    rule = RULES.get(schedule.rule)
    if rule is None:
        yield "rule", f"there is no {schedule.rule!r}; known: {', '.join(RULES)}"
        return
    for name, value in schedule.numbers.items():
        number = rule.numbers.get(name)
        if number is None:
            yield name, f"the rule {schedule.rule!r} has no such number"
        elif not number.low <= value <= number.high:
            yield name, f"must be between {number.low:g} and {number.high:g}"
