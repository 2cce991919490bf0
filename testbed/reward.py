"""The miniature sequence reward: will this conversation's last answer be right?

A Llama classifier that starts from the reasoner's weights and learns from the reasoner's own
samples on training questions and, in turn with them, from derivations with slips put in. The score
is the raw logit of its single label.
"""

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from transformers import (
    AutoTokenizer,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from testbed import REASONER, REWARD
from testbed.examples import CLOSE
from testbed.measures import best_threshold, read_answer
from testbed.problems import derive
from testbed.reasoner import render
from testbed.sampling import Sampler
from testbed.tasks import Question, held_out, questions, write_answer
from testbed.traces import ERRORS, Style, draw_style, draw_waits, write_trace
from testbed.training import IGNORED, Batch, Encoded, Recipe, batches, begin, fit, save

RECIPE = Recipe(steps=1000, seed=11, rate=5e-3, rate_rest=1e-3, decay=800)
QUESTIONS, SAMPLES = 3000, 2
# Each step of a drawn derivation slips with this chance; about half of them end wrong.
SLIP = 0.15
CALIBRATION_SAMPLES = 1
NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Judged:
    """One sampled answer with its question and whether it is right."""

    question: Question
    text: str
    right: bool


@dataclass(frozen=True)
class Calibration:
    """Raw scores on validation samples, the least and the greatest of them; `threshold` has the
    best balanced accuracy there."""

    unit: str
    mean: float
    std: float
    threshold: float
    n: int
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, unit: str, scores: Sequence[float], threshold: float) -> Self:
        """What `scores` are spread like."""
        mean, std = float(np.mean(scores)), float(np.std(scores))
        return cls(unit, mean, std, threshold, len(scores), min(scores), max(scores))


def load_reasoner(folder: Path = REASONER) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The reasoner in float32 and the tokenizer of both models."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return model, tokenizer


def load_reward(folder: Path = REWARD) -> LlamaForSequenceClassification:
    """The classifier in float32."""
    model = LlamaForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    assert isinstance(model, LlamaForSequenceClassification)
    return model.eval()


def judge(sampler: Sampler, asked: Sequence[Question], times: int, seed: int) -> list[Judged]:
    """`times` samples per question, question by question."""
    each = [question for question in asked for _ in range(times)]
    prompts = [render(sampler.tokenizer, [{"role": "user", "content": q.text}], True) for q in each]
    texts = sampler.sample(prompts, seed)
    return [
        Judged(q, text, read_answer(text) == q.answer) for q, text in zip(each, texts, strict=True)
    ]


def conversation(tokenizer: PreTrainedTokenizerFast, judged: Judged) -> list[int]:
    """Token ids of the templated conversation, thinking and end marker included."""
    messages = [
        {"role": "user", "content": judged.question.text},
        {"role": "assistant", "content": judged.text},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert isinstance(text, str)
    return list(tokenizer.encode(text, add_special_tokens=False))


def encode(tokenizer: PreTrainedTokenizerFast, judged: Judged) -> Encoded:
    """(ids, labels): 0 or 1 on the last token, and on the end of each line of a derivation.

    The lines say "all right so far"; they only make learning faster, the score is read at the end.
    """
    ids = conversation(tokenizer, judged)
    labels = [IGNORED] * (len(ids) - 1) + [int(judged.right)]
    if "<think>" not in judged.text:
        return ids, labels
    newline = tokenizer.convert_tokens_to_ids("\u010a")
    start = ids.index(tokenizer.convert_tokens_to_ids("<think>"))
    ends = [i for i in range(start + 2, len(ids)) if ids[i] == newline]
    for end, right in zip(ends, right_so_far(judged), strict=False):
        labels[end] = IGNORED if right is None else int(right)
    return ids, labels


def right_so_far(judged: Judged) -> list[bool | None]:
    """For each line of thought: are it and all before it in its derivation right?

    Every style writes one step a line and its result last. None for lines without a result: a
    re-check's opening, after which the derivation begins anew.
    """
    lines = judged.text.removeprefix("<think>\n").split("</think>")[0].splitlines()
    expected = [line[3] for line in derive(judged.question.problem)]
    verdicts: list[bool | None] = []
    place, right = 0, True
    for line in lines:
        if "Wait" in line:
            place, right = 0, True
            verdicts.append(None)
            continue
        numbers = NUMBER.findall(line)
        due = expected[-1] if line.startswith("So") else (*expected, None)[place]
        right = right and bool(numbers) and int(numbers[-1]) == due
        place = min(place + 1, len(expected))
        verdicts.append(right)
    return verdicts


def label_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Binary cross-entropy of the logits at the labelled tokens."""
    assert isinstance(model, LlamaForSequenceClassification)
    hidden = model.model(input_ids=batch["input_ids"]).last_hidden_state
    labelled = batch["labels"] != IGNORED
    logits = model.score(hidden[labelled])[:, 0]
    targets = batch["labels"][labelled].float()
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)


@torch.inference_mode()
def score(
    model: LlamaForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    answers: Sequence[Judged],
    rows: int = 64,
) -> list[float]:
    """Raw logits, one per answer."""
    encoded = [conversation(tokenizer, judged) for judged in answers]
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    scores = [0.0] * len(encoded)
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        batch = tokenizer.pad(
            {"input_ids": [encoded[i] for i in chosen]}, padding_side="right", return_tensors="pt"
        )
        logits = model(**batch).logits[:, 0]
        for i, value in zip(chosen, logits.tolist(), strict=True):
            scores[i] = value
    return scores


def start(reasoner: LlamaForCausalLM) -> LlamaForSequenceClassification:
    """The reasoner's body with a new head of one label."""
    shape = reasoner.config.to_dict()
    for stale in ("architectures", "dtype", "id2label", "label2id"):
        shape.pop(stale, None)
    model = LlamaForSequenceClassification(type(reasoner.config)(**shape, num_labels=1))
    model.model.load_state_dict(reasoner.model.state_dict())
    return model


def draw_judged(rng: random.Random, asked: Sequence[Question]) -> Judged:
    """A worked answer with slips, in the reasoner's styles; re-checks slip as well."""
    question, style = rng.choice(asked), draw_style(rng)
    text, result = slipping(rng, question, style)
    for wait in draw_waits(rng, result == question.problem.answer):
        again, result = slipping(rng, question, "terse")
        text += wait + again
    right = result == question.problem.answer
    return Judged(question, f"<think>\n{text}{CLOSE}{write_answer(result)}", right)


def slipping(rng: random.Random, question: Question, style: Style) -> tuple[str, int]:
    """(one derivation, its result), each step wrong with a chance of `SLIP`."""
    steps = range(len(question.problem.program))
    slips = {step: rng.choice(ERRORS) for step in steps if rng.random() < SLIP}
    lines = derive(question.problem, slips)
    return write_trace(question.problem, style, slips), lines[-1][3]


def stream(
    tokenizer: PreTrainedTokenizerFast, answers: list[Judged], seed: int
) -> Iterator[Encoded]:
    """The samples over and over, each followed by an answer drawn anew; `batches` shuffles them."""
    rng = random.Random(f"answers:{seed}")
    asked = [judged.question for judged in answers]
    sampled = [encode(tokenizer, judged) for judged in answers]
    while True:
        for one in sampled:
            yield one
            yield encode(tokenizer, draw_judged(rng, asked))


def train(folder: Path = REWARD, recipe: Recipe = RECIPE) -> float:
    """Samples the reasoner, trains on right and wrong, saves model and calibration."""
    begin(recipe)
    reasoner, tokenizer = load_reasoner()
    sampler = Sampler(reasoner, tokenizer)
    answers = judge(sampler, list(questions("train", QUESTIONS, recipe.seed)), SAMPLES, recipe.seed)
    np.random.default_rng(recipe.seed).shuffle(answers)
    model = start(reasoner)
    assert isinstance(tokenizer.pad_token_id, int)
    source = batches(stream(tokenizer, answers, recipe.seed), recipe, tokenizer.pad_token_id)
    loss = fit(model, source, recipe, label_loss, "reward")
    save(model, tokenizer, folder)
    calibrate(folder, sampler)
    return loss


def calibrate(folder: Path, sampler: Sampler) -> Calibration:
    """Scores samples on validation questions and writes `calibration.json`."""
    answers = judge(sampler, held_out("validation"), CALIBRATION_SAMPLES, RECIPE.seed)
    scores = score(load_reward(folder), sampler.tokenizer, answers)
    threshold = best_threshold(scores, [judged.right for judged in answers])
    calibration = Calibration.of("logit", scores, threshold)
    text = json.dumps(asdict(calibration), indent=2) + "\n"
    (folder / "calibration.json").write_text(text, encoding="utf-8")
    return calibration
