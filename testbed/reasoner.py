"""The miniature reasoner: a small Llama trained from scratch on worked arithmetic.

Knows the recipe only; what is asked comes from `examples`, how it is measured from `measures`.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from testbed import REASONER
from testbed.examples import Example, draw_example, draw_first_example
from testbed.tokenizer import LONGEST, train_tokenizer
from testbed.training import IGNORED, Batch, Encoded, Recipe, batches, begin, fit, save

FIRST = Recipe(steps=1400, rate=0.01, rate_rest=2e-3, decay=0, tokens=1536)
RECIPE = Recipe(steps=1200, rate=0.01, rate_rest=2e-3, decay=900)
TOKENIZER_EXAMPLES = 4000
SHAPE = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4}


def config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Width 128 with 4 heads: head size 32, the least that vLLM's CPU attention serves."""
    return LlamaConfig(
        initializer_range=0.04,
        vocab_size=len(tokenizer),
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **SHAPE,
    )


def stream(seed: int, draw: Callable[[random.Random], Example] = draw_example) -> Iterator[Example]:
    """Training conversations without end; the n-th is the same for the same seed."""
    rng = random.Random(f"examples:{seed}")
    while True:
        yield draw(rng)


def corpus(seed: int) -> Iterator[str]:
    """What the tokenizer is trained on: the first training conversations as text."""
    for _, example in zip(range(TOKENIZER_EXAMPLES), stream(seed), strict=False):
        yield from (message["content"] for message in example.messages)
        text = "".join(piece for piece, _ in example.pieces)
        yield text.replace("<think>", "").replace("</think>", "")


def render(tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, str]], think: bool) -> str:
    """The prompt as text, ready for the answer; `think` False pre-fills empty thinking."""
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=think
    )
    assert isinstance(text, str)
    return text


def encode(tokenizer: PreTrainedTokenizerFast, example: Example) -> Encoded:
    """(ids, labels); a label is ignored where the example is only read."""
    prompt = render(tokenizer, example.messages, example.thinking)
    ids = list(tokenizer.encode(prompt, add_special_tokens=False))
    labels = [IGNORED] * len(ids)
    for text, learned in [*example.pieces, (str(tokenizer.eos_token), True)]:
        piece = list(tokenizer.encode(text, add_special_tokens=False))
        ids += piece
        labels += piece if learned else [IGNORED] * len(piece)
    return ids, labels


def next_token_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Cross-entropy of the learned tokens."""
    loss = model(**batch).loss
    assert isinstance(loss, torch.Tensor)
    return loss


def train(folder: Path = REASONER, first: Recipe = FIRST, recipe: Recipe = RECIPE) -> float:
    """Trains tokenizer and model from nothing and saves both; returns the last mean loss.

    Two stages: easy examples until the numbers of a question are found and added, then all.
    """
    begin(recipe)
    tokenizer = train_tokenizer(corpus(recipe.seed))
    model = LlamaForCausalLM(config(tokenizer))
    fit_on(model, tokenizer, draw_first_example, first)
    loss = fit_on(model, tokenizer, draw_example, recipe)
    save(model, tokenizer, folder)
    return loss


def fit_on(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    draw: Callable[[random.Random], Example],
    recipe: Recipe,
) -> float:
    """One stage of training, in place; returns the last mean loss."""
    assert isinstance(tokenizer.pad_token_id, int)
    examples = (encode(tokenizer, example) for example in stream(recipe.seed, draw))
    source = batches(examples, recipe, tokenizer.pad_token_id)
    return fit(model, source, recipe, next_token_loss, "reasoner")
