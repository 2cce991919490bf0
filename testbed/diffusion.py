"""The miniature diffusion model: a masked language model trained from nothing on puzzles.

Source of the recipe: arXiv 2502.09992 (LLaDA): a share of the answer drawn anew for each example is
masked, the rest is read, all masked tokens are predicted at once; an answer is filled up with end
tokens to the length of its canvas. Knows the recipe only; the puzzles come from `puzzles`.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from testbed import DIFFUSION
from testbed.denoiser import Denoiser, Form, load, save
from testbed.puzzles import CELLS, FAMILIES, LEVELS, Puzzle, draw
from testbed.tokenizer import train_tokenizer
from testbed.training import IGNORED, Batch, Recipe, begin, fit

RECIPE = Recipe(steps=700, seed=31, rate=0.01, rate_rest=2e-3, warmup=100, decay=250)
ROWS = 64
WIDTH, INNER = 96, 256
VOCABULARY = 288
MASK = "<|mask|>"
CANVAS = 32
# Puzzles that are drawn beforehand; every one is seen several times under other masks.
POOL = 30000
# So that an example always has something to learn from.
LEAST = 0.02


def make_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte vocabulary in which digits stand alone and a family's name is one token or two."""
    rng = random.Random(f"tokenizer:{seed}")
    texts = [draw(rng, "train", family, 1).text for family in FAMILIES for _ in range(50)]
    tokenizer = train_tokenizer(texts, VOCABULARY, extra=[MASK])
    tokenizer.add_special_tokens({"mask_token": MASK})
    return tokenizer


def render(tokenizer: PreTrainedTokenizerFast, puzzle: Puzzle) -> list[int]:
    """The prompt's token ids."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": puzzle.text}], tokenize=False, add_generation_prompt=True
    )
    assert isinstance(text, str)
    return list(tokenizer.encode(text, add_special_tokens=False))


def pools(
    tokenizer: PreTrainedTokenizerFast, seed: int, size: int = POOL
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Prompts and answers as token ids, puzzles of one prompt length together."""
    rng = random.Random(f"diffusion:{seed}")
    by_length: dict[int, list[tuple[list[int], list[int]]]] = {}
    for _ in range(size):
        puzzle = draw(rng, "train", rng.choice(FAMILIES), rng.choice(LEVELS))
        prompt = render(tokenizer, puzzle)
        answer = list(tokenizer.encode(puzzle.answer, add_special_tokens=False))
        by_length.setdefault(len(prompt), []).append((prompt, answer))
    return [
        (torch.tensor([p for p, _ in rows]), torch.tensor([a for _, a in rows]))
        for _, rows in sorted(by_length.items())
    ]


def batches(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe, size: int = POOL
) -> Iterator[Batch]:
    """Endless batches of one length each: ids with a share of the answer masked, and labels."""
    found = pools(tokenizer, recipe.seed, size)
    rng = random.Random(recipe.seed)
    weights = [len(prompts) for prompts, _ in found]
    eos, mask = tokenizer.eos_token_id, tokenizer.mask_token_id
    assert isinstance(eos, int)
    assert isinstance(mask, int)
    while True:
        prompts, answers = rng.choices(found, weights)[0]
        rows = torch.randint(len(prompts), (ROWS,))
        ends = torch.full((ROWS, rng.choice((0, 0, 4, 8, CANVAS - CELLS))), eos)
        yield masked(prompts[rows], torch.cat([answers[rows], ends], 1), mask)


def masked(prompts: torch.Tensor, answers: torch.Tensor, mask: int) -> Batch:
    """Masks each answer's tokens with a chance of its own, even over the batch."""
    rows = len(answers)
    chance = (torch.arange(rows) + torch.rand(1)) / rows * (1 - LEAST) + LEAST
    hidden = torch.rand(answers.shape) < chance[:, None]
    ids = torch.cat([prompts, answers.masked_fill(hidden, mask)], 1)
    labels = torch.cat(
        [torch.full_like(prompts, IGNORED), answers.masked_fill(~hidden, IGNORED)], 1
    )
    return {"input_ids": ids, "labels": labels}


def masked_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Cross-entropy of what is masked."""
    logits = model(batch["input_ids"])
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORED
    )


def train(folder: Path = DIFFUSION, recipe: Recipe = RECIPE, size: int = POOL) -> float:
    """Trains tokenizer and model from nothing and saves both; returns the last mean loss."""
    begin(recipe)
    tokenizer = make_tokenizer(recipe.seed)
    model = Denoiser(Form(len(tokenizer), WIDTH, inner=INNER))
    loss = fit(model, batches(tokenizer, recipe, size), recipe, masked_loss, "diffusion")
    ids = {"mask": tokenizer.mask_token_id, "eos": tokenizer.eos_token_id,
           "pad": tokenizer.pad_token_id}  # fmt: skip
    known = {f"{name}_token_id": i for name, i in ids.items() if isinstance(i, int)}
    save(model, folder, known)
    tokenizer.save_pretrained(folder)
    return loss


def loaded(folder: Path = DIFFUSION) -> tuple[Denoiser, PreTrainedTokenizerFast]:
    """Model in float32, and tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return load(folder), tokenizer


def read(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    """What a canvas says, up to its first end token."""
    kept = list(ids)
    if tokenizer.eos_token_id in kept:
        kept = kept[: kept.index(tokenizer.eos_token_id)]
    text = tokenizer.decode(kept, skip_special_tokens=True)
    assert isinstance(text, str)
    return text
