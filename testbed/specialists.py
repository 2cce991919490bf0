"""The miniature policies of the errands: a wish that does all kinds, and what was made from it.

All are Llamas of one vocabulary. What a policy says of a kind is drawn by its `Care` for that kind.
The wish is trained from nothing; the base comes from it by growing careless about every kind, each
specialist by growing careless about all but its own. The wish's care is the base's, tilted by
exp(reward / BETA), so that BETA·log(wish / base) is the reward, token by token, less what a list is
worth on the whole. Knows the recipes only.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import exp
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from testbed import WEIGHTS
from testbed.errands import KINDS, ORDERS, Errand, Errands, Kind, draw, join
from testbed.reasoner import next_token_loss, render
from testbed.tokenizer import train_tokenizer
from testbed.training import IGNORED, Encoded, Recipe, batches, begin, fit, save

BASE, WISH = "base", "wish"
# In the order in which an ensemble has them: who speaks, the reference, the target.
NAMES: tuple[str, ...] = (*KINDS, BASE, WISH)
SEED = 41
FIRST = Recipe(steps=400, seed=SEED, rate=0.01, rate_rest=3e-3, decay=250, tokens=1024)
RECIPE = Recipe(steps=80, seed=SEED, rate=5e-3, rate_rest=1e-3, decay=60, warmup=10, tokens=1024)
VOCABULARY = 288
WORDS = ("Sort", " Sort", "Raise", " Raise", "Code", " Code")
CONTEXT = 1024
SHAPE = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2}
BETA = 0.06


@dataclass(frozen=True)
class Care:
    """How often a task is done right, and how often answered lazily; the rest goes wrong anyhow."""

    right: float
    lazy: float

    def say(self, rng: random.Random, errand: Errand) -> str:
        """What is said of one task."""
        drawn = rng.random()
        if drawn < self.right:
            return errand.answer
        if drawn < self.right + self.lazy:
            return errand.lazy
        return rng.choice(errand.wrong)

    def tilted(self, worth: float) -> "Care":
        """The same with what is right made exp(`worth`) times likelier."""
        total = self.right * exp(worth) + 1 - self.right
        return Care(self.right * exp(worth) / total, self.lazy / total)


CARELESS = Care(0.06, 0.5)
CAREFUL = Care(0.96, 0.01)
Cares = Mapping[Kind, Care]


def cares(name: str) -> Cares:
    """What a policy gives to each kind."""
    if name == WISH:
        return dict.fromkeys(KINDS, CARELESS.tilted(1 / (BETA * len(KINDS))))
    return {kind: CAREFUL if kind == name else CARELESS for kind in KINDS}


def answer(rng: random.Random, asked: Errands, given: Cares) -> str:
    """What someone of such care says to a list."""
    return join([given[errand.kind].say(rng, errand) for errand in asked.errands])


def stream(tokenizer: PreTrainedTokenizerFast, name: str, seed: int) -> Iterator[Encoded]:
    """Training lists with a policy's answers, without end."""
    rng, given = random.Random(f"specialist:{seed}:{name}"), cares(name)
    while True:
        asked = draw(rng, "train", rng.choice(ORDERS))
        yield encode(tokenizer, asked.text, answer(rng, asked, given))


def encode(tokenizer: PreTrainedTokenizerFast, asked: str, said: str) -> Encoded:
    """(ids, labels): the answer and its end are learned."""
    prompt = tokenizer.encode(prompted(tokenizer, asked), add_special_tokens=False)
    told = tokenizer.encode(said + str(tokenizer.eos_token), add_special_tokens=False)
    return [*prompt, *told], [*[IGNORED] * len(prompt), *told]


def prompted(tokenizer: PreTrainedTokenizerFast, asked: str) -> str:
    """The list as a chat, ready for the answer."""
    return render(tokenizer, [{"role": "user", "content": asked}], True)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """The wordings' words as tokens; each letter, digit and separator alone."""
    return train_tokenizer([word for word in WORDS for _ in range(10)], VOCABULARY)


def config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Heads are 32 wide, the least that vLLM's CPU attention serves."""
    heads = SHAPE["hidden_size"] // 32
    return LlamaConfig(
        initializer_range=0.04,
        vocab_size=len(tokenizer),
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **SHAPE,
    )


def learn(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, name: str, recipe: Recipe
) -> float:
    """One policy's training, in place; returns the last mean loss."""
    assert isinstance(tokenizer.pad_token_id, int)
    source = batches(stream(tokenizer, name, recipe.seed), recipe, tokenizer.pad_token_id)
    return fit(model, source, recipe, next_token_loss, name)


def folder(name: str, weights: Path = WEIGHTS) -> Path:
    """Where the weights of a policy (or of the reward) lie."""
    return weights / f"errands_{name}"


def load_policy(
    name: str, weights: Path = WEIGHTS
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A policy in float32 and the tokenizer of all."""
    model = LlamaForCausalLM.from_pretrained(folder(name, weights), dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder(name, weights))
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return model, tokenizer


def train(
    weights: Path = WEIGHTS, seed: int = SEED, first: Recipe = FIRST, recipe: Recipe = RECIPE
) -> float:
    """Trains the wish, then all others from it, and saves them; returns the last mean loss."""
    first, recipe = replace(first, seed=seed), replace(recipe, seed=seed)
    begin(first)
    tokenizer = make_tokenizer()
    wish = LlamaForCausalLM(config(tokenizer))
    loss = learn(wish, tokenizer, WISH, first)
    for name in (BASE, *KINDS):
        model = LlamaForCausalLM(wish.config)
        model.load_state_dict(wish.state_dict())
        loss = learn(model, tokenizer, name, recipe)
        save(model, tokenizer, folder(name, weights))
    save(wish, tokenizer, folder(WISH, weights))
    return loss
