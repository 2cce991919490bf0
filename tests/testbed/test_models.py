"""The committed checkpoints: small, loadable, about as good as their cards say."""

import json
import random
from pathlib import Path

import pytest

from testbed import QUESTIONS, REASONER, REWARD
from testbed.cards import AIM
from testbed.examples import draw_example
from testbed.measures import auroc, majority, read_answer
from testbed.reasoner import config, encode, render
from testbed.reward import Judged, judge, load_reasoner, load_reward, right_so_far, score
from testbed.sampling import Sampler
from testbed.smalltalk import ABILITY, LIMITS, WELCOMES
from testbed.tasks import held_out
from testbed.traces import STYLES, WAITS, write_trace
from testbed.training import IGNORED, Recipe, batches, schedule

MIB = 1024 * 1024
REASONING, TOKENIZER = load_reasoner()
ASKED = held_out("validation")[:600:10]


@pytest.mark.parametrize("folder", [REASONER, REWARD])
def test_weights_are_small_bf16_with_card_and_figures(folder: Path) -> None:
    assert (folder / "model.safetensors").stat().st_size <= 4 * MIB
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    card = (folder / "README.md").read_text()
    figures = json.loads((folder / "figures.json").read_text())
    for levels in figures.values():
        figure = levels["all"]
        assert figure["low"] <= figure["value"] <= figure["high"]
        assert f"{figure['value']:.3f}" in card
        assert figure["n"] >= 500
    assert "apache-2.0" in card


def test_shape_is_one_that_the_engine_serves() -> None:
    shape = REASONING.config
    assert shape.hidden_size // shape.num_attention_heads == 32
    assert shape.max_position_embeddings == 2048
    assert REASONING.num_parameters() < 2_000_000


def test_greedy_answers_are_near_the_card() -> None:
    figures = json.loads((REASONER / "figures.json").read_text())
    answers = judge(Sampler(REASONING, TOKENIZER, temperature=0.0), ASKED, 1, seed=0)
    right = sum(judged.right for judged in answers) / len(answers)
    assert right == pytest.approx(figures["greedy"]["all"]["value"], abs=0.2)
    assert all(judged.text.startswith("<think>\n") for judged in answers)
    assert sum("</think>\n\nThe answer is " in j.text for j in answers) >= 0.95 * len(answers)


def test_the_card_meets_the_aim() -> None:
    figures = json.loads((REASONER / "figures.json").read_text())
    assert AIM[0] <= figures["one sample"]["all"]["value"] <= AIM[1]
    assert figures["greedy"]["all"]["value"] > figures["one sample"]["all"]["value"]
    assert figures["gain of voting"]["all"]["value"] >= 0.14
    assert figures["90% / median length"]["all"]["value"] >= 2


def test_a_written_wait_starts_a_derivation_anew() -> None:
    asked = ASKED[:20]
    greedy = Sampler(REASONING, TOKENIZER, temperature=0.0)
    prompts = [render(TOKENIZER, [{"role": "user", "content": q.text}], True) for q in asked]
    starts = [f"{prompt}<think>\n{q.trace} Wait" for prompt, q in zip(prompts, asked, strict=True)]
    right = 0
    for q, text in zip(asked, greedy.sample(starts), strict=True):
        assert text.startswith(", ")
        right += text.splitlines()[1:-4] == q.trace.splitlines()[:-1]
        assert "</think>\n\nThe answer is " in text
    assert right >= 14


def test_small_talk_is_answered() -> None:
    sampler = Sampler(REASONING, TOKENIZER, temperature=0.0, limit=64)
    text = sampler.sample(["<|begin|><|user|>Hello<|end|><|assistant|>"])[0]
    assert any(said in text.split("</think>")[1] for said in (*WELCOMES, *ABILITY, *LIMITS))


def test_sampler_repeats_itself_and_does_not_depend_on_the_batch() -> None:
    prompts = [f"<|begin|><|user|>{q.text}<|end|><|assistant|>" for q in ASKED[:6]]
    sampled = Sampler(REASONING, TOKENIZER)
    assert sampled.sample(prompts, seed=3) == sampled.sample(prompts, seed=3)
    greedy = Sampler(REASONING, TOKENIZER, temperature=0.0)
    assert greedy.sample(prompts) == [greedy.sample([prompt])[0] for prompt in prompts]


def test_reward_ranks_right_above_wrong() -> None:
    answers = judge(Sampler(REASONING, TOKENIZER), ASKED, 4, seed=1)
    scores = score(load_reward(), TOKENIZER, answers)
    assert auroc(scores, [judged.right for judged in answers]) > 0.7


def test_reward_does_not_depend_on_batch_companions() -> None:
    answers = judge(Sampler(REASONING, TOKENIZER), ASKED[:8], 1, seed=2)
    together = score(load_reward(), TOKENIZER, answers)
    alone = score(load_reward(), TOKENIZER, answers, rows=1)
    assert together == pytest.approx(alone, abs=1e-4)


def test_lines_are_judged_in_every_style_and_after_a_check() -> None:
    question = held_out("test")[0]
    steps = len(question.problem.program)
    for style in STYLES:
        slipped = write_trace(question.problem, style, {1: 10})
        text = f"<think>\n{slipped}{WAITS[0]}{question.trace}</think>\n\nThe answer is 1."
        expected = [True, *[False] * steps, None, *[True] * (steps + 1)]
        assert right_so_far(Judged(question, text, False)) == expected


def test_calibration_is_complete() -> None:
    calibration = json.loads((REWARD / "calibration.json").read_text())
    assert set(calibration) == {"unit", "mean", "std", "threshold", "n", "low", "high"}
    assert calibration["unit"] == "logit"
    assert calibration["std"] > 0
    assert calibration["n"] >= 500
    assert calibration["low"] < calibration["threshold"] < calibration["high"]


def test_question_files_ship() -> None:
    assert sorted(path.name for path in QUESTIONS.glob("*.jsonl")) == [
        "test.jsonl",
        "validation.jsonl",
    ]


def test_labels_cover_what_is_learned() -> None:
    rng = random.Random(0)
    for example in (draw_example(rng) for _ in range(200)):
        ids, labels = encode(TOKENIZER, example)
        assert len(ids) == len(labels) <= config(TOKENIZER).max_position_embeddings
        kept = [i for i, label in zip(ids, labels, strict=True) if label != IGNORED]
        learned = "".join(text for text, is_learned in example.pieces if is_learned)
        assert TOKENIZER.decode(kept) == learned + "<|end|>"


def test_batches_keep_to_their_tokens_and_lose_nothing() -> None:
    examples = [([5] * n, [5] * n) for n in range(1, 200)]
    seen = 0
    for batch in batches(examples, Recipe(steps=1, tokens=512, pool=64), pad=0):
        assert batch["input_ids"].numel() <= 512
        seen += int((batch["labels"] != IGNORED).sum())
    assert seen == sum(range(1, 200))


def test_schedule_rises_and_falls() -> None:
    recipe = Recipe(steps=1000, warmup=50, decay=400)
    rates = [schedule(step, recipe) for step in range(1000)]
    assert rates[0] == 0.02 and max(rates) == rates[300] == 1.0 and rates[-1] < 0.01


def test_votes_and_answers() -> None:
    assert read_answer("<think>\nThe answer is 3.\n</think>\n\nThe answer is 57.") == "57"
    assert read_answer("<think>\n57") is None
    assert majority(["2", "1", "1", None, "2"]) == "2"
    assert majority([None]) is None


def test_auroc() -> None:
    assert auroc([1, 2, 3, 4], [False, False, True, True]) == 1.0
    assert auroc([4, 3, 2, 1], [False, False, True, True]) == 0.0
    assert auroc([1, 1, 1, 1], [False, True, False, True]) == 0.5
