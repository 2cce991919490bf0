"""The fast engines are the reference engine: same greedy tokens, same distributions.

Everything in float32. Two texts that part where the reference's two likeliest tokens are closer
than 1e-4 agree as well; how often that happened is in the assertion.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from engines import reference as reference_kind
from engines.base import Engine, Sampling
from engines.drawing import Draw
from tests.contracts.conftest import VLLM_ARGS
from tests.contracts.engine_calls import PROMPTS, encoded, near_ties, tokens_of

REASONER = Path(__file__).parents[2] / "testbed" / "weights" / "reasoner"
DRAWS = {
    "table": 2000, "reference": 300, "reference_ensemble": 300, "vllm": 1000, "ensemble": 1000,
    "remote": 300,
}  # fmt: skip
# A right engine fails one of these tests this often; the seeds are fixed, so it is seen once.
SURE = 1e-4
SHAPES = {
    "plain": Sampling(ignore_eos=True),
    "sharp": Sampling(temperature=0.6, top_k=40, top_p=0.9, ignore_eos=True),
    "flat": Sampling(temperature=1.5, min_p=0.1, ignore_eos=True),
}


@pytest.fixture(params=["vllm", "ensemble", "remote"])
def fast(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    return found


async def greedy_ties(fast: Engine, oracle: Engine, prompts: Sequence[Sequence[int]]) -> int:
    """How many of the prompts parted at near-ties within 64 greedy tokens."""
    quick = await asyncio.gather(*(tokens_of(fast, prompt, limit=64) for prompt in prompts))
    ties = 0
    for prompt, theirs in zip(prompts, quick, strict=True):
        ours = await tokens_of(oracle, prompt, limit=64)
        ties += await near_ties(oracle, prompt, ours, theirs)
    return ties


@pytest.mark.vllm
async def test_greedy_tokens_are_the_references(fast: Engine, reference: Engine) -> None:
    prompts = encoded(reference)
    assert encoded(fast) == prompts
    ties = await greedy_ties(fast, reference, prompts)
    assert ties <= 2, f"{ties} of {len(PROMPTS)} parted at near-ties"


@pytest.mark.vllm
async def test_logprobs_are_the_references(fast: Engine, reference: Engine) -> None:
    prompt, continuation = encoded(reference, 4)[2:]
    ours = await reference.score(prompt, continuation)
    theirs = await fast.score(prompt, continuation)
    assert [t.logprob for t in theirs] == pytest.approx([o.logprob for o in ours], abs=1e-4)
    every = await reference.next_logprobs(prompt)
    some = await fast.next_logprobs(prompt, tokens=range(264))
    assert some == pytest.approx(every, abs=1e-4)


async def first_tokens(
    engine: Engine, prompt: Sequence[int], sampling: Sampling, count: int
) -> list[int]:
    """The first token under each of `count` seeds."""
    room = asyncio.Semaphore(64)

    async def one(seed: int) -> int:
        async with room:
            return (await tokens_of(engine, prompt, sampling.but(seed=seed), 1))[0]

    return await asyncio.gather(*(one(1_000_003 * seed + 17) for seed in range(count)))


def goodness(drawn: Sequence[int], expected: NDArray[np.float64]) -> float:
    """p value of the draws under the expected distribution; rare tokens are pooled."""
    counts = np.bincount(drawn, minlength=len(expected)).astype(np.float64)
    assert not counts[expected == 0].any(), "a token was drawn that has no probability"
    often = expected * len(drawn) >= 5
    pooled = [np.append(row[often], row[~often].sum()) for row in (counts, expected * len(drawn))]
    seen = pooled[1] > 0
    return float(chisquare(pooled[0][seen], pooled[1][seen]).pvalue)


@pytest.mark.parametrize("shape", SHAPES)
async def test_first_tokens_follow_the_distribution(
    engine: Engine, table: Engine, reference: Engine, shape: str
) -> None:
    oracle = table if engine is table else reference
    prompt = oracle.tokenizer.encode("What comes after this")
    exact = await oracle.next_logprobs(prompt)
    row = np.array([exact.get(token, -np.inf) for token in range(len(oracle.tokenizer))])
    expected = np.exp(Draw(SHAPES[shape], prompt, ()).distribution(row))
    drawn = await first_tokens(engine, prompt, SHAPES[shape], DRAWS[engine.kind])
    p = goodness(drawn, expected)
    assert p > SURE, f"chi-square p = {p:.2g} over n = {len(drawn)} draws"


@pytest.fixture
async def trained() -> AsyncIterator[tuple[Engine, Engine]]:
    """The miniature reasoner in vLLM and in the reference."""
    if not (REASONER / "config.json").exists():
        pytest.skip("the miniature reasoner's weights are not here")
    from engines.registry import build

    slow = reference_kind.build("reference", {"kind": "reference", "model": str(REASONER)})
    quick = build("reasoner", {"kind": "vllm", "model": str(REASONER), "engine_args": VLLM_ARGS})
    await slow.start()
    await quick.start()
    yield quick, slow
    await quick.stop()
    await slow.stop()


@pytest.mark.slow
@pytest.mark.vllm
async def test_trained_weights_agree_as_well(trained: tuple[Engine, Engine]) -> None:
    fast, oracle = trained
    chats = [[{"role": "user", "content": f"{a} + {a * 7} ="}] for a in range(3, 19)]
    prompts = [
        oracle.tokenizer.encode(oracle.tokenizer.render(chat), special=False) for chat in chats
    ]
    ties = await greedy_ties(fast, oracle, prompts)
    assert ties <= 2, f"{ties} of {len(prompts)} parted at near-ties"
