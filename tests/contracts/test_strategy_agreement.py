"""Every strategy, greedy, says the same over vLLM as over the reference engine: alone and together.

Both in float32 on the same weights. Where the reference's two best tokens are closer than 1e-4,
either choice is right and the rest of that answer is not compared; such cases are counted.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from decoders.core.base import DecodeRequest
from decoders.core.registry import find
from engines.base import Capability, Engine, Sampling
from engines.table import byte_tokenizer
from tests.fakes.requests import AUTOREGRESSIVE, Whole, request, think, whole

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300)]
PROMPTS = ["What is 2 + 3?", "Say something.", "abc", "<think>so", "7 * 8 =", "One. Two. Three."]
VOWEL = {"kind": "regex", "pattern": "[aeiou].?$"}
AHEAD: dict[str, object] = {"candidates": 3, "lookahead": 2}
PARAMS: dict[str, dict[str, object]] = {
    "parallel_thinking": {"paths": 3, "thinking_budget": 60},
    "extended_thinking": {"mode": "exact", "thinking_budget": 12},
    "safethink": {"boundaries": ["line"], "max_step_tokens": 8, "check_answer": False},
    "best_of_n": {"samples": 3, "thinking_budget": 60},
    "collab": {**AHEAD, "target": VOWEL},
    "sitalign": {**AHEAD, "primary": VOWEL, "constrained": ["seven"], "thresholds": [0.5]},
    "args": {"candidates": 3, "monitor": VOWEL},
    "controlled_decoding": {"samples": 3, "block": 8, "monitor": VOWEL},
}
NEAR = 1e-4
MOST_NEAR_TIES = 3


def over(request: pytest.FixtureRequest, one: str, several: str) -> Engine:
    """The engine of one model, or of several where the strategy needs them."""
    needed = find(request.node.callspec.params["name"]).requires
    found: Engine = request.getfixturevalue(several if Capability.RULES in needed else one)
    return found


@pytest.fixture
def fast(request: pytest.FixtureRequest) -> Engine:
    return over(request, "vllm", "ensemble")


@pytest.fixture
def slow(request: pytest.FixtureRequest) -> Engine:
    return over(request, "reference", "reference_ensemble")


def asked(engine: Engine, name: str, prompt: str) -> DecodeRequest:
    """A greedy request whose log-probabilities tell how close each choice was."""
    return request(
        engine, name, PARAMS.get(name), prompt=prompt, max_tokens=40,
        sampling=Sampling(temperature=0.0, logprobs=2), think=think(byte_tokenizer()),
        think_open=True,
    )  # fmt: skip


def compared(fast: Whole, slow: Whole) -> bool:
    """Asserts equality up to the first near-tie of the reference; whether there was one."""
    for (token, _), (wanted, entry) in zip(fast.logprobs, slow.logprobs, strict=False):
        near = entry is not None and len(entry.top) > 1 and entry.top[0][1] - entry.top[1][1] < NEAR
        if token != wanted:
            assert near, f"{token} instead of {wanted}, which is no near-tie: {entry}"
            return True
    assert len(fast.logprobs) == len(slow.logprobs)
    assert (fast.reasoning, fast.content) == (slow.reasoning, slow.content)
    return False


async def answers(engine: Engine, name: str, together: bool) -> Sequence[Whole]:
    """The answers to all prompts, one by one or as one batch."""
    requests = [asked(engine, name, prompt) for prompt in PROMPTS]
    if together:
        return await asyncio.gather(*map(whole, requests))
    return [await whole(one) for one in requests]


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
async def test_vllm_says_what_the_reference_says(name: str, fast: Engine, slow: Engine) -> None:
    wanted = await answers(slow, name, together=False)
    near = 0
    for together in (False, True):
        got = await answers(fast, name, together)
        near += sum(compared(one, other) for one, other in zip(got, wanted, strict=True))
    print(f"{name}: {near} near-ties in {2 * len(PROMPTS)} answers")
    assert near <= MOST_NEAR_TIES


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
async def test_streamed_usage_is_unstreamed_usage(name: str, fast: Engine) -> None:
    """Events on or off, the answer and what it spent are the same."""
    quiet = asked(fast, name, PROMPTS[0])
    one, two = await whole(quiet), await whole(replace(quiet, stream_events=True))
    assert (one.reasoning, one.content, one.finish) == (two.reasoning, two.content, two.finish)
    assert one.usage.committed_tokens == two.usage.committed_tokens
    assert fast.running == 0
