"""SafeThink under options drawn at random: neither a guard's nor an engine's pace changes anything.

Not the answer, nor its outcome, nor what is told of it; also where the guard fails at some texts.
"""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from decoders.core.base import Budget
from engines.base import Sampling
from monitors.core.base import Message, MonitorError, Score, Stage
from tests.decoders.test_safethink import PLAN, SAFE, asked, jittered, run_on
from tests.fakes.guard import WordGuard
from tests.fakes.requests import request, table

SYLLABLES = ("o", "mb", "e", "a", "ti", "x")
TOLD = (
    "outcome", "reason", "interventions", "held_back", "mean_held_back", "steps", "steered_steps",
    "resamples", "lowest_score",
)  # fmt: skip
PACES = ((False, 0.0, 0), (True, 0.0, 1), (True, 0.0005, 2), (True, 0.002, 0))


class Fickle(WordGuard):
    """Fails at steps that hold a text."""

    def __init__(self, *bad: str, fails_at: str, delay: float) -> None:
        super().__init__(*bad, delay=delay)
        self.fails_at = fails_at

    async def score(
        self, conversation: Sequence[Message], steps: Sequence[str], stage: Stage
    ) -> Score:
        """The verdict, if it has one."""
        found = await super().score(conversation, steps, stage)
        if self.fails_at in steps[-1]:
            raise MonitorError("down")
        return found


def drawn(rng: random.Random) -> dict[str, Any]:
    """Parameters and request fields."""
    return {
        "keep_phrase": rng.random() < 0.5,
        "max_steered_steps": rng.choice([0, 1, 2, 3, 6, None]),
        "counted": rng.choice(["steps", "interventions"]),
        "resample_temperature": rng.choice([None, 0.0, 0.5]),
        "max_resamples": rng.choice([1, 2, 4]),
        "on_exhaust": rng.choice(["best", "last", "refuse"]),
        "late": rng.choice(["accept", "steer", "refuse"]),
        "check_before_answer": rng.random() < 0.5,
        "check_answer": rng.random() < 0.5,
        "phrase": rng.choice(["Wait, think safely", ["a", "b"]]),
        "boundaries": rng.choice([["line"], ["paragraph", "heading"], ["line", "paragraph"], []]),
        "max_step_tokens": rng.choice([5, 9, 20]),
        "max_tokens": rng.choice([40, 90]),
        "think_open": rng.random() < 0.5,
        "on_monitor_error": {"guard": rng.choice(["continue", "block"])},
        "sampling": Sampling(logprobs=0, temperature=rng.choice([1.0, 1.0, 0.0])),
    }


@pytest.mark.parametrize("start", range(0, 120, 30))
async def test_pace_changes_nothing(start: int) -> None:
    steered = 0
    for seed in range(start, start + 30):
        rng = random.Random(seed)
        fields, bad = drawn(rng), rng.sample(SYLLABLES, rng.choice([2, 3, 4]))
        fails_at = rng.choice(["nothing", "nothing", "q", "k"])
        found, told = set(), dict[str, Any]()
        for optimistic, delay, jitter in PACES:
            guard = Fickle(*bad, fails_at=fails_at, delay=delay)
            engine = jittered(jitter, script={})
            one = asked(engine, guard, "babble", seed=seed, optimistic=optimistic, **fields)
            result = await run_on(engine, one)
            told = result.summary.as_dict()
            tokens = tuple(token for token, _ in result.logprobs)
            found.add((tokens, result.finish, tuple(told.get(name) for name in TOLD)))
        assert len(found) == 1, (seed, fields, found)
        steered += int(told.get("steered_steps", 0))
    assert steered > 3


async def test_a_path_samples_ahead_only_what_its_own_part_of_the_budget_covers() -> None:
    told = set()
    said = PLAN.replace("more", "more\n\n" * 30)
    params = {"max_steered_steps": 3, "max_resamples": 1}
    budget = Budget(max_generated_tokens=32 * 60)
    for delay in (0.0, 0.1):
        engine, guard = table(script={"hello": said, "safely": SAFE}), WordGuard("bad", delay=delay)
        one = request(
            engine, "parallel_thinking",
            {"paths": 32, "path": {"strategy": "safethink", "params": params}},
            monitors={"g": guard}, max_tokens=200, budget=budget,
        )  # fmt: skip
        result = await run_on(engine, one)
        told.add((result.finish, result.summary.outcome, result.reasoning, result.content))
    assert [finish for finish, *_ in told] == ["stop"]
