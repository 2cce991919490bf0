"""The recipe of the miniature diffusion model, and that its network is the engine's."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engines.base import Sampling, Schedule
from engines.diffusion.engine import build
from engines.diffusion.model import Segment
from engines.diffusion.weights import load as engine_load
from testbed.denoiser import Decoding, fill, load
from testbed.diffusion import (
    CANVAS,
    RECIPE,
    ROWS,
    batches,
    loaded,
    make_tokenizer,
    masked,
    read,
    render,
    train,
)
from testbed.puzzles import CELLS, puzzles
from testbed.training import IGNORED


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few steps of training: a checkpoint in the right form that knows nothing."""
    made = tmp_path_factory.mktemp("diffusion")
    train(made, replace(RECIPE, steps=2, decay=1, warmup=1), size=300)
    return made


def test_the_engines_network_says_the_same(folder: Path) -> None:
    ids = torch.randint(0, 280, (2, 40), generator=torch.Generator().manual_seed(1))
    ours = load(folder)(ids)
    theirs = engine_load(folder, "cpu", torch.float32)
    for row, expected in zip(ids, ours, strict=True):
        said = theirs([Segment(row.numpy(), 0, np.arange(40))])
        assert torch.allclose(said, expected, atol=1e-4, rtol=1e-4)


async def test_the_engines_greedy_canvas_is_the_recipes(folder: Path) -> None:
    model, tokenizer = loaded(folder)
    engine = build("mini", {"kind": "diffusion", "model": str(folder)})
    await engine.start()
    try:
        prompts = [render(tokenizer, puzzle) for puzzle in puzzles("validation", 6)]
        for block in (4, 16):
            how = Decoding(block, 2, 0.0)
            mask = tokenizer.mask_token_id
            assert isinstance(mask, int)
            expected = fill(model, prompts, CANVAS, mask, how, 0).tolist()
            schedule = Schedule(length=CANVAS, block=block, steps=CANVAS // 2, early_stop=False)
            sampling = Sampling(temperature=0, ignore_eos=True, schedule=schedule)
            for prompt, row in zip(prompts, expected, strict=True):
                found = [
                    t async for d in engine.generate(prompt, sampling, CANVAS) for t in d.tokens
                ]
                assert found == row
    finally:
        await engine.stop()


def test_its_configuration_is_lladas(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    _, tokenizer = loaded(folder)
    assert config["model_type"] == "llada"
    assert config["mask_token_id"] == tokenizer.mask_token_id
    assert config["eos_token_id"] == tokenizer.eos_token_id


def test_answers_are_masked_and_prompts_are_not() -> None:
    tokenizer = make_tokenizer(1)
    source = batches(tokenizer, RECIPE, 200)
    shares = []
    for _ in range(20):
        batch = next(source)
        ids, labels = batch["input_ids"], batch["labels"]
        hidden = ids == tokenizer.mask_token_id
        assert ((labels != IGNORED) == hidden).all()
        prompt = int(hidden.any(0).nonzero()[0])
        assert ids.shape[0] == ROWS
        assert CELLS <= ids.shape[1] - prompt <= CANVAS
        shares.append(float(hidden[:, prompt:].float().mean()))
    assert sum(shares) / len(shares) == pytest.approx(0.51, abs=0.03)


def test_a_batch_is_masked_evenly_from_none_to_all() -> None:
    torch.manual_seed(0)
    answers = torch.ones(1000, 16, dtype=torch.long)
    share = (masked(answers, answers, 9)["input_ids"][:, 16:] == 9).float().mean(1)
    assert float(share[:100].mean()) < 0.1
    assert float(share[-100:].mean()) > 0.9


def test_reading_ends_at_the_first_end_token() -> None:
    tokenizer = make_tokenizer(1)
    ids = tokenizer.encode("1234", add_special_tokens=False)
    eos = tokenizer.eos_token_id
    assert isinstance(eos, int)
    assert read(tokenizer, [*ids, eos, *ids]) == "1234"
    assert read(tokenizer, ids) == "1234"
