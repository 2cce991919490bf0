"""The lists of small tasks: right, split by task, repeatable; and who answers how."""

import json
import random
from collections import Counter
from math import log
from pathlib import Path

import pytest

from testbed import ERRANDS
from testbed.errands import (
    CODES,
    DRAW,
    HELD_OUT,
    HELD_OUT_SEED,
    KINDS,
    ORDERS,
    Kind,
    draw_errand,
    join,
    lists,
    reward,
    right,
    write_errands,
)
from testbed.specialists import (
    BASE,
    BETA,
    CARELESS,
    NAMES,
    WISH,
    answer,
    cares,
    encode,
    make_tokenizer,
    stream,
)
from testbed.training import IGNORED


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_is_right_and_its_mistakes_are_wrong(kind: Kind) -> None:
    rng = random.Random(3)
    for _ in range(300):
        errand = DRAW[kind](rng)
        assert errand.answer == solved(errand.text)
        assert errand.wrong
        assert errand.answer not in {errand.lazy, *errand.wrong}


def solved(text: str) -> str:
    """The answer read from the wording, by another way than the generator's."""
    kind, given = text.rstrip(".").split()
    if kind == "Sort":
        return "".join(sorted(given))
    if kind == "Raise":
        return given.translate(str.maketrans("0123456789", "1234567890"))
    return "".join(CODES[letter] for letter in given)


def test_no_task_of_a_held_out_list_is_ever_trained_on() -> None:
    held = {
        errand.canonical
        for split in HELD_OUT
        for asked in lists(split, HELD_OUT[split], HELD_OUT_SEED)
        for errand in asked.errands
    }
    trained = {errand.canonical for asked in lists("train", 20_000, 1) for errand in asked.errands}
    assert len(held) > 1000
    assert len(trained) > 10_000
    assert not held & trained
    rng = random.Random(4)
    assert {draw_errand(rng, "test", "code").split for _ in range(100)} == {"test"}


def test_what_policies_are_trained_on_is_of_the_training_split() -> None:
    tokenizer = make_tokenizer()
    test = {asked.text for asked in lists("test", HELD_OUT["test"], HELD_OUT_SEED)}
    for name, _ in zip(NAMES, range(len(NAMES)), strict=True):
        for (ids, _), _ in zip(stream(tokenizer, name, 1), range(200), strict=False):
            prompt = tokenizer.decode(ids).split("<|user|>")[1].split("<|end|>")[0]
            assert prompt not in test
            tasks = [task.lower().split() for task in prompt.rstrip(".").split(". ")]
            assert all(hashed(f"{kind} {given.upper()}") >= 2 for kind, given in tasks)


def hashed(canonical: str) -> int:
    from hashlib import sha256

    return int(sha256(canonical.encode()).hexdigest(), 16) % 10


def test_orders_take_turns_and_nothing_repeats() -> None:
    found = list(lists("validation", 60, 1))
    assert found == list(lists("validation", 60, 1))
    assert found != list(lists("validation", 60, 2))
    assert len({one.text for one in found}) == 60
    assert set(Counter(one.order for one in found).values()) == {60 // len(ORDERS)}


def test_a_reward_is_a_share_with_a_true_zero() -> None:
    answers = ["60", "GJM", "47"]
    assert reward(answers, join(answers)) == 1
    assert reward(answers, "60;GJM;48") == pytest.approx(2 / 3)
    assert reward(answers, "60") == pytest.approx(1 / 3)
    assert reward(answers, "GJM;60;7") == reward(answers, "") == 0
    assert reward(answers, "60;GJM;47;47") == 3 / 4
    assert right(answers, "60;;47") == [True, False, True]


def test_each_specialist_cares_for_one_kind_and_the_wish_is_the_tilted_base() -> None:
    rng, asked = random.Random(5), list(lists("train", 3000, 1))
    shares = {}
    for name in NAMES:
        hits: Counter[str] = Counter()
        for one in asked:
            said = answer(rng, one, cares(name))
            hits.update(
                errand.kind
                for errand, hit in zip(one.errands, right(one.answers, said), strict=True)
                if hit
            )
        shares[name] = {kind: hits[kind] / len(asked) for kind in KINDS}
    for kind in KINDS:
        assert shares[kind][kind] > 0.9
        assert all(shares[kind][other] < 0.1 for other in KINDS if other != kind)
        assert shares[BASE][kind] < 0.1
        # A segment's odds under the wish are the base's times exp(its reward / beta).
        odds = cares(WISH)[kind].right / (1 - cares(WISH)[kind].right)
        base = CARELESS.right / (1 - CARELESS.right)
        assert log(odds / base) == pytest.approx(1 / (len(KINDS) * BETA))


def test_letters_digits_and_separators_are_tokens_of_their_own() -> None:
    tokenizer = make_tokenizer()
    ids, labels = encode(tokenizer, next(lists("train", 1)).text, "60;GJM;47")
    learned = [token for token in labels if token != IGNORED]
    assert tokenizer.convert_ids_to_tokens(learned) == [*"60;GJM;47", "<|end|>"]
    assert ids[-len(learned) :] == learned


def test_the_files_are_what_is_drawn(tmp_path: Path) -> None:
    write_errands(tmp_path)
    for split, n in HELD_OUT.items():
        text = (tmp_path / f"{split}.jsonl").read_text()
        assert (ERRANDS / f"{split}.jsonl").read_text() == text
        rows = [json.loads(line) for line in text.splitlines()]
        assert len(rows) == len({row["prompt"] for row in rows}) == n
