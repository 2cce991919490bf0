"""The policies of the errands and their reward as committed: about as good as their cards say."""

import json
import random
from pathlib import Path

import pytest

from testbed import outcome_reward, specialists
from testbed.errand_cards import answers, measure_reward
from testbed.errands import HELD_OUT_SEED, KINDS, lists
from testbed.measures import auroc
from testbed.outcome_reward import load_reward, score
from testbed.specialists import BASE, NAMES, WISH, folder, load_policy
from testbed.training import LARGEST

FOLDERS = [folder(name) for name in (*NAMES, outcome_reward.NAME)]
FIGURES = {one.name: json.loads((one / "figures.json").read_text()) for one in FOLDERS}
ASKED = list(lists("test", 90, HELD_OUT_SEED))


@pytest.mark.parametrize("at", FOLDERS, ids=lambda at: at.name)
def test_weights_are_small_bf16_with_card_and_figures(at: Path) -> None:
    assert (at / "model.safetensors").stat().st_size <= LARGEST
    assert json.loads((at / "config.json").read_text())["dtype"] == "bfloat16"
    card = (at / "README.md").read_text()
    for rows in FIGURES[at.name].values():
        for figure in rows.values():
            assert figure["low"] <= figure["value"] <= figure["high"]
            assert f"{figure['value']:.3f}" in card
            assert figure["n"] >= 500
    assert "apache-2.0" in card


def test_each_specialist_does_its_own_kind_well_and_the_others_badly() -> None:
    for name in KINDS:
        greedy = FIGURES[f"errands_{name}"]["greedy"]
        for kind in KINDS:
            if kind == name:
                assert greedy[kind]["value"] > 0.9
            else:
                assert greedy[kind]["value"] < 0.2
    assert FIGURES[f"errands_{BASE}"]["sampled"]["reward"]["value"] < 0.2
    assert FIGURES[f"errands_{WISH}"]["sampled"]["reward"]["value"] > 0.8


@pytest.mark.parametrize("name", KINDS)
def test_a_specialist_is_about_as_good_as_its_card_says(name: str) -> None:
    rewards = [one.reward for one in answers(name, ASKED, 1.0)]
    card = FIGURES[f"errands_{name}"]["sampled"]["reward"]["value"]
    assert sum(rewards) / len(rewards) == pytest.approx(card, abs=0.1)


def test_all_share_one_vocabulary() -> None:
    known = load_policy(BASE)[1].get_vocab()
    for name in NAMES:
        assert load_policy(name)[1].get_vocab() == known


def test_the_reward_tells_more_from_less() -> None:
    outcomes = [one for name in (BASE, *KINDS, WISH) for one in answers(name, ASKED[:30], 1.0)]
    scores = score(load_reward(), load_policy(BASE)[1], outcomes)
    assert auroc(scores, [one.reward > 0.5 for one in outcomes]) > 0.9
    card = FIGURES["errands_reward"]["value"]["mean absolute error"]["value"]
    found = measure_reward(outcomes)["mean absolute error"].value
    assert found == pytest.approx(card, abs=0.06)


def test_the_reward_reads_mistakes_that_no_policy_made() -> None:
    rng, tokenizer = random.Random(1), load_policy(BASE)[1]
    judged = []
    for asked in ASKED:
        text = specialists.answer(rng, asked, dict.fromkeys(KINDS, outcome_reward.HALF))
        judged.append(outcome_reward.Outcome(asked, text))
    scores = score(load_reward(), tokenizer, judged)
    assert auroc(scores, [one.reward > 0.5 for one in judged]) > 0.85


def test_the_labels_say_what_is_right_so_far_and_the_last_one_the_outcome() -> None:
    asked, tokenizer = ASKED[0], load_policy(BASE)[1]
    first, second, third = asked.answers
    wrong = "ZZZ" if third != "ZZZ" else "AAA"
    outcome = outcome_reward.Outcome(asked, f"{first};{second};{wrong}")
    ids, labels = outcome_reward.encode(tokenizer, outcome, None)
    assert len(ids) == len(labels)
    assert labels[-1] == labels[-2] == 667
    assert [one for one in labels if one >= 0][:4] == [333] * 4
    assert outcome_reward.so_far(asked, f"{first};{second};{third};") == 1
    assert outcome_reward.so_far(asked, f"{first};{second};{third};x") == 1
    cut_ids, cut_labels = outcome_reward.encode(tokenizer, outcome, 5)
    assert len(cut_ids) < len(ids) and cut_labels[-1] == 667


def test_calibration_is_complete() -> None:
    calibration = json.loads((folder(outcome_reward.NAME) / "calibration.json").read_text())
    assert set(calibration) >= {"unit", "mean", "std", "threshold", "n"}
    assert calibration["std"] > 0 and calibration["n"] >= 500
