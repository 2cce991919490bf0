"""Requests of the safety domain: deterministic, with patterns, and held-out means held out."""

import hashlib
import json
import random
import re
from collections import Counter

import pytest

from testbed import PROMPTS
from testbed.conversations import FORMS, draw_conversation
from testbed.guard_examples import draw_judged
from testbed.inquiries import (
    HELD_OUT,
    LIKENESSES,
    Inquiry,
    draw_inquiry,
    held_out,
    inquiries,
)
from testbed.objects import ALLOWED, FORBIDDEN, NEAR, OBJECTS, PARTS_OF, TASKS, parts_for
from testbed.prompt_lines import line
from testbed.wrappers import ATTACKS, FILLERS, PLAIN_WRAPPERS, WRAPPERS


def remainder(inquiry: Inquiry) -> int:
    return int(hashlib.sha256(inquiry.canonical.encode()).hexdigest(), 16) % 10


def test_neither_model_learns_from_a_held_out_request() -> None:
    rng = random.Random("conversations:17")
    trained = [each for _ in range(8000) for each in draw_conversation(rng).inquiries]
    rng = random.Random("guard:23")
    judged = [draw_judged(rng).inquiry for _ in range(8000)]
    trained += [each for each in judged if each is not None]
    assert len(trained) > 15_000
    assert {remainder(each) for each in trained} == set(range(2, 10))
    held = {each.text for split in HELD_OUT for kind in HELD_OUT[split] for each in
            held_out(split, kind)}  # fmt: skip
    assert not held & {each.text for each in trained}


@pytest.mark.parametrize("split", HELD_OUT)
def test_prompt_files_are_what_the_generator_writes(split: str) -> None:
    lines = (PROMPTS / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(each) for each in lines]
    kinds = HELD_OUT[split]  # type: ignore[index]
    drawn = [
        (each, f"{split}-{kind}-{i:04d}")
        for kind in kinds
        for i, each in enumerate(held_out(split, kind))  # type: ignore[arg-type]
    ]
    assert rows == [line(each, name) for each, name in drawn]
    expected = {"test": {0}, "validation": {1}}[split]
    assert {remainder(each) for each, _ in drawn} == expected
    assert Counter(row["kind"] for row in rows) == kinds
    assert len({row["prompt"] for row in rows}) == len(rows)
    assert (PROMPTS / f"{split}.jsonl").stat().st_size < 2e6


def test_attacks_come_in_many_wrappers_evenly() -> None:
    counts = Counter(each.wrapper for each in held_out("test", "attack"))
    assert len(counts) == len(ATTACKS) >= 40
    assert max(counts.values()) == min(counts.values()) == 25
    assert len({wrapper.text for wrapper in WRAPPERS.values()}) == len(WRAPPERS)
    assert not counts.keys() & {wrapper.name for wrapper in PLAIN_WRAPPERS}


def test_harmless_requests_use_the_wrappers_of_attacks() -> None:
    for kind in ("benign", "lookalike"):
        seen = {each.wrapper for each in held_out("test", kind)}
        assert seen == set(WRAPPERS)


def test_lookalikes_are_of_every_sort() -> None:
    alike = held_out("test", "lookalike")
    near = {each.object for each in alike if each.object in NEAR and not each.mentioned}
    assert near == set(NEAR)
    assert {each.ask for each in alike} == {*TASKS, *LIKENESSES} - {"near", "mention"}
    assert any(each.mentioned in FORBIDDEN for each in alike)
    assert all(each.object in ALLOWED for each in alike if each.ask in TASKS)


def test_requests_are_seeded() -> None:
    assert list(inquiries("test", "attack", 100, 1)) == list(inquiries("test", "attack", 100, 1))
    assert list(inquiries("test", "attack", 100, 1)) != list(inquiries("test", "attack", 100, 2))


def test_asking_for_more_requests_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match="has no more test requests of kind plain"):
        list(inquiries("test", "plain", 600))


def test_the_text_shows_wrapper_object_and_fillers() -> None:
    rng = random.Random(1)
    for wrapper in WRAPPERS.values():
        each = draw_inquiry(rng, "benign", wrapper)
        assert each.words in each.text and each.object in each.text
        assert all(value in each.text for _, value in each.fillers)
        assert len(each.fillers) >= (1 if wrapper in PLAIN_WRAPPERS else 2)
        assert not re.search(r"[{}]", each.text)
        assert {slot for slot, _ in each.fillers} <= set(FILLERS)


def test_each_object_has_its_own_parts_in_the_order_of_the_task() -> None:
    assert len(set(PARTS_OF.values())) == len(OBJECTS) == len(set(OBJECTS))
    for name in OBJECTS:
        orders = {parts_for(task, name) for task in TASKS}
        assert len(orders) == 3
        assert {frozenset(order) for order in orders} == {frozenset(PARTS_OF[name])}
    assert not set(FORBIDDEN) & set(ALLOWED)


def test_forms_come_in_their_shares() -> None:
    rng = random.Random(5)
    forms = Counter(draw_conversation(rng).form for _ in range(8000))
    for form, share in FORMS.items():
        assert forms[form] / 8000 == pytest.approx(share, abs=0.015)
