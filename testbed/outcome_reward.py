"""The miniature target reward of the errands: which share of an answer's segments will be right?

A Llama classifier: the wish's layers, which know what comes next, and new ones above, which compare
it with what did come. It learns, by least squares, the outcomes of answers that were sampled from
the policies and, in turn with them, of answers with mistakes put in. Half of them are cut off
anywhere and keep the outcome that the whole had, so that the score of an unfinished answer is what
may be expected of it. The score is the raw value of its single label and means a reward in [0, 1].
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

from testbed.errands import KINDS, ORDERS, SEPARATOR, Errands, draw, lists, reward
from testbed.measures import best_threshold
from testbed.reward import Calibration
from testbed.sampling import Sampler
from testbed.specialists import BASE, Care, answer, folder, load_policy, prompted
from testbed.training import IGNORED, Batch, Encoded, Recipe, batches, begin, fit, save

NAME = "reward"
RECIPE = Recipe(steps=2000, seed=43, rate=0.01, rate_rest=2e-3, decay=1400, tokens=1024)
ABOVE = 2
# Lists that each policy is asked for its samples, and answers that the calibration is taken on.
LISTS, CALIBRATION = 400, 720
SHORT = 24
# Who draws the answers that are not sampled: right, lazy and otherwise wrong often enough each.
HALF = Care(0.5, 0.25)
CUT = 0.5
# Labels are whole numbers; a reward of 1 is this many.
UNIT = 1000


@dataclass(frozen=True)
class Outcome:
    """An answer to a list, and the share of it that is right."""

    asked: Errands
    text: str

    @property
    def reward(self) -> float:
        """In [0, 1]."""
        return reward(self.asked.answers, self.text)


def sample(names: Sequence[str], asked: Sequence[Errands], seed: int) -> list[Outcome]:
    """One sample at temperature 1 of each named policy to each list."""
    found: list[Outcome] = []
    for at, name in enumerate(names):
        model, tokenizer = load_policy(name)
        sampler = Sampler(model, tokenizer, limit=SHORT)
        texts = sampler.sample([prompted(tokenizer, one.text) for one in asked], seed + at)
        found += [Outcome(one, text) for one, text in zip(asked, texts, strict=True)]
    return found


def conversation(tokenizer: PreTrainedTokenizerFast, asked: str, said: str) -> list[int]:
    """Token ids of the whole conversation, its end marker included."""
    text = prompted(tokenizer, asked) + said + str(tokenizer.eos_token)
    return list(tokenizer.encode(text, add_special_tokens=False))


def encode(tokenizer: PreTrainedTokenizerFast, outcome: Outcome, cut: int | None) -> Encoded:
    """(ids, labels): the outcome on the last token, of an answer cut after `cut` characters or not.

    Each token of the answer is labelled with what is right so far, which only makes learning
    faster, if much; the score is read at the end.
    """
    said = outcome.text[:cut]
    ids = conversation(tokenizer, outcome.asked.text, said)
    labels = [IGNORED] * (len(ids) - 1) + [round(UNIT * outcome.reward)]
    told = tokenizer.encode(said, add_special_tokens=False)
    for count in range(1, len(told) + 1):
        part = str(tokenizer.decode(told[:count]))
        labels[len(ids) - 2 - len(told) + count] = round(UNIT * so_far(outcome.asked, part))
    return ids, labels


def so_far(asked: Errands, part: str) -> float:
    """The share of segments that are right, of which the last one need only be right as begun."""
    *done, begun = part.split(SEPARATOR)
    kept = sum(one == wanted for one, wanted in zip(done, asked.answers, strict=False))
    if begun and len(done) < len(asked.answers):
        kept += asked.answers[len(done)].startswith(begun)
    return kept / len(asked.answers)


def start(wish: LlamaForCausalLM) -> LlamaForSequenceClassification:
    """The wish's body with new layers above it and a head of one label."""
    shape = wish.config.to_dict()
    for stale in ("architectures", "dtype", "id2label", "label2id"):
        shape.pop(stale, None)
    shape |= {"num_hidden_layers": wish.config.num_hidden_layers + ABOVE, "num_labels": 1}
    model = LlamaForSequenceClassification(type(wish.config)(**shape))
    model.model.load_state_dict(wish.model.state_dict(), strict=False)
    return model


def stream(
    tokenizer: PreTrainedTokenizerFast, sampled: Sequence[Outcome], seed: int
) -> Iterator[Encoded]:
    """The samples over and over, each followed by an answer drawn anew."""
    rng = random.Random(f"outcomes:{seed}")
    drawn = dict.fromkeys(KINDS, HALF)
    while True:
        for one in sampled:
            asked = draw(rng, "train", rng.choice(ORDERS))
            for outcome in (one, Outcome(asked, answer(rng, asked, drawn))):
                cut = rng.randrange(len(outcome.text) + 1) if rng.random() < CUT else None
                yield encode(tokenizer, outcome, cut)


def squares(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Mean squared error of the values at the labelled tokens."""
    assert isinstance(model, LlamaForSequenceClassification)
    hidden = model.model(input_ids=batch["input_ids"]).last_hidden_state
    labelled = batch["labels"] != IGNORED
    values = model.score(hidden[labelled])[:, 0]
    return torch.nn.functional.mse_loss(values, batch["labels"][labelled].float() / UNIT)


@torch.inference_mode()
def score(
    model: LlamaForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    outcomes: Sequence[Outcome],
    rows: int = 128,
) -> list[float]:
    """Raw values, one per answer."""
    encoded = [conversation(tokenizer, one.asked.text, one.text) for one in outcomes]
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    scores = [0.0] * len(encoded)
    for begun in range(0, len(order), rows):
        chosen = order[begun : begun + rows]
        padded = {"input_ids": [encoded[i] for i in chosen]}
        batch = tokenizer.pad(padded, padding_side="right", return_tensors="pt")
        for i, value in zip(chosen, model(**batch).logits[:, 0].tolist(), strict=True):
            scores[i] = value
    return scores


def load_reward() -> LlamaForSequenceClassification:
    """The classifier in float32."""
    model = LlamaForSequenceClassification.from_pretrained(folder(NAME), dtype=torch.float32)
    assert isinstance(model, LlamaForSequenceClassification)
    return model.eval()


def train(recipe: Recipe = RECIPE, count: int = LISTS, place: Path | None = None) -> float:
    """Samples the policies, trains on their outcomes, saves model and calibration."""
    begin(recipe)
    wish, tokenizer = load_policy("wish")
    sampled = sample((*KINDS, BASE), list(lists("train", count, recipe.seed)), recipe.seed)
    random.Random(recipe.seed).shuffle(sampled)
    assert isinstance(wish, LlamaForCausalLM)
    assert isinstance(tokenizer.pad_token_id, int)
    model = start(wish)
    source = batches(stream(tokenizer, sampled, recipe.seed), recipe, tokenizer.pad_token_id)
    loss = fit(model, source, recipe, squares, NAME)
    where = place or folder(NAME)
    save(model, tokenizer, where)
    calibrate(where, recipe.seed)
    return loss


def calibrate(place: Path, seed: int) -> Calibration:
    """Scores samples on validation lists and writes `calibration.json`."""
    each = CALIBRATION // (len(KINDS) + 1)
    outcomes = sample((*KINDS, BASE), list(lists("validation", each, seed)), seed)
    model = LlamaForSequenceClassification.from_pretrained(place, dtype=torch.float32).eval()
    scores = score(model, load_policy(BASE)[1], outcomes)
    half = best_threshold(scores, [one.reward >= 1 / 2 for one in outcomes])
    found = Calibration("reward", float(np.mean(scores)), float(np.std(scores)), half, len(scores))
    text = json.dumps(asdict(found) | {"low": 0.0, "high": 1.0}, indent=2) + "\n"
    (place / "calibration.json").write_text(text, encoding="utf-8")
    return found
