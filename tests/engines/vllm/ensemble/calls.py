"""What the ensemble's tests share: ruled generations with their choices, and near-ties of rules."""

import random
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from engines.base import Choice, Engine, Rule, Sampling, TokenLogprob
from tests.policies import RULES

TIE = 1e-4  # in log-probability or utility


@dataclass
class Ruled:
    """A generation under a rule, its deltas put together."""

    tokens: list[int] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)


def under(name: str | None, **changes: Any) -> Sampling:
    """Greedy sampling under one of the usual rules; None is no rule."""
    rule = None if name is None else Rule(name, {**RULES.get(name, {}), **changes})
    return Sampling(temperature=0, ignore_eos=True, rule=rule, logprobs=2)


async def ruled(
    engine: Engine, prefix: Sequence[int], sampling: Sampling, limit: int = 40
) -> Ruled:
    """The whole of one generation."""
    found = Ruled()
    async with aclosing(engine.generate(prefix, sampling, limit)) as deltas:
        async for delta in deltas:
            found.tokens += delta.tokens
            found.choices += delta.choices or ()
            found.logprobs += delta.logprobs or ()
    return found


def prompts(count: int, seed: int = 1) -> list[list[int]]:
    """Random prompts of 5 to 60 bytes."""
    draw = random.Random(seed)
    return [[draw.randrange(32, 120) for _ in range(draw.randrange(5, 60))] for _ in range(count)]


def same(fast: Ruled, slow: Ruled) -> bool:
    """Whether all tokens are equal; False where they part at a near-tie, else it fails."""
    assert len(fast.tokens) == len(slow.tokens)
    for at, (token, wanted) in enumerate(zip(fast.tokens, slow.tokens, strict=True)):
        if token != wanted:
            assert near(fast, slow, at), f"parted at token {at}: {token}, not {wanted}"
            return False
    return True


def near(fast: Ruled, slow: Ruled, at: int) -> bool:
    """Whether the choice at a place was a near-tie.

    A rule that settles tokens tells what they are worth, others leave it to the likeliest two.
    """
    told = [found.choices[at].notes if found.choices else {} for found in (fast, slow)]
    if all("utility" in notes for notes in told):
        edge = min(abs(notes.get("margin") or 1.0) for notes in told)
        return bool(min(edge, abs(told[0]["utility"] - told[1]["utility"])) < TIE)
    first, second = slow.logprobs[at].top[:2]
    return first[1] - second[1] < TIE
