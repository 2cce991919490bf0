"""The miniature brewers: a base policy and one policy for each of two rewards in conflict.

All three learn from texts alone, of a domain where the best policy for a reward under a reverse KL
to the base is known and can be drawn from: base · exp(reward / beta) (`brews.draw_answer`). So beta
times the log-ratio of a policy to the base is its reward's advantage, token by token: the policies
are autoregressive reward models besides. Knows the recipe only.
"""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path

from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from testbed import WEIGHTS
from testbed.brews import draw_answer, draw_brew
from testbed.reasoner import next_token_loss, render
from testbed.tokenizer import train_tokenizer
from testbed.training import IGNORED, Encoded, Recipe, batches, begin, fit, save

VOCABULARY = 512
CONTEXT = 1024
SHAPE = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3}
BETA = 1.0
# What each policy's texts are tilted to: (1 / beta of helpfulness, of harmlessness).
TILTS: Mapping[str, tuple[float, float]] = {
    "brewer": (0.0, 0.0),
    "brewer_helpful": (1 / BETA, 0.0),
    "brewer_harmless": (0.0, 1 / BETA),
}
BASE = WEIGHTS / "brewer"
FIRST = Recipe(steps=800, seed=41, rate=0.01, rate_rest=3e-3, decay=500)
# From the base's weights on.
TUNED = Recipe(steps=300, seed=43, rate=5e-3, rate_rest=1e-3, decay=250)
TOKENIZER_TEXTS = 4000


def config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Width 64 with 2 heads: head size 32, the least that vLLM's CPU attention serves."""
    return LlamaConfig(
        initializer_range=0.04,
        vocab_size=len(tokenizer),
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **SHAPE,
    )


def corpus(seed: int) -> Iterator[str]:
    """What the tokenizer is trained on."""
    rng = random.Random(f"brews:tokenizer:{seed}")
    for _ in range(TOKENIZER_TEXTS):
        brew = draw_brew(rng, "train")
        yield from (brew.text, draw_answer(rng, brew))


def stream(
    tokenizer: PreTrainedTokenizerFast, tilt: tuple[float, float], seed: int
) -> Iterator[Encoded]:
    """Training requests without end, each with an answer of the tilted policy; that is learned."""
    rng = random.Random(f"brewers:{tilt}:{seed}")
    while True:
        brew = draw_brew(rng, "train")
        prompt = render(tokenizer, [{"role": "user", "content": brew.text}], True)
        answer = draw_answer(rng, brew, *tilt) + str(tokenizer.eos_token)
        before = tokenizer.encode(prompt, add_special_tokens=False)
        after = tokenizer.encode(answer, add_special_tokens=False)
        yield [*before, *after], [*[IGNORED] * len(before), *after]


def load(folder: Path = BASE) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A policy in float32, and the tokenizer that all share."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return model, tokenizer


def train(name: str, weights: Path = WEIGHTS) -> float:
    """Trains one policy and saves it; the base from nothing with the tokenizer, others from it."""
    if name == BASE.name:
        begin(FIRST)
        tokenizer = train_tokenizer(corpus(FIRST.seed), VOCABULARY)
        model, recipe = LlamaForCausalLM(config(tokenizer)), FIRST
    else:
        begin(TUNED)
        (model, tokenizer), recipe = load(weights / BASE.name), TUNED
    assert isinstance(tokenizer.pad_token_id, int)
    examples = stream(tokenizer, TILTS[name], recipe.seed)
    source = batches(examples, recipe, tokenizer.pad_token_id)
    loss = fit(model, source, recipe, next_token_loss, name)
    save(model, tokenizer, weights / name)
    return loss
