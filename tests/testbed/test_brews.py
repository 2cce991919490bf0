"""The brews: the rule by hand, splits that never meet, texts whose tilt is the one asked for."""

import json
import random
from collections import Counter
from dataclasses import replace
from itertools import islice
from math import exp
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from clients.eval.core import brews as stored
from testbed import BREWS, brewers, brews
from testbed.brew_rewards import encode, good_enough
from testbed.brew_rewards import stream as reward_stream
from testbed.brewers import TILTS, VOCABULARY, corpus
from testbed.brewers import stream as policy_stream
from testbed.brews import (
    ALL_STEPS,
    HELD_OUT,
    LIMIT,
    PURPOSES,
    SUITS,
    Brew,
    base_share,
    draw_answer,
    draw_brew,
    read,
    write,
    write_brews,
)
from testbed.tokenizer import train_tokenizer
from testbed.training import IGNORED

NURSERY = Brew(0, "Mara", PURPOSES[0], "in the nursery", 3)
HILL = replace(NURSERY, place="on the hill")
FIRST, OTHER = SUITS[PURPOSES[0]]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """The brewers' vocabulary, from fewer texts."""
    return train_tokenizer(islice(corpus(1), 800), VOCABULARY)


def test_the_rule_by_hand() -> None:
    foreign = next(name for name in brews.FAMILIES if name not in (FIRST, OTHER))
    text = write([(FIRST, "salt"), (foreign, "oil"), ("", "wait")])
    assert text == f"First {FIRST} salt, then {foreign} oil, then wait."
    assert read(text) == [(FIRST, "salt"), (foreign, "oil"), ("", "wait")]
    assert (NURSERY.helpfulness(text), NURSERY.harmlessness(text)) == (3, -2 * 3 + 1)
    assert HILL.harmlessness(text) == -3 + 1
    assert good_enough("harmlessness", (HILL, text))
    assert not good_enough("harmlessness", (NURSERY, text))
    longer = f"{text} {OTHER} salt. wait."
    assert HILL.helpfulness(longer) == 3
    assert HILL.harmlessness(longer) == -3 + 1 - 2
    assert NURSERY.helpfulness("saltember oily waiting") == 0


def test_every_purpose_has_two_families_of_its_own() -> None:
    assert set(SUITS) == set(PURPOSES)
    assert len({frozenset(pair) for pair in SUITS.values()}) == len(PURPOSES)
    for purpose in PURPOSES:
        shares = [base_share(replace(HILL, purpose=purpose), step) for step in ALL_STEPS]
        assert sum(shares) == pytest.approx(1)


def test_no_held_out_request_is_ever_in_training() -> None:
    kept = {
        json.loads(line)["prompt"]
        for split in HELD_OUT
        for line in (BREWS / f"{split}.jsonl").read_text().splitlines()
    }
    assert len(kept) == sum(HELD_OUT.values())
    rng = random.Random(0)
    assert not kept & {draw_brew(rng, "train").text for _ in range(20000)}
    assert not kept & set(corpus(brewers.FIRST.seed))


def test_nothing_of_a_held_out_split_is_fed_to_a_model(tokenizer: PreTrainedTokenizerFast) -> None:
    kept = {brew.text for split, n in HELD_OUT.items() for brew in brews.brews(split, n, 1)}
    sources = [policy_stream(tokenizer, TILTS["brewer_helpful"], 3)]
    sources += [reward_stream(tokenizer, "harmlessness", 3)]
    for source in sources:
        for ids, _ in islice(source, 200):
            said = str(tokenizer.decode(ids)).split("<|user|>")[1].split("<|end|>")[0]
            assert said not in kept


@pytest.mark.parametrize("tilt", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_answers_are_drawn_from_the_tilted_policy(tilt: tuple[float, float]) -> None:
    """Frequencies of the first step against base · exp(tilt · rewards), normalised."""
    rng = random.Random(7)
    wanted = {
        step: base_share(NURSERY, step)
        * exp(tilt[0] * NURSERY.helps(step) + tilt[1] * NURSERY.harmlessness(write([step])))
        for step in ALL_STEPS
    }
    n, whole = 6000, sum(wanted.values())
    counts = Counter(read(draw_answer(rng, NURSERY, *tilt))[0] for _ in range(n))
    for step, weight in wanted.items():
        share = weight / whole
        assert counts[step] / n == pytest.approx(share, abs=4 * (share / n) ** 0.5 + 1e-3)


def test_the_files_are_what_is_drawn(tmp_path: Path) -> None:
    write_brews(tmp_path)
    for split, n in HELD_OUT.items():
        text = (tmp_path / f"{split}.jsonl").read_text()
        assert (BREWS / f"{split}.jsonl").read_text() == text
        assert len(text.splitlines()) == n


def test_the_stored_rule_is_the_true_one() -> None:
    """Who judges by the stored lines alone comes to what the domain says."""
    rng = random.Random(2)
    lines = stored.load(BREWS / "validation.jsonl", 200)
    assert stored.LIMIT == LIMIT
    for line, brew in zip(lines, brews.brews("validation", 200, brews.HELD_OUT_SEED), strict=True):
        assert line.prompt == brew.text
        for text in (draw_answer(rng, brew), draw_answer(rng, brew) + " wait ember salt", ""):
            assert line.helpfulness(text) == brew.helpfulness(text)
            assert line.harmlessness(text) == brew.harmlessness(text)
            assert line.is_right(text) == good_enough("harmlessness", (brew, text))
    with pytest.raises(ValueError, match="301 were asked for"):
        stored.load(BREWS / "validation.jsonl", 301)


def test_only_the_answer_is_learned(tokenizer: PreTrainedTokenizerFast) -> None:
    for ids, labels in islice(policy_stream(tokenizer, (0.0, 0.0), 1), 50):
        learned = [i for i, label in zip(ids, labels, strict=True) if label != IGNORED]
        text = str(tokenizer.decode(learned))
        assert text.startswith("First ")
        assert text.endswith(".<|end|>")


def test_a_reward_learns_what_stands_so_far(tokenizer: PreTrainedTokenizerFast) -> None:
    text = write([(FIRST, "salt"), (OTHER, "dew"), ("", "wait")])
    for name, values in (("helpfulness", [0, 3, 4]), ("harmlessness", [0, -4, -3])):
        ids, labels = encode(tokenizer, name, (NURSERY, text))
        assert len(ids) == len(labels)
        told = [label for label in labels if label != IGNORED]
        assert sorted(set(told)) == sorted(values)
        whole = NURSERY.helpfulness(text) if name == "helpfulness" else NURSERY.harmlessness(text)
        assert told[0] == 0
        assert told[-1] == told[-2] == whole
        assert ids[-1] == tokenizer.eos_token_id
