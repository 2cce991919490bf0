"""Training conversations of the reasoner: what is read and which part of it is learned.

Pure Python. Knows nothing of tokens or models; only training problems come in here.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from testbed.problems import FAMILIES, LEVELS, Problem, problem_in
from testbed.smalltalk import SYSTEMS, THOUGHT, draw_exchange
from testbed.tasks import write_answer
from testbed.templates import CHAINS, SUMS
from testbed.traces import draw_style, draw_thinking, write_trace

Kind = Literal["worked", "cut", "direct", "talk", "turns"]
SHARES: dict[Kind, float] = {
    "worked": 0.85,
    "cut": 0.04,
    "direct": 0.01,
    "talk": 0.06,
    "turns": 0.04,
}
FIRST_LEVELS = (1, 2, 3)
CLOSE = "</think>\n\n"
Message = dict[str, str]


@dataclass
class Example:
    """Messages, then what the model writes: pieces of text, each learned or only read."""

    kind: Kind
    messages: list[Message]
    pieces: list[tuple[str, bool]]
    thinking: bool = True
    problems: list[Problem] = field(default_factory=list)


def draw_example(rng: random.Random) -> Example:
    """One training conversation of a kind drawn by `SHARES`."""
    kind = rng.choices(list(SHARES), list(SHARES.values()))[0]
    if kind == "talk":
        return talk(rng)
    problem, text = draw_question(rng)
    messages = [*draw_system(rng), {"role": "user", "content": text}]
    if kind == "turns":
        return turns(rng, problem, messages)
    pieces = WRITERS[kind](rng, problem)
    return Example(kind, messages, pieces, kind != "direct", [problem])


def draw_first_example(rng: random.Random) -> Example:
    """What training begins with: short problems, the shortest thinking, nothing wrong.

    Finding the numbers in a question is the last thing learned, and learned soonest from these.
    """
    problem, text = draw_question(rng, FIRST_LEVELS)
    thinking = "<think>\n" + write_trace(problem) + CLOSE + write_answer(problem.answer)
    messages = [{"role": "user", "content": text}]
    return Example("worked", messages, [(thinking, True)], problems=[problem])


def draw_question(rng: random.Random, levels: Sequence[int] = LEVELS) -> tuple[Problem, str]:
    """A training problem in a random wording."""
    problem = problem_in(rng, "train", rng.choice(FAMILIES), rng.choice(levels))
    templates = CHAINS if problem.family == "chain" else SUMS
    return problem, rng.choice(templates).render(problem)


def draw_system(rng: random.Random) -> list[Message]:
    """A system message, in one conversation of ten."""
    if rng.random() < 0.9:
        return []
    return [{"role": "system", "content": rng.choice(SYSTEMS)}]


def worked(rng: random.Random, problem: Problem) -> list[tuple[str, bool]]:
    """The thinking, slips and re-checks included, and the answer it comes to."""
    thinking, result = draw_thinking(rng, problem)
    return [("<think>\n" + thinking + CLOSE + write_answer(result), True)]


def cut(rng: random.Random, problem: Problem) -> list[tuple[str, bool]]:
    """Thinking closed too early, anywhere; only the guess after it is learned."""
    trace = write_trace(problem, draw_style(rng))
    if rng.random() < 0.5:
        seen = trace[: rng.randrange(len(trace))]
    else:
        lines = trace.splitlines(keepends=True)
        seen = "".join(lines[: rng.randrange(len(lines))])
    close = rng.choice((CLOSE, "\n" + CLOSE, CLOSE))
    return [("<think>\n" + seen + close, False), (write_answer(problem.answer), True)]


def direct(rng: random.Random, problem: Problem) -> list[tuple[str, bool]]:
    """No thinking asked for: the template has closed it already."""
    return [(write_answer(problem.answer), True)]


WRITERS: dict[Kind, Callable[[random.Random, Problem], list[tuple[str, bool]]]] = {
    "worked": worked,
    "cut": cut,
    "direct": direct,
}


def talk(rng: random.Random) -> Example:
    """Small talk; sometimes a second round of it."""
    said, answer = draw_exchange(rng)
    messages = [*draw_system(rng), {"role": "user", "content": said}]
    if rng.random() < 0.3:
        messages += [{"role": "assistant", "content": answer}]
        said, answer = draw_exchange(rng)
        messages += [{"role": "user", "content": said}]
    return Example("talk", messages, [("<think>\n" + THOUGHT + CLOSE + answer, True)])


def turns(rng: random.Random, problem: Problem, messages: list[Message]) -> Example:
    """A second turn after an answered question: small talk or one more question."""
    messages = [*messages, {"role": "assistant", "content": write_answer(problem.answer)}]
    if rng.random() < 0.4:
        said, answer = draw_exchange(rng)
        messages.append({"role": "user", "content": said})
        pieces = [("<think>\n" + THOUGHT + CLOSE + answer, True)]
        return Example("turns", messages, pieces, problems=[problem])
    second, text = draw_question(rng)
    messages.append({"role": "user", "content": text})
    return Example("turns", messages, worked(rng, second), problems=[problem, second])
