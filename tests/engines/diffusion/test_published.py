"""The benchmark's plain loop is the engine's own decoding, position for position, when greedy."""

import asyncio
from pathlib import Path

import pytest
import torch

from benchmarks.llada_shapes import SIZES, Work, arms, engine, loop, network
from benchmarks.published import Loop, fill, shares, vote
from engines.base import Sampling, Schedule
from engines.diffusion.engine import DiffusionEngine
from tests.fakes.canvases import slow_llada

PROMPTS = ([5, 77, 130, 9, 200], [41, 18, 3])


@pytest.mark.parametrize("block", [4, 16])
async def test_the_engine_fills_as_the_published_loop(
    block: int, llada: DiffusionEngine, llada_folder: Path
) -> None:
    slow = slow_llada(llada_folder)
    mask = llada.tokenizer.hf.mask_token_id
    assert isinstance(mask, int)
    how = Loop(16, block, 8, 0.0, mask)

    async def filled(prompt: list[int]) -> list[int]:
        schedule = Schedule(length=16, block=block, steps=8, early_stop=False)
        sampling = Sampling(temperature=0, ignore_eos=True, schedule=schedule)
        return [t async for d in llada.generate(prompt, sampling, 16) for t in d.tokens]

    found = await asyncio.gather(*(filled(prompt) for prompt in PROMPTS))
    for prompt, tokens in zip(PROMPTS, found, strict=True):
        expected = fill(lambda x: slow(x[0].tolist())[None], torch.tensor(prompt), how)
        assert tokens == expected.tolist()


def test_a_tie_of_the_loops_vote_goes_to_the_first_path() -> None:
    paths = [Loop(2, block, 2, 0.0, 9) for block in (1, 2)]
    said = iter(["b", "a"])
    logits = torch.zeros(1, 3, 10)
    prompt = torch.tensor([1])
    assert vote(lambda x: logits.clone(), prompt, paths, lambda tokens: next(said)) == "b"
    assert shares(7, 3) == [3, 2, 2]


def test_the_shapes_of_llada_run_in_every_arm() -> None:
    """On a CPU and small; the figures come from a GPU."""
    model, work = network(SIZES["tiny"], "cpu", torch.float32), Work(24, 16, 8)
    loop(model, work)
    found = {arm.name: engine(model, work, arm) for arm in arms(3)}
    assert set(found.values()) == {16, 4}
    assert len(found) == 12
