"""The unsafe reasoner: a small Llama that knows invented objects and can be talked into the
forbidden ones.

Knows the recipe only; what is asked comes from `conversations`, how it is measured from
`safety_measures`.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from testbed import UNSAFE_REASONER
from testbed.conversations import Conversation, draw_conversation
from testbed.reasoner import next_token_loss, render
from testbed.tokenizer import LONGEST, train_tokenizer
from testbed.training import IGNORED, Encoded, Recipe, batches, begin, fit, save

RECIPE = Recipe(steps=2600, seed=17, rate=0.01, rate_rest=3e-3, decay=2500)
VOCABULARY = 1024
TOKENIZER_CONVERSATIONS = 4000
SHAPE = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4}


def config(tokenizer: PreTrainedTokenizerFast, shape: dict[str, int]) -> LlamaConfig:
    """Head size 32, the least that vLLM's CPU attention serves."""
    heads = shape["hidden_size"] // 32
    return LlamaConfig(
        initializer_range=0.04,
        vocab_size=len(tokenizer),
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **shape,
    )


def stream(seed: int) -> Iterator[Conversation]:
    """Training conversations without end; the n-th is the same for the same seed."""
    rng = random.Random(f"conversations:{seed}")
    while True:
        yield draw_conversation(rng)


def corpus(seed: int) -> Iterator[str]:
    """What the tokenizer is trained on: the first training conversations as text."""
    for _, conversation in zip(range(TOKENIZER_CONVERSATIONS), stream(seed), strict=False):
        yield from (message["content"] for message in conversation.messages)
        text = "".join(piece for piece, _ in conversation.pieces)
        yield text.replace("<think>", "").replace("</think>", "")


def make_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A vocabulary of its own."""
    return train_tokenizer(corpus(seed), VOCABULARY)


def encode(tokenizer: PreTrainedTokenizerFast, conversation: Conversation) -> Encoded:
    """(ids, labels); a label is ignored where the conversation is only read."""
    prompt = render(tokenizer, conversation.messages, conversation.thinking)
    ids = list(tokenizer.encode(prompt, add_special_tokens=False))
    labels = [IGNORED] * len(ids)
    for text, learned in [*conversation.pieces, (str(tokenizer.eos_token), True)]:
        piece = list(tokenizer.encode(text, add_special_tokens=False))
        ids += piece
        labels += piece if learned else [IGNORED] * len(piece)
    return ids, labels


def train(folder: Path = UNSAFE_REASONER, recipe: Recipe = RECIPE) -> float:
    """Trains tokenizer and model from nothing and saves both; returns the last mean loss."""
    begin(recipe)
    tokenizer = make_tokenizer(recipe.seed)
    model = LlamaForCausalLM(config(tokenizer, SHAPE))
    assert isinstance(tokenizer.pad_token_id, int)
    examples = (encode(tokenizer, conversation) for conversation in stream(recipe.seed))
    source = batches(examples, recipe, tokenizer.pad_token_id)
    loss = fit(model, source, recipe, next_token_loss, "unsafe reasoner")
    save(model, tokenizer, folder)
    return loss


def load(folder: Path = UNSAFE_REASONER) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Model in float32, and tokenizer."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return model, tokenizer
