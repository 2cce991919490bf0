"""Questions: a problem in one wording with its answer and thinking trace, seeded and split.

Pure Python. Knows nothing of tokens, chat templates or models.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.problems import LEVELS, Problem, Split, problem_in
from testbed.splits import write_split
from testbed.templates import TEMPLATES
from testbed.traces import write_trace

HELD_OUT: dict[Split, int] = {"test": 1200, "validation": 600}
HELD_OUT_SEED = 2024


@dataclass(frozen=True)
class Question:
    """One question; `trace` is its shortest thinking, without markers."""

    id: str
    template: str
    level: int
    split: Split
    text: str
    answer: str
    trace: str
    problem: Problem


def write_answer(answer: int | str) -> str:
    """The final answer line."""
    return f"The answer is {answer}."


def questions(
    split: Split, n: int, seed: int = 0, levels: Sequence[int] = LEVELS
) -> Iterator[Question]:
    """`n` questions of a split, the same for the same arguments.

    Templates and levels take turns, so any run of templates x levels questions is balanced.
    Repetitions of a question text are left out.
    """
    rng = random.Random(f"{split}:{seed}")
    templates = list(TEMPLATES.values())
    seen: set[str] = set()
    while len(seen) < n:
        index = len(seen)
        template = templates[index % len(templates)]
        level = levels[index // len(templates) % len(levels)]
        problem = problem_in(rng, split, template.family, level)
        text = template.render(problem)
        if text not in seen:
            seen.add(text)
            yield question(f"{split}-{seed}-{index:05d}", template.id, problem)


def question(name: str, template: str, problem: Problem) -> Question:
    """The problem in one wording, with answer and trace."""
    return Question(
        id=name,
        template=template,
        level=problem.level,
        split=problem.split,
        text=TEMPLATES[template].render(problem),
        answer=str(problem.answer),
        trace=write_trace(problem),
        problem=problem,
    )


def held_out(split: Split) -> list[Question]:
    """The questions that are written to `questions/SPLIT.jsonl`."""
    return list(questions(split, HELD_OUT[split], HELD_OUT_SEED))


def write_held_out(folder: Path) -> None:
    """Writes one JSON-lines file per held-out split: id, template, level, prompt, answer."""
    for split in HELD_OUT:
        rows = [
            {
                "id": q.id,
                "template": q.template,
                "level": q.level,
                "prompt": q.text,
                "answer": q.answer,
            }
            for q in held_out(split)
        ]
        write_split(folder, split, rows)
