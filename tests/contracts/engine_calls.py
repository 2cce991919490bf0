"""What the engine laws share: prompts, whole generations, and when two greedy texts agree."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from engines.base import Engine, Finish, Sampling, TokenLogprob

GREEDY = Sampling(temperature=0, ignore_eos=True)
TIE = 1e-4  # two tokens closer than this in log-probability are a near-tie
PROMPTS = (
    "The quick brown fox",
    "a",
    "1 + 1 = 2, 2 + 2 = 4, 3 + 3 =",
    "Once upon a time there was a small engine that could only count to ten.",
    "<|user|>What is the capital of France?<|end|><|assistant|>",
    "héllo wörld 漢字",
    "zzzzzzzzzzzzzzzzzzzz",
    "def add(a, b):\n    return",
    "<|user|>Why?<|end|><|assistant|><think>Because",
    "\n\n\n",
    "To be, or not to be, that is the question: whether 'tis nobler in the mind to suffer",
    "x" * 70,
    "0123456789" * 9,
    "Dear Sir or Madam,",
    "; DROP TABLE",
    "[1, 2, 3, 4",
)


@dataclass
class Whole:
    """A generation, its deltas put together."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: Finish | None = None


async def whole(engine: Engine, prefix: Sequence[int], sampling: Sampling, limit: int) -> Whole:
    """All that a generation gives; only the last delta may say why it ended."""
    found = Whole()
    async for delta in engine.generate(prefix, sampling, limit):
        assert found.finish is None, "a delta came after the last"
        found.tokens += delta.tokens
        found.finish = delta.finish
        assert (delta.logprobs is None) == (sampling.logprobs is None)
        found.logprobs += delta.logprobs or ()
    assert found.finish is not None, "the last delta gives no reason"
    return found


async def tokens_of(
    engine: Engine, prefix: Sequence[int], sampling: Sampling = GREEDY, limit: int = 24
) -> list[int]:
    """The tokens of one generation."""
    return (await whole(engine, prefix, sampling, limit)).tokens


def encoded(engine: Engine, count: int = len(PROMPTS)) -> list[list[int]]:
    """The first `count` prompts as token ids."""
    return [engine.tokenizer.encode(text) for text in PROMPTS[:count]]


async def near_ties(
    oracle: Engine, prefix: Sequence[int], one: Sequence[int], other: Sequence[int]
) -> int:
    """0 if two greedy texts are equal, 1 if they part at a near-tie; else it fails."""
    assert len(one) == len(other)
    for at, (a, b) in enumerate(zip(one, other, strict=True)):
        if a != b:
            found = await oracle.next_logprobs([*prefix, *one[:at]], tokens=[a, b])
            gap = abs(found[a] - found[b])
            assert gap < TIE, f"parted at token {at} ({a} or {b}), {gap:.6f} apart"
            return 1
    return 0


async def freed(engine: Engine, seconds: float = 1.0) -> bool:
    """Whether the engine works on nothing within that time."""
    deadline = asyncio.get_running_loop().time() + seconds
    # What runs is a number to look at, not an event to wait for.
    while engine.running and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return engine.running == 0
