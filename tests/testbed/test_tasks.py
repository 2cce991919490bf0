"""Problems, questions and splits: deterministic, right, and held-out means held out."""

import hashlib
import itertools
import json
import random
import re
from collections import Counter

import pytest

from testbed import QUESTIONS
from testbed.examples import FIRST_LEVELS, SHARES, draw_example, draw_first_example
from testbed.problems import FAMILIES, LEVELS, Problem, derive, draw_problem
from testbed.tasks import HELD_OUT, held_out, questions
from testbed.templates import TEMPLATES
from testbed.traces import (
    CHECK_RIGHT,
    CHECK_WRONG,
    ROUNDS,
    SLIPPING,
    STYLES,
    Style,
    draw_slips,
    draw_thinking,
    draw_waits,
    write_trace,
)

EQUATION = re.compile(r"(\d+[+*]\d+)=(\d+)")


def remainder(problem: Problem) -> int:
    return int(hashlib.sha256(problem.canonical.encode()).hexdigest(), 16) % 10


def test_training_conversations_hold_no_held_out_problem() -> None:
    rng = random.Random("examples:7")
    trained = [p for _ in range(20_000) for p in draw_example(rng).problems]
    assert len(trained) > 18_000
    assert {remainder(problem) for problem in trained} == set(range(2, 10))
    held = {q.problem.canonical for split in HELD_OUT for q in held_out(split)}
    assert not held & {problem.canonical for problem in trained}


def test_first_examples_are_easy_right_and_from_training() -> None:
    rng = random.Random("examples:7")
    for example in (draw_first_example(rng) for _ in range(2000)):
        (problem,) = example.problems
        assert problem.level in FIRST_LEVELS and problem.split == "train"
        assert example.pieces[0][0].endswith(f"The answer is {evaluate(problem)}.")


def test_splits_follow_the_hash() -> None:
    for split, expected in (("test", {0}), ("validation", {1}), ("train", set(range(2, 10)))):
        drawn = list(questions(split, 600, seed=3))  # type: ignore[arg-type]
        assert {remainder(q.problem) for q in drawn} == expected
        assert {q.split for q in drawn} == {split}


def test_order_of_products_does_not_change_the_split() -> None:
    pairs = [(24, 3), (17, 5), (31, 2)]
    orders = [
        Problem("sum", 2, tuple(n for pair in order for n in pair))
        for order in itertools.permutations(pairs)
    ]
    assert len({problem.canonical for problem in orders}) == 1


def test_questions_are_deterministic_and_seeded() -> None:
    assert list(questions("test", 300, seed=1)) == list(questions("test", 300, seed=1))
    assert list(questions("test", 300, seed=1)) != list(questions("test", 300, seed=2))
    long, short = list(questions("test", 300, seed=1)), list(questions("test", 100, seed=1))
    assert long[:100] == short


def test_levels_are_respected() -> None:
    assert {q.level for q in questions("train", 200, levels=(2, 4))} == {2, 4}


@pytest.mark.parametrize("split", HELD_OUT)
def test_question_files_are_what_the_generator_writes(split: str) -> None:
    lines = (QUESTIONS / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    drawn = held_out(split)  # type: ignore[arg-type]
    assert [(r["id"], r["template"], r["level"], r["prompt"], r["answer"]) for r in rows] == [
        (q.id, q.template, q.level, q.text, q.answer) for q in drawn
    ]
    assert len({row["prompt"] for row in rows}) == len(rows) == HELD_OUT[split]  # type: ignore[index]
    counts = Counter((row["template"], row["level"]) for row in rows)
    assert len(counts) == len(TEMPLATES) * len(LEVELS)
    assert max(counts.values()) == min(counts.values())


def evaluate(problem: Problem) -> int:
    """The answer by Python's own arithmetic, not by the program."""
    if problem.family == "sum":
        return int(eval("+".join(f"{a}*{b}" for a, b in problem.pairs)))
    value = str(problem.numbers[0])
    for op, number in zip(problem.ops, problem.numbers[1:], strict=True):
        value = f"({value}{op}{number})"
    return int(eval(value))


def test_answers_are_right() -> None:
    for q in questions("train", 1200, seed=9):
        assert int(q.answer) == evaluate(q.problem)


@pytest.mark.parametrize("style", STYLES)
def test_every_equation_of_a_trace_holds(style: Style) -> None:
    for q in questions("train", 600, seed=9):
        *steps, last = write_trace(q.problem, style).splitlines()
        assert last == f"So {q.answer}."
        assert len(steps) == len(q.problem.program)
        for left, right in EQUATION.findall("\n".join(steps)):
            assert eval(left) == int(right)
        assert [int(step.rsplit("=")[-1]) for step in steps] == [
            line[3] for line in derive(q.problem)
        ]


def test_styles_differ_in_length_alone() -> None:
    problem = draw_problem(random.Random(2), "sum", 3)
    terse, medium, wordy = (len(write_trace(problem, style)) for style in STYLES)
    assert 1.2 * terse < medium < wordy and wordy > 3 * terse


@pytest.mark.parametrize("style", STYLES)
def test_a_slip_changes_the_results_from_there(style: Style) -> None:
    problem = draw_problem(random.Random(1), "sum", 3)
    clean, slipped = derive(problem), derive(problem, {2: 10})
    assert slipped[2][3] == clean[2][3] + 10
    assert slipped[-1][3] == clean[-1][3] + 10
    assert write_trace(problem, style, {2: 10}).endswith(f"So {problem.answer + 10}.\n")


def test_slips_and_checks_come_in_their_shares() -> None:
    rng = random.Random(8)
    problem = draw_problem(rng, "chain", 3)
    for style, share in SLIPPING.items():
        slipped = sum(bool(draw_slips(rng, problem, style)) for _ in range(4000))
        assert slipped / 4000 == pytest.approx(share, abs=0.03)
    for right, share in ((True, CHECK_RIGHT), (False, CHECK_WRONG)):
        rounds = [len(list(draw_waits(rng, right))) for _ in range(4000)]
        assert sum(map(bool, rounds)) / 4000 == pytest.approx(share, abs=0.03)
        assert max(rounds) == ROUNDS


def test_a_check_derives_the_right_result() -> None:
    rng = random.Random(3)
    corrected = 0
    for q in questions("train", 600, seed=2):
        thinking, result = draw_thinking(rng, q.problem)
        first, *checks = thinking.split("\n Wait")
        assert thinking.endswith(f"So {result}.\n")
        assert result == q.problem.answer or not checks
        corrected += bool(checks) and not first.endswith(f"So {result}.")
    assert corrected > 30


def test_every_wording_shows_every_number() -> None:
    rng = random.Random(4)
    for template in TEMPLATES.values():
        problem = draw_problem(rng, template.family, 5)
        shown = Counter(map(int, re.findall(r"\d+", template.render(problem))))
        assert shown == Counter(problem.numbers)
    assert Counter(t.family for t in TEMPLATES.values()) == dict.fromkeys(FAMILIES, 12)


def test_kinds_come_in_their_shares() -> None:
    rng = random.Random(5)
    kinds = Counter(draw_example(rng).kind for _ in range(20_000))
    for kind, share in SHARES.items():
        assert kinds[kind] / 20_000 == pytest.approx(share, abs=0.01)
