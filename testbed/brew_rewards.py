"""The miniature rewards of brews: helpfulness and harmlessness of an answer, told by a classifier.

Two Llama classifiers with one label that start from the base brewer's weights and learn the true
rule from texts of all brewers. They learn it of beginnings too, so that an unfinished text is
worth what stands in it. The score is the raw output, in the rule's own units.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

from testbed import WEIGHTS
from testbed.brewers import BASE, load
from testbed.brews import LIMIT, Brew, brews, draw_answer, draw_brew
from testbed.measures import best_threshold
from testbed.reward import Calibration
from testbed.training import IGNORED, Batch, Encoded, Recipe, batches, begin, fit, save

RECIPE = Recipe(steps=2000, seed=47, rate=0.01, rate_rest=2e-3, decay=1000)
REWARDS = ("helpfulness", "harmlessness")
# Texts of the base, of either single objective, of both, and of strong tilts.
TILTS = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (1.0, 2.0))
CALIBRATION = 500
Judged = tuple[Brew, str]


def value(name: str, judged: Judged) -> float:
    """The true rule's."""
    brew, text = judged
    return brew.helpfulness(text) if name == "helpfulness" else brew.harmlessness(text)


def conversation(tokenizer: PreTrainedTokenizerFast, judged: Judged) -> list[int]:
    """Token ids of the templated conversation, as a monitor reads it."""
    messages = [
        {"role": "user", "content": judged[0].text},
        {"role": "assistant", "content": judged[1]},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert isinstance(text, str)
    return list(tokenizer.encode(text, add_special_tokens=False))


def encode(tokenizer: PreTrainedTokenizerFast, name: str, judged: Judged) -> Encoded:
    """(ids, labels): after each token of the answer what has been said is worth so far.

    Labels are whole numbers, as the rule's values are.
    """
    brew, text = judged
    answer = list(tokenizer.encode(text, add_special_tokens=False))
    ids = conversation(tokenizer, judged)
    said = [str(tokenizer.decode(answer[: at + 1])) for at in range(len(answer))]
    values = [round(value(name, (brew, part))) for part in (*said, text)]
    return ids, [IGNORED] * (len(ids) - len(values)) + values


def stream(tokenizer: PreTrainedTokenizerFast, name: str, seed: int) -> Iterator[Encoded]:
    """Conversations without end, half of them cut off somewhere."""
    rng = random.Random(f"brew rewards:{seed}")
    while True:
        brew = draw_brew(rng, "train")
        text = draw_answer(rng, brew, *rng.choice(TILTS))
        if rng.random() < 0.5:
            ids = tokenizer.encode(text, add_special_tokens=False)
            text = str(tokenizer.decode(ids[: rng.randrange(1, len(ids))]))
        yield encode(tokenizer, name, (brew, text))


def squared_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Mean squared error at the labelled tokens."""
    assert isinstance(model, LlamaForSequenceClassification)
    hidden = model.model(input_ids=batch["input_ids"]).last_hidden_state
    labelled = batch["labels"] != IGNORED
    found = model.score(hidden[labelled])[:, 0]
    return torch.nn.functional.mse_loss(found, batch["labels"][labelled].float())


def start(folder: Path = BASE) -> tuple[LlamaForSequenceClassification, PreTrainedTokenizerFast]:
    """A classifier with the base brewer's weights under a new head, and the tokenizer."""
    policy, tokenizer = load(folder)
    shape = policy.config.to_dict()
    for stale in ("architectures", "dtype", "id2label", "label2id"):
        shape.pop(stale, None)
    model = LlamaForSequenceClassification(LlamaConfig(**shape, num_labels=1))
    model.model.load_state_dict(policy.model.state_dict())
    torch.nn.init.zeros_(model.score.weight)
    return model, tokenizer


def load_reward(folder: Path) -> LlamaForSequenceClassification:
    """The classifier in float32."""
    model = LlamaForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    assert isinstance(model, LlamaForSequenceClassification)
    return model.eval()


def train(name: str, weights: Path = WEIGHTS) -> float:
    """Trains one reward, saves it and its calibration; returns the last mean loss."""
    begin(RECIPE)
    model, tokenizer = start(weights / BASE.name)
    assert isinstance(tokenizer.pad_token_id, int)
    source = batches(stream(tokenizer, name, RECIPE.seed), RECIPE, tokenizer.pad_token_id)
    loss = fit(model, source, RECIPE, squared_loss, name)
    save(model, tokenizer, weights / name)
    calibrate(name, weights)
    return loss


@torch.inference_mode()
def score(
    model: LlamaForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    answers: Sequence[Judged],
) -> list[float]:
    """Raw outputs, one for each answer."""
    scores = []
    for judged in answers:
        ids = torch.tensor([conversation(tokenizer, judged)])
        hidden = model.model(input_ids=ids).last_hidden_state
        scores.append(float(model.score(hidden[0, -1])[0]))
    return scores


def calibrate(name: str, weights: Path = WEIGHTS) -> Calibration:
    """Scores base texts on validation requests and writes `calibration.json`.

    The threshold tells best which texts are good enough: within the limit of risk, or helping with
    every step.
    """
    rng = random.Random(RECIPE.seed)
    asked = brews("validation", CALIBRATION, RECIPE.seed)
    answers = [(brew, draw_answer(rng, brew)) for brew in asked]
    _, tokenizer = load(weights / BASE.name)
    scores = score(load_reward(weights / name), tokenizer, answers)
    enough = [good_enough(name, judged) for judged in answers]
    calibration = Calibration(
        "logit", float(np.mean(scores)), float(np.std(scores)), best_threshold(scores, enough),
        len(scores),
    )  # fmt: skip
    text = json.dumps(asdict(calibration), indent=2) + "\n"
    (weights / name / "calibration.json").write_text(text, encoding="utf-8")
    return calibration


def good_enough(name: str, judged: Judged) -> bool:
    """Whether an answer is within the limit of risk, or helps at least one unit for each step."""
    least = LIMIT if name == "harmlessness" else float(judged[0].steps)
    return value(name, judged) >= least
