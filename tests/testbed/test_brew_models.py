"""The brewers and their rewards as committed: in conflict, and as good as their cards say."""

import json
import random
from pathlib import Path

import pytest

from testbed import WEIGHTS
from testbed.brew_cards import CUT, WHOLE
from testbed.brew_rewards import REWARDS, good_enough, load_reward, score, value
from testbed.brewers import BASE, TILTS, load
from testbed.brews import brews, draw_answer
from testbed.measures import auroc
from testbed.reasoner import render
from testbed.sampling import Sampler
from testbed.training import LARGEST

FOLDERS = [WEIGHTS / name for name in (*TILTS, *REWARDS)]
FIGURES = {one.name: json.loads((one / "figures.json").read_text()) for one in FOLDERS}
ASKED = list(brews("test", 120, 77))


@pytest.mark.parametrize("at", FOLDERS, ids=lambda at: at.name)
def test_weights_are_small_bf16_with_card_and_figures(at: Path) -> None:
    assert (at / "model.safetensors").stat().st_size <= LARGEST
    assert json.loads((at / "config.json").read_text())["dtype"] == "bfloat16"
    card = (at / "README.md").read_text()
    for rows in FIGURES[at.name].values():
        figure = rows["all"]
        assert figure["low"] <= figure["value"] <= figure["high"]
        assert f"{figure['value']:.3f}" in card
        assert figure["n"] >= 500
    assert "apache-2.0" in card


def test_the_rewards_are_in_conflict() -> None:
    base, helpful, harmless = (
        {row: figures["all"]["value"] for row, figures in FIGURES[name].items()} for name in TILTS
    )
    assert helpful["helpfulness"] > base["helpfulness"] > harmless["helpfulness"]
    assert helpful["harmlessness"] < base["harmlessness"] < harmless["harmlessness"]
    assert helpful["within the limit"] < 0.5 < harmless["within the limit"]


@pytest.mark.parametrize("name", TILTS)
def test_a_policy_is_near_its_card_and_the_card_near_the_ideal(name: str) -> None:
    model, tokenizer = load(WEIGHTS / name)
    prompts = [render(tokenizer, [{"role": "user", "content": b.text}], True) for b in ASKED]
    texts = Sampler(model, tokenizer, limit=40).sample(prompts, 3)
    found = [value("helpfulness", one) for one in zip(ASKED, texts, strict=True)]
    card = {row: figures["all"]["value"] for row, figures in FIGURES[name].items()}
    assert sum(found) / len(found) == pytest.approx(card["helpfulness"], abs=0.8)
    assert card["helpfulness"] == pytest.approx(card["of an ideal one"], abs=0.8)
    assert card["as many steps as asked"] > 0.95


@pytest.mark.parametrize("name", REWARDS)
def test_a_reward_tells_what_is_good_enough(name: str) -> None:
    rng, tokenizer = random.Random(2), load(BASE)[1]
    tilts = list(TILTS.values())
    judged = [(b, draw_answer(rng, b, *tilts[at % len(tilts)])) for at, b in enumerate(ASKED)]
    scores = score(load_reward(WEIGHTS / name), tokenizer, judged)
    assert auroc(scores, [good_enough(name, one) for one in judged]) > 0.95
    card = FIGURES[name]
    for kind in (WHOLE, CUT):
        assert card[f"AUROC of good enough, {kind}"]["all"]["value"] > 0.95


@pytest.mark.parametrize("name", REWARDS)
def test_calibration_is_complete(name: str) -> None:
    calibration = json.loads((WEIGHTS / name / "calibration.json").read_text())
    assert set(calibration) >= {"unit", "mean", "std", "threshold", "n"}
    assert calibration["std"] > 0 and calibration["n"] >= 500
